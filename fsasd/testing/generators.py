"""Conformance checks of generators, one function per rule; ``check_generator`` runs all."""

from __future__ import annotations

import copy
import functools
import pickle
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.generation.base import Generator
from fsasd.generation.prompts import Prompt
from fsasd.generation.rates import resample
from fsasd.generation.synthesis import synthesise
from fsasd.generation.synthetic_clips import read_table
from fsasd.testing import examples

_LOG_MEL = LogMel.twfr()


class GeneratorCase:
    """A generator, its prompts, and the clips that it generated first.

    Args:
        generator: In the state for ``trainer.predict``.
        prompts: Of both labels and more than one length.
        decibel: Log-mels that differ by less (RMS) count as equal: the phase of vocoders amplifies
            rounding errors, in which a batch differs from a single clip.
    """

    def __init__(self, generator: Generator, prompts: Sequence[Prompt], decibel: float) -> None:
        self.generator = generator
        self.given = list(prompts)
        self.prompts = list(generator.prepare(list(prompts)))
        self.decibel = decibel
        sources = [Path(p.source) for p in prompts if p.source]
        self.sources = {path: path.read_bytes() for path in sources if path.is_file()}
        self.waveforms = generator.generate(list(self.prompts))

    def generate(self, prompts: Sequence[Prompt]) -> list[np.ndarray]:
        """Return the clips of prompts as arrays, at the rate of recordings."""
        return self.at_common_rate(self.generator.generate(list(prompts)))

    def at_common_rate(self, waveforms: Sequence[torch.Tensor]) -> list[np.ndarray]:
        """Return waveforms of the generator as arrays, at the rate of recordings."""
        rate = self.generator.sampling_rate
        return [resample(waveform.numpy(), rate, SAMPLE_RATE) for waveform in waveforms]

    @property
    def clips(self) -> list[np.ndarray]:
        """The clips generated first, at the rate of recordings."""
        return self.at_common_rate(self.waveforms)

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        """Return the RMS difference of two clips' log-mels in dB."""
        return float(np.sqrt(np.mean((_LOG_MEL(one) - _LOG_MEL(other)) ** 2)))


def check_generator(
    generator: Generator | Callable[..., Generator],
    prompts: Sequence[Prompt] | None = None,
    *,
    reload: Callable[[Path], Generator] | None = None,
    decibel: float = 1.0,
) -> None:
    """Check that a generator keeps the rules of ``fsasd.generation.base.Generator``.

    A copy of one that is trained is trained for two steps, saved and loaded again; another copy is
    trained from the first step's checkpoint on.

    Args:
        generator: The generator, in the state in which it would generate; of one that uses
            references its class, or what else makes it, which gets synthetic ``references``.
        prompts: Prompts before ``prepare``; by default of both labels, two machines and two
            lengths, with synthetic recordings.
        reload: For a trained generator: the folder of ``save`` -> the generator; by default its
            class with ``checkpoint`` and no other argument.
        decibel: RMS difference up to which two log-mels count as equal.

    Raises:
        AssertionError: A rule is broken; the message names it and the observed value.

    >>> from fsasd.generation.transfer import AnomalyTransfer
    >>> check_generator(AnomalyTransfer)
    >>> from fsasd.generation.transforms import FaultTransforms
    >>> check_generator(FaultTransforms({"leak": {"strength": [0.2, 0.5], "above": [2e3, 4e3]}}))
    """
    with tempfile.TemporaryDirectory() as folder:
        if not isinstance(generator, Generator):
            generator = generator(references=examples.example_references(Path(folder)))
        generator.eval()
        learner = copy.deepcopy(generator).train() if generator.trained else None
        given = examples.example_prompts(Path(folder)) if prompts is None else prompts
        case = GeneratorCase(generator, given, decibel)
        for check in CHECKS:
            check(case)
        from_folder = reload or functools.partial(_from_checkpoint, generator)
        if reload is not None or generator.trained:
            _check_saving(case, generator, from_folder)
        if learner is not None:
            _check_training(case, learner, from_folder)


def _check_prepare(case: GeneratorCase) -> None:
    # Captions may become more precise; all else of a prompt stays.
    for prompt, before in zip(case.prompts, case.given, strict=True):
        changed = prompt._replace(
            caption=before.caption, derived=before.derived, fault=before.fault,
            strength=before.strength, donor=before.donor, region_start=before.region_start,
            region_end=before.region_end,
        )  # fmt: skip
        _require(
            changed == before,
            "prepare changes only captions, names of faults, strengths, donors and regions",
            f"{before} became {prompt}",
        )
        _require(
            prompt.derived == case.generator.derived,
            "prepare sets derived in each prompt, as the generator does",
            f"{prompt.derived} in a prompt, {case.generator.derived} of the generator",
        )


