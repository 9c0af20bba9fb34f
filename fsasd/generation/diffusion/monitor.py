"""Callbacks that watch a training: cost, progress, audio samples."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning as L
import torch

from fsasd.generation.diffusion.cost import GIB, training_cost
from fsasd.generation.diffusion.latent_diffusion import LatentDiffusion
from fsasd.generation.prompts import MAX_SECONDS, Prompt, make_prompts
from fsasd.generation.samples import log_samples

log = logging.getLogger(__name__)


class CostReport(L.Callback):
    """Log what the run will cost: before it begins what is counted, then what is measured.

    Args:
        steps: Batches after which the rest of the run is estimated; the first, which warm up, do
            not count.
    """

    only_watches = True

    def __init__(self, steps: int = 10) -> None:
        self.steps = steps
        self.cost: Any = None
        """``diffusion.cost.Cost`` of a step, once fitting has begun."""
        self.hours: float | None = None
        """Of the whole run, once measured."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(pl_module, LatentDiffusion):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.cost = training_cost(
            pl_module.model,
            pl_module.unconditional,
            pl_module.adaptation,
            data.process_batch_size,
            pl_module.example_frames,
            gradient_checkpointing=pl_module.gradient_checkpointing,
            half_precision=str(trainer.precision).startswith(("bf16", "16")),
            moment_bytes=2 if pl_module.optimizer_name == "adamw_8bit" else 8,
        )
        log.info(
            "%s on each of %d devices. %d steps of %d examples (%d x %d devices x %d accumulated)",
            self.cost, trainer.world_size, pl_module.total_steps, pl_module.examples_per_step,
            data.process_batch_size, trainer.world_size, trainer.accumulate_grad_batches,
        )  # fmt: skip

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure the seconds of a batch."""
        if self.cost is None or self.hours is not None:
            return
        done = trainer.fit_loop.epoch_loop.batch_progress.total.ready - self._first
        if done == 2:
            _wait_for(pl_module.device)
            self._begin = time.monotonic()
        elif done == 2 + self.steps:
            _wait_for(pl_module.device)
            self._report(trainer, pl_module, (time.monotonic() - self._begin) / self.steps)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._first = trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def _report(self, trainer: L.Trainer, pl_module: Any, seconds: float) -> None:
        batches = pl_module.total_steps * trainer.accumulate_grad_batches
        self.hours = batches * seconds / 3600
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        memory = (
            f", {torch.cuda.max_memory_allocated() / GIB:.1f} GiB at most"
            if pl_module.device.type == "cuda"
            else ""
        )
        log.info(
            "measured: %.3g s a batch (%.3g clips/s, %.3g TFLOP/s a device%s); about %s for the "
            "whole run of %d steps, validation not counted",
            seconds, data.process_batch_size * trainer.world_size / seconds,
            self.cost.flops / seconds / 1e12, memory, _duration(3600 * self.hours),
            pl_module.total_steps,
        )  # fmt: skip


class TrainingMonitor(L.Callback):
    """Log learning rate, gradient norm, clips/s, GPU memory, and audio samples at intervals.

    W&B and TensorBoard get samples as audio, image and text; other loggers (CSV) as files in
    ``samples/<step>/`` of their folder.

    Args:
        samples_every_n_steps: Optimizer steps between samples; 0 for none.
        samples: Prompts: normal and anomalous in turn, of one target machine after the other.
        max_seconds: Of a sample; the real clip may be longer.
    """

    only_watches = True

    def __init__(
        self,
        samples_every_n_steps: int = 500,
        samples: int = 4,
        max_seconds: float | None = MAX_SECONDS,
    ) -> None:
        self.samples_every_n_steps = samples_every_n_steps
        self.samples = samples
        self.max_seconds = max_seconds
        self._step = 0
        self._restart()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.samples_every_n_steps and getattr(pl_module, "sharded", False):
            # Now, and not hours later, when it is time for the first samples.
            raise ValueError(
                "with trainer=fsdp there are no samples during training: set "
                "callbacks.monitor.samples_every_n_steps=0"
            )
        self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the gradient's norm before it is clipped, and the learning rate."""
        if not self._is_logged(trainer, trainer.global_step + 1):
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        pl_module.log("train/gradient_norm", norm)
        pl_module.log("train/learning_rate", optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log speed and memory, and samples when it is time."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._clips += data.process_batch_size * trainer.world_size
        stepped = trainer.global_step != self._step
        self._step = trainer.global_step
        if not stepped:
            return
        if self._is_logged(trainer, trainer.global_step):
            pl_module.log("train/clips_per_second", self._clips / (time.monotonic() - self._begin))
            if pl_module.device.type == "cuda":
                used = torch.cuda.max_memory_allocated() / GIB
                pl_module.log("train/gpu_memory_gib", used)
            self._restart()
        every = self.samples_every_n_steps
        if every and trainer.global_step % every == 0 and trainer.is_global_zero:
            self.sound(trainer, pl_module)
            self._restart()

    def sound(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Generate the samples with the averaged weights, and log them with every logger."""
        prompts = self._prompts(trainer.datamodule)  # type: ignore[attr-defined]
        if not prompts:
            return
        prompts = pl_module.prepare(prompts)
        pl_module.eval()
        with pl_module.averaged_weights(), torch.no_grad():
            generated = pl_module.generate(prompts)
        waveforms = [waveform.clamp(-1, 1).numpy() for waveform in generated]
        pl_module.train()
        for logger in trainer.loggers:
            log_samples(logger, prompts, waveforms, pl_module.sampling_rate, trainer.global_step)

    def _prompts(self, data: Any) -> list[Prompt]:
        clips = data.captioned.where(label="normal")
        targets = clips[[clip.role == "target" for clip in clips]]
        chosen = targets if len(targets) else clips
        # A caption of each machine: as many of them as there are samples.
        first = {clip.machine: i for i, clip in reversed(list(enumerate(chosen)))}
        some = chosen[sorted(first.values())[: -(-self.samples // 2)]]
        texts = [data.captions(clip) for clip in some]
        return make_prompts(some, texts, 1, max_seconds=self.max_seconds)[: self.samples]

    @staticmethod
    def _is_logged(trainer: Any, step: int) -> bool:
        return step % trainer.log_every_n_steps == 0

    def _restart(self) -> None:
        self._begin, self._clips = time.monotonic(), 0


def _duration(seconds: float) -> str:
    """Return a time that is quick to read.

    >>> _duration(90), _duration(5400), _duration(400_000)
    ('1.5 min', '1.5 h', '4.6 days')
    """
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= (1.5 * length if unit == "days" else length):
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
