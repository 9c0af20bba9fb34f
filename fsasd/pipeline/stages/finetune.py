"""Fine-tune the generator on all captioned clips (step 2 of the method)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fsasd.data.content import digest
from fsasd.data.description import describe_clips
from fsasd.data.draws import process_batch
from fsasd.detectors.networks.training import on_gpus, processes
from fsasd.generation.continuing import take_checkpoints
from fsasd.generation.diffusion.cost import measured_flops, training_cost
from fsasd.generation.fitting import CHECKPOINTS, MODEL, changes_result, finetune
from fsasd.generation.training import TRAINING
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.loggers import LOG
from fsasd.pipeline.preflight import check_continued, check_training
from fsasd.pipeline.run_folder import copy, note, point
from fsasd.pipeline.stage import Estimate, Stage
from fsasd.pipeline.trainers import check_trainer, fitting_trainer, training_settings
from fsasd.pipeline.training_length import training_steps

SPEED_ONLY = frozenset({"gradient_checkpointing", "compile_network", "channels_last"})
"""Settings of generators that change how fast they are trained, and nothing in the result."""

EFFICIENCY = 0.5
"""Share of the speed of a matrix product that training reaches, validation included: on two CPU
cores the nano model has 0.6 of it."""


class Finetune(Stage):
    """The fine-tuned generator, for its constructor's ``checkpoint``, in ``model/``."""

    name, version, together = "finetune", 6, True
    trained_on = ("clips", "captions", "evaluated")

    def __init__(self, experiment: Experiment, earlier: Finetune | None = None) -> None:
        super().__init__({"earlier": earlier} if earlier else {})
        self.experiment = experiment
        self.earlier = earlier

    def spec(self) -> Mapping[str, Any]:
        """Everything that training depends on but the number of devices and what only watches."""
        run = self.experiment
        assert run.generator is not None
        watched = {
            name: one.spec for name, one in run.callbacks.items() if changes_result(one.kind)
        }
        generator = {k: v for k, v in run.generator.spec.items() if k not in SPEED_ONLY}
        evaluated = {}
        if _sounds_choose_the_checkpoint(watched):
            # Those that are held out of training, too.
            evaluated["evaluated"] = describe_clips(run.data.clips.where(role="reference"))
        else:
            generator.pop("sampler", None)
        return {
            "seed": run.seed,
            "generator": generator,
            "trainer": training_settings(run.trainer.spec),
            "callbacks": watched,
            "data": {
                name: getattr(run.data, name)
                for name in ("batch_size", "balance", "val_share", "seed")
            },
            **self._clips,
            **evaluated,
        }

    @cached_property
    def _clips(self) -> dict[str, Any]:
        data = self.experiment.data
        texts = [data.captions(clip) for clip in data.captioned]
        return {"clips": describe_clips(data.captioned), "captions": digest(texts)}

    def check(self) -> None:
        """Check the trainer's settings, and that the best checkpoint will be known."""
        run = self.experiment
        monitored = [m for one in run.callbacks.values() if (m := one.settings.get("monitor"))]
        check_training(run.trainer.settings, monitored, run.data)
        check_trainer(run)
        if self.earlier is not None:
            check_continued(run.trainer.settings, run.continue_from, run.keep_checkpoints)
            self.earlier.check()

    def estimate(self) -> Estimate | None:
        """Return what training will take: the operations of its steps, at this machine's speed."""
        run = self.experiment
        assert run.generator is not None
        generator = run.generator()
        # A run without one of diffusers' models does not import it.
        from fsasd.generation.diffusion.latent_diffusion import LatentDiffusion

        if not isinstance(generator, LatentDiffusion):
            return None
        settings = run.trainer.settings
        accumulated = settings.get("accumulate_grad_batches") or 1
        half_precision = str(settings.get("precision", "")).startswith(("bf16", "16"))
        cost = training_cost(
            generator.model,
            generator.unconditional,
            generator.adaptation,
            process_batch(run.data.batch_size, processes(settings), accumulated),
            generator.example_frames,
            gradient_checkpointing=generator.gradient_checkpointing,
            half_precision=half_precision,
        )
        device = "cuda" if on_gpus(settings) else "cpu"
        speed = EFFICIENCY * measured_flops(device, half_precision and device == "cuda")
        steps = training_steps(settings, run.data)
        seconds = steps * accumulated * cost.flops / speed
        model = sum(p.numel() for p in generator.parameters())
        return Estimate(seconds / 3600, 4 * model / 1e9)

    def publish(self, artifact: Path, run: Path) -> None:
        """Step and loss of the weights; model and log, which stay in the store, as links."""
        point(artifact / MODEL, run, MODEL)
        if (artifact / LOG).is_dir():
            point(artifact / LOG, run, f"{LOG}/{self.name}")
        if (artifact / TRAINING).is_file():
            note(run, [TRAINING])
            copy(artifact / TRAINING, run / TRAINING)

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Train from the last checkpoint that the folder holds, or the earlier training's."""
        run = self.experiment
        assert run.generator is not None
        if earlier := inputs.get("earlier"):
            take_checkpoints(earlier / CHECKPOINTS, folder / CHECKPOINTS)
        trainer = fitting_trainer(run, folder)
        finetune(run.generator(), run.data, trainer, folder, keep_checkpoints=run.keep_checkpoints)


def plan(run: Experiment, earlier: Mapping[str, Sequence[Stage]]) -> list[Stage]:
    """Plan the fine-tuning of a generator that is trained, after one that it continues."""
    if not run.trains_generator:
        return []
    if run.continue_from is None:
        return [Finetune(run)]
    trainer = run.trainer.having(max_steps=run.continue_from)
    return [Finetune(run, _Earlier(replace(run, trainer=trainer, continue_from=None)))]


class _Earlier(Finetune):
    """A training that another one continues: the run's model is the latter's."""

    def publish(self, artifact: Path, run: Path) -> None:
        return


def _sounds_choose_the_checkpoint(callbacks: Mapping[str, Any]) -> bool:
    """Say whether the best checkpoint is one by what the generator's clips are worth."""
    monitors = [one.get("monitor") for one in callbacks.values()]
    return any(str(monitor).startswith("first_shot/") for monitor in monitors)