def _check_donors(case: GeneratorCase) -> None:
    if not case.generator.uses_references:
        return
    for prompt in case.prompts:
        _require(
            prompt.label != "anomaly" or bool(prompt.donor),
            "a generator that uses references names the donor of each anomaly in its prompt",
            f"none in that of {prompt.wav}",
        )


def _check_waveforms(case: GeneratorCase) -> None:
    waveforms, rate = case.waveforms, case.generator.sampling_rate
    _require(
        len(waveforms) == len(case.prompts),
        "generate returns one waveform per prompt",
        f"{len(waveforms)} for {len(case.prompts)} prompts",
    )
    for prompt, waveform in zip(case.prompts, waveforms, strict=True):
        _require(
            isinstance(waveform, torch.Tensor)
            and waveform.dtype == torch.float32
            and waveform.device.type == "cpu"
            and waveform.ndim == 1,
            "a waveform is a float32 tensor (samples,) on the CPU",
            _described(waveform),
        )
        # A prompt's length is rounded to hundredths of a second.
        _require(
            abs(len(waveform) - prompt.seconds * rate) <= 0.005 * rate + 1,
            "a waveform lasts prompt.seconds",
            f"{len(waveform) / rate:.3f} s for {prompt.seconds} s",
        )
        _require_finite(prompt, waveform)


def _check_extreme_sources(case: GeneratorCase) -> None:
    if not case.generator.derived:
        return
    with tempfile.TemporaryDirectory() as folder:
        prompts = case.generator.prepare(examples.extreme_prompts(Path(folder)))
        for prompt, waveform in zip(prompts, case.generator.generate(prompts), strict=True):
            _require_finite(prompt, waveform)


def _require_finite(prompt: Prompt, waveform: torch.Tensor) -> None:
    wrong = int((~torch.isfinite(waveform)).sum())
    observed = f"{wrong} samples of {prompt.wav} are not finite, of the source {prompt.source}"
    _require(not wrong, "a waveform is finite", observed)


def _check_determinism(case: GeneratorCase) -> None:
    before = torch.get_rng_state()
    torch.manual_seed(12345)
    state, given = torch.get_rng_state(), list(case.prompts)
    again = case.at_common_rate(case.generator.generate(given))
    undisturbed = torch.equal(state, torch.get_rng_state())
    torch.set_rng_state(before)
    rule = "generate has no side effects"
    _require(undisturbed, rule, "PyTorch's global random state changed")
    _require(given == case.prompts, rule, "the list of prompts changed")
    for path, content in case.sources.items():
        _require(path.read_bytes() == content, rule, f"{path} changed")
    _require_equal(case, case.clips, again, "a prompt determines its clip")


def _check_independence_of_batches(case: GeneratorCase) -> None:
    alone = [case.generate([prompt])[0] for prompt in case.prompts]
    _require_equal(case, case.clips, alone, "a clip does not depend on the rest of its batch")


def _check_seeds(case: GeneratorCase) -> None:
    prompt = next((p for p in case.prompts if p.label == "anomaly"), None)
    if prompt is None:
        return
    seeds = [prompt._replace(seed=prompt.seed + more, wav=f"{more}.wav") for more in range(3)]
    first, *others = case.generate(case.generator.prepare(seeds))
    # What is derived of one recording has little of its own.
    least = case.decibel / (10 if case.generator.derived else 1)
    _require(
        any(case.distance(first, other) > least for other in others),
        "anomalies depend on the seed",
        f"the clips of three seeds differ by less than {least:g} dB",
    )


def _check_level(case: GeneratorCase) -> None:
    # What a model has learnt to generate has its own level, also where it begins at a recording.
    if not case.generator.derived or case.generator.trained:
        return
    for prompt, waveform in zip(case.prompts, case.clips, strict=True):
        if prompt.label != "normal" or prompt.source is None:
            continue
        expected = np.sqrt(np.mean(read(prompt.source) ** 2)) * prompt.gain
        level = np.sqrt(np.mean(waveform**2))
        _require(
            0.5 < level / expected < 2,
            "a derived clip has the level of its source times prompt.gain",
            f"RMS {level:.4g} instead of {expected:.4g} for {prompt.wav}",
        )


