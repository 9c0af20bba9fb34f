"""Synthesise a section's normal and anomalous clips, then judge them (steps 3 and 4)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsasd.data.captions import Captions
from fsasd.data.clips import Clips
from fsasd.data.description import describe_clips
from fsasd.data.names import SectionId
from fsasd.detectors.networks.training import on_gpus, processes
from fsasd.generation.base import Generator
from fsasd.generation.encoder_space import RealClips
from fsasd.generation.filters import Filters
from fsasd.generation.judging import judge
from fsasd.generation.prompts import check_wording, make_prompts, with_candidates
from fsasd.generation.synthesis import synthesise
from fsasd.generation.synthetic_clips import MANIFEST
from fsasd.generation.transfer import AnomalyTransfer
from fsasd.pipeline.experiment import Experiment, Factory, weights_in
from fsasd.pipeline.run_folder import link
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages.curve import tried_sections
from fsasd.pipeline.trainers import check_trainer, trainer
from fsasd.selection.sources.transfer import Transfer


class Synthesise(Stage):
    """The recordings of one section, with ``manifest.csv``: all that were generated.

    Args:
        experiment: What is planned for.
        section: The section.
        clips: Its real normal training clips.
        finetuned: What made the generator, if it is one that is trained.
    """

    name, version = "synthesise", 12

    def __init__(
        self, experiment: Experiment, section: SectionId, clips: Clips, finetuned: Stage | None
    ) -> None:
        super().__init__({"finetune": finetuned} if finetuned else {}, section)
        self.experiment = experiment
        self.clips = clips
        trainer = experiment.trainer.settings
        # Signal transforms, for instance, need neither a GPU nor other ranks: sections divide them.
        self.together = bool(finetuned) or on_gpus(trainer) or processes(trainer) > 1

    def spec(self) -> Mapping[str, Any]:
        """The generator where it is not trained, what is asked for, and the clips it is made of."""
        run, asked = self.experiment, self.experiment.synthesis
        assert run.generator is not None
        return {
            "seed": run.seed,
            "generator": (run.generator.spec.get("sampler") if self.inputs else run.generator.spec),
            "precision": run.trainer.settings.get("precision"),
            "prompts": asked.prompts.spec,
            "cleaning": asked.cleaning.spec,
            "clips_per_label": asked.clips_per_label,
            "candidates": asked.candidates,
            "per_caption": asked.per_caption,
            "max_seconds": asked.max_seconds,
            "batch_size": asked.batch_size,
            "clips": describe_clips(self.clips),
            "captions": self._captions(),
            **({"references": _described(self._references())} if run.uses_references else {}),
        }

    def check(self) -> None:
        """Check the trainer, the references, and that anomalous clips can be asked for in words."""
        check_trainer(self.experiment)
        if self.experiment.uses_references:
            try:
                self._generator()
            except ValueError as error:
                raise ValueError(
                    f"{self}: {error}. References are the machines of dev_data (data=dcase), or "
                    "those that are not among data.targets; where the machine is one itself, those "
                    "of its type are left out. Give some with anomalies, or use "
                    "generator=transforms, which needs none"
                ) from error
        check_wording(self.clips, self._captions(), self.experiment.synthesis.prompts())

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Generate what the folder does not yet hold."""
        run, asked = self.experiment, self.experiment.synthesis
        assert run.generator is not None
        trained = weights_in(inputs["finetune"] / "model", run.generator) if inputs else {}
        generator = self._generator(**trained)
        prompts = make_prompts(
            self.clips,
            self._captions(),
            asked.clips_per_label,
            run.seed,
            asked.prompts(),
            asked.per_caption,
            # Transformed recordings are as long as they were; a model has the length it learnt.
            None if generator.derived and not generator.trained else asked.max_seconds,
        )
        synthesise(
            generator,
            with_candidates(prompts, asked.candidates),
            folder,
            trainer(run, folder, logger=False),
            asked.cleaning(),
            asked.batch_size,
        )

    def publish(self, artifact: Path, run: Path) -> None:
        """The recordings; their manifest is that of all sections (``collect``)."""
        link(artifact, run, "synthetic", without=[MANIFEST])

    def _generator(self, **trained: str) -> Generator:
        run = self.experiment
        assert run.generator is not None
        if not run.uses_references:
            return run.generator(**trained)
        # Called itself, so that what it raises is not wrapped.
        arguments = {**run.generator.arguments(), **trained, "references": self._references()}
        return run.generator.kind(**arguments)

    def _references(self) -> Clips:
        assert self.section is not None
        return self.experiment.references_for(self.section)

    def _captions(self) -> list[str]:
        return [self.experiment.data.captions(clip) for clip in self.clips]


