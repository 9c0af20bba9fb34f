"""What Lightning calls: writing synthetic clips, and judging a generator by what it is for."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.front_ends import FrontEnd
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.detectors.base import Detector
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.generation.base import Generator
from fsasd.generation.filters import mark_duplicates
from fsasd.generation.prompts import make_prompts
from fsasd.generation.synthesis import SynthesisFolder
from fsasd.generation.synthetic_clips import clips_of
from fsasd.runtime.ranks import rank
from fsasd.selection.selector import Selector
from fsasd.selection.validation import ValidatedSection, correlate, validate

log = logging.getLogger(__name__)

Values = dict[SectionId, dict[str, float] | None]
"""Section to its first-shot numbers; ``None`` without usable synthetic clips."""


class DetectorEvaluation(L.Callback):
    """Run the first-shot task on reference machines while the generator is being trained.

    Each section of each reference machine with labelled test clips is treated as if it were a
    target's: the model synthesises its normal and anomalous clips, the detector's setting is chosen
    on them alone, and its real anomalies then say how good the choice was. Processes share the
    sections. Logged are, as means over the sections, ``first_shot/auc``, ``first_shot/pauc``,
    ``first_shot/gain`` (objective of the chosen setting minus that of the detector's default),
    ``first_shot/regret`` (that of the best setting in hindsight minus that of the chosen one) and
    ``first_shot/spearman`` (how alike synthetic and real clips order the settings); a checkpoint
    can monitor them.

    Note that the generator is trained on the reference machines' anomalies, too, as the method has
    it. They play no part in the choice of a setting.

    Args:
        every_n_validations: Evaluate after every n-th validation.
        clips_per_label: Synthetic clips of each label per section.
        max_seconds: Length at which synthetic clips are cut, since this is repeated often.
        detector: Whose setting is chosen; TWFR-GMM by default.
        selector: The settings to choose from; r in 0, 0.05, ..., 1.10 by default, without
            abstaining: what a few clips choose is no evidence yet, but moves with the generator.
            Its ``max_gap`` is ``None``, since a gap would be measured and not logged.
    """

    def __init__(
        self,
        every_n_validations: int = 1,
        clips_per_label: int = 8,
        max_seconds: float = 2.56,
        detector: Detector | None = None,
        selector: Selector | None = None,
    ) -> None:
        self.every_n_validations = every_n_validations
        self.clips_per_label = clips_per_label
        self.max_seconds = max_seconds
        self.detector = detector or TWFRGMM()
        r = np.arange(0, 1.101, 0.05).round(2).tolist()
        self.selector = selector or Selector({"r": r}, abstain=False, max_gap=None)
        self._validations = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that one process will be able to generate.

        Raises:
            ValueError: The weights are divided among processes.
        """
        if getattr(pl_module, "sharded", False):
            raise ValueError(
                "with trainer=fsdp no process can generate alone, as DetectorEvaluation does: use "
                "'~callbacks.evaluation', or trainer=ddp"
            )

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate, each process its share, and log the same number on all."""
        if trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every_n_validations:
            return
        assert isinstance(pl_module, Generator)
        share = trainer.global_rank, trainer.world_size
        rows = self._evaluate_share(pl_module, trainer.datamodule, share)  # type: ignore[attr-defined]
        means = _means([trainer.strategy.broadcast(rows, rank) for rank in range(share[1])])
        if means:
            logged = {f"first_shot/{key}": value for key, value in means.items()}
            # The same number on all ranks, so that their mean is it, too.
            pl_module.log_dict(logged, sync_dist=True)
            pl_module.train()

    def state_dict(self) -> dict[str, Any]:
        """Return how many validations there were, of which every n-th is judged."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def evaluate(self, generator: Generator, data: FirstShotDataModule) -> dict[str, float]:
        """Return the means that are logged; empty where no machine can be evaluated."""
        return _means([self._evaluate_share(generator, data)])

    def _evaluate_share(
        self, generator: Generator, data: FirstShotDataModule, share: tuple[int, int] = (0, 1)
    ) -> Values:
        """Evaluate this process's share of the sections."""
        rank, ranks = share
        of_section = [
            (section, clips)
            for section, clips in data.clips.sections.items()
            if clips[0].role == "reference"
        ]
        values: Values = {}
        for section, clips in of_section[rank::ranks]:
            real = Clips(clips, _KeepsReal(data.cache))
            train = real.where(split="train", label="normal")
            if not len(train):
                continue
            with tempfile.TemporaryDirectory() as folder:
                synthetic = self._synthesise(generator, data, train, folder)
                validated = validate(self.detector, self.selector, real, synthetic)
            if validated is not None:
                usable = not np.isnan(validated.selection.gain)
                values[section] = _row(validated) if usable else None
        return values

    def _synthesise(
        self, generator: Generator, data: FirstShotDataModule, train: Clips, folder: str
    ) -> Clips:
        texts = [data.captions(clip) for clip in train]
        prompts = generator.prepare(
            make_prompts(train, texts, self.clips_per_label, max_seconds=self.max_seconds)
        )
        with generator.averaged_weights(), torch.no_grad():
            waveforms = generator.generate(prompts)
        synthesis = SynthesisFolder(folder)
        for prompt, waveform in zip(prompts, waveforms, strict=True):
            synthesis.write(prompt, waveform.numpy(), generator.sampling_rate)
        manifest = mark_duplicates(synthesis.close(prompts))
        return Clips(clips_of(manifest[manifest["kept"]], folder))


class _KeepsReal(FeatureCache):
    """A cache of synthetic clips' features that asks another one for those of real clips."""

    def __init__(self, kept: FeatureCache) -> None:
        super().__init__(channel=kept.channel)
        self.kept = kept

    def get(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        return super().get(front_end, clip) if clip.synthetic else self.kept.get(front_end, clip)

    def holds(self, front_end: FrontEnd, clip: Clip) -> bool:
        if clip.synthetic:
            return super().holds(front_end, clip)
        return self.kept.holds(front_end, clip)


def _row(validated: ValidatedSection) -> dict[str, float]:
    table = validated.hindsight.settings.set_index("setting")
    objective = table["objective"]
    return {
        "auc": table["auc"]["synthetic"],
        "pauc": table["pauc"]["synthetic"],
        "gain": objective["synthetic"] - objective[table["default"]].iloc[0],
        "regret": objective["oracle"] - objective["synthetic"],
        "spearman": correlate(validated.selection, validated.hindsight.real)[0, 0],
    }


def _means(shares: Sequence[Values]) -> dict[str, float]:
    values = {section: row for share in shares for section, row in share.items()}
    for section in sorted(section for section, row in values.items() if row is None):
        if rank() == 0:
            log.warning("%s: no usable synthetic clips of both labels yet", section)
    # In one order, however they were shared; where a curve is flat it has no order.
    rows = [row for _, row in sorted(values.items()) if row is not None]
    means = pd.DataFrame(rows).mean().dropna()
    return {str(key): float(value) for key, value in means.items()}