def _check_prediction(case: GeneratorCase) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
        )
        synthesise(case.generator, case.given, folder, trainer, batch_size=3)
        table = read_table(folder)
        for prompt, waveform, row in zip(
            case.prompts, case.clips, table.to_dict("records"), strict=True
        ):
            if not row["kept"]:
                continue
            written = read(Path(folder) / prompt.wav)
            level = waveform / np.float32(prompt.gain)
            _require(
                len(written) != len(level) or case.distance(written, level) <= case.decibel,
                "synthesise writes what generate returns",
                f"{prompt.wav} differs by {case.distance(written, level):.2f} dB",
            )


def _from_checkpoint(generator: Generator, folder: Path) -> Generator:
    return type(generator)(checkpoint=str(folder))


def _check_saving(
    case: GeneratorCase, generator: Generator, reload: Callable[[Path], Generator]
) -> None:
    with generator.averaged_weights():
        before = case.at_common_rate(generator.generate(list(case.prompts)))
    with tempfile.TemporaryDirectory() as folder:
        generator.save(Path(folder) / "model")
        again = reload(Path(folder) / "model").eval()
        after = case.at_common_rate(again.generate(list(case.prompts)))
    _require_equal(case, before, after, "a saved generator generates the same clips")


def _check_training(
    case: GeneratorCase, learner: Generator, reload: Callable[[Path], Generator]
) -> None:
    _require(
        is_overridden("validation_step", learner),
        "a trained generator is validated",
        "it has no validation_step for val/loss, by which the default callbacks keep a checkpoint",
    )
    before, resumed = _weights(learner), copy.deepcopy(learner)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = FirstShotDataModule(examples.example_recordings(folder), batch_size=2, val_share=0.5)
        _train_two_steps(learner, data, folder)
        try:
            torch.load(folder / "1.ckpt", weights_only=True)
        except pickle.UnpicklingError as error:
            _require(False, "a checkpoint holds tensors, numbers and text only", str(error))
        _train_two_steps(resumed, data, folder, ckpt_path=folder / "1.ckpt")
    after = _weights(learner)
    _require(
        any(name not in before or not torch.equal(p, before[name]) for name, p in after.items()),
        "training changes weights",
        "after two steps all are unchanged",
    )
    for name, weight in after.items():
        finite = bool(torch.isfinite(weight).all())
        _require(finite, "trained weights are finite", f"{name} is not finite")
    _check_resuming(learner, resumed)
    _check_saving(case, learner.eval(), reload)


def _check_resuming(learner: Generator, resumed: Generator) -> None:
    with learner.averaged_weights(), resumed.averaged_weights():
        averages = _weights(learner), _weights(resumed)
    for kind, (one, other) in (
        ("", (_weights(learner), _weights(resumed))),
        ("the average of ", averages),
    ):
        for name, weight in one.items():
            same = name in other and torch.allclose(other[name], weight, rtol=1e-3, atol=1e-5)
            _require(
                same,
                "a training that is resumed ends where one without a stop does",
                f"{kind}{name} differs",
            )


def _weights(generator: Generator) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().clone() for name, p in generator.named_parameters()}


class _EachStep(L.Callback):
    """Seeds each step, so that dropout is the same when resumed, and keeps its checkpoint."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        torch.manual_seed(trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f"{trainer.global_step}.ckpt")


def _train_two_steps(
    learner: Generator, data: FirstShotDataModule, folder: Path, **resuming: Any
) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=2,
        max_epochs=-1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=[_EachStep()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # The order of examples knows where it was interrupted.
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
        trainer.fit(learner, data, weights_only=True, **resuming)


CHECKS = (
    _check_prepare,
    _check_donors,
    _check_waveforms,
    _check_extreme_sources,
    _check_determinism,
    _check_independence_of_batches,
    _check_seeds,
    _check_level,
    _check_prediction,
)


def _require_equal(
    case: GeneratorCase, one: Sequence[np.ndarray], other: Sequence[np.ndarray], rule: str
) -> None:
    for prompt, a, b in zip(case.prompts, one, other, strict=True):
        _require(a.shape == b.shape, rule, f"{prompt.wav} has {len(a)} and {len(b)} samples")
        _require(
            case.distance(a, b) <= case.decibel,
            rule,
            f"log-mels of {prompt.wav} differ by {case.distance(a, b):.2f} dB",
        )


def _require(kept: bool, rule: str, observed: str) -> None:
    if not kept:
        raise AssertionError(f"a generator breaks the rule '{rule}': {observed}")


def _described(waveform: object) -> str:
    if isinstance(waveform, torch.Tensor):
        return f"{waveform.dtype} of shape {tuple(waveform.shape)} on {waveform.device}"
    return type(waveform).__name__