class TransferAnomalies(Synthesise):
    """Clips of a section with transferred anomalies, as a source of evidence for its setting."""

    name, version = "transfer", 1

    def publish(self, artifact: Path, run: Path) -> None:
        """The recordings and their manifest."""
        assert self.section is not None
        link(artifact, run, f"transferred/{self.section.machine}_section_{self.section.section}")


class Judge(Stage):
    """Which synthetic clips of a section are kept, and how they differ from real ones (``judge``).

    Args:
        experiment: What is planned for.
        synthesised: The clips.
    """

    name, version = "judge", 3

    def __init__(self, experiment: Experiment, synthesised: Synthesise) -> None:
        super().__init__({"recordings": synthesised}, synthesised.section)
        self.experiment = experiment

    def spec(self) -> Mapping[str, Any]:
        """The filters, the encoders of the quality, and the real clips to compare with."""
        asked = self.experiment.synthesis
        return {
            "filters": asked.filters.spec,
            "encoders": {name: one.spec for name, one in asked.encoders.items()},
            **self._real().described,
        }

    def check(self) -> None:
        """Check that there are real clips to take the filters' limits from."""
        filters = self.experiment.synthesis.filters()
        assert self.section is not None
        if isinstance(filters, Filters):
            filters.check(self._real(), [self.section])

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Apply the filters, measure the quality and the gap."""
        asked = self.experiment.synthesis
        encoders = {name: one() for name, one in asked.encoders.items()}
        judge(inputs["recordings"], folder, self._real(), asked.filters(), encoders)

    def publish(self, artifact: Path, run: Path) -> None:
        """Nothing: the tables of all sections are joined (``collect``)."""

    def _real(self) -> RealClips:
        assert self.section is not None
        return real_clips(self.experiment, self.section)


def plan(run: Experiment, earlier: Mapping[str, Sequence[Stage]]) -> list[Stage]:
    """Plan the clips of every section that settings are to be chosen for."""
    if run.generator is None:
        return []
    (finetuned,) = earlier.get("finetune", ()) or (None,)
    generated = [
        Synthesise(run, section, clips, finetuned) for section, clips in run.synthesised().items()
    ]
    judged = [Judge(run, one) for one in generated]
    return [*generated, *judged, *transfers(run)]


def transfers(run: Experiment) -> list[TransferAnomalies]:
    """Plan the clips that the source ``Transfer`` asks for, if it is among the selector's.

    They are made for targets, and for references on which the combination of sources is learnt.
    """
    source = next((s for s in run.selector.sources.values() if isinstance(s, Transfer)), None)
    if source is None or run.generator is None or not run.selector.grids:
        return []
    transferring = replace(
        run,
        generator=Factory.of(
            AnomalyTransfer, strengths=source.strengths, channel=run.data.cache.channel
        ),
        synthesis=replace(run.synthesis, clips_per_label=source.clips_per_label, candidates=1),
    )
    donors = functools.cache(AnomalyTransfer.has_donors)
    return [
        TransferAnomalies(transferring, section, train, None)
        for section, (train, _) in tried_sections(run).items()
        if donors(transferring.references_for(section))
    ]


def real_clips(run: Experiment, section: SectionId) -> RealClips:
    """Return the real clips that a section's synthetic ones are compared with.

    Those of the section; of all machines only where a limit is taken from the anomalies of others.
    """
    clips = run.data.captioned
    if run.synthesis.filters.settings.get("too_far") is not None:
        return _captioned(clips, run.data.captions)
    of_section = clips.sections.get(section, clips[:0])
    return RealClips(of_section, [run.data.captions(clip) for clip in of_section])


# Targets have the same references, and reference machines of a type.
@functools.lru_cache(maxsize=32)
def _described(references: Clips) -> dict[str, str]:
    return describe_clips(references)


# All sections share them; a sweep has an experiment for each job, of which none is to be kept.
@functools.lru_cache(maxsize=1)
def _captioned(clips: Clips, captions: Captions) -> RealClips:
    return RealClips(clips, [captions(clip) for clip in clips])
