"""Fine-tuning of a latent diffusion model: the training half of the LightningModule."""

from __future__ import annotations

import contextlib
import logging
import math
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from transformers import get_cosine_schedule_with_warmup

from fsasd.generation.base import Generator
from fsasd.generation.diffusion.adaptation import Full
from fsasd.generation.diffusion.averaging import RestoreWeights, WeightAverage
from fsasd.generation.diffusion.finite import LossWatch, stop_training
from fsasd.generation.diffusion.latents import Batch
from fsasd.generation.diffusion.model import Condition, Model, map_condition
from fsasd.generation.diffusion.objective import (
    Objective,
    StepRandomness,
    denoising_loss,
    drop_condition,
)
from fsasd.generation.diffusion.optimizing import (
    build_optimizer,
    optimizer_steps,
    warn_if_too_short,
)
from fsasd.generation.diffusion.sharding import gather, shard, shard_like
from fsasd.generation.diffusion.validation_loss import GroupLosses, fixed_noise, fixed_timesteps

log = logging.getLogger(__name__)


class FineTuning(Generator):
    """A generator whose network is trained on latents; ``LatentDiffusion`` adds the settings.

    Only the network is trained and saved in checkpoints, and of it only what ``adaptation``
    selects.
    """

    # With the weights, then with their average.
    validation_passes: ClassVar[int] = 2

    model: Model
    network: Any
    objective: Objective
    unconditional: Condition
    adaptation: Full
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    optimizer_name: str
    condition_dropout: float
    ema_decay: float
    min_snr: float | None
    noise_offset: float
    gradient_checkpointing: bool
    compile_network: bool
    channels_last: bool

    def __init__(self) -> None:
        super().__init__()
        self.ema: WeightAverage | None = None
        self.metrics: dict[str, float] = {}
        """Step and logged metrics of the checkpoint that the weights were loaded from."""
        self.sharded = False
        """Whether the weights are sharded over processes: then none of them can generate alone."""
        self._watch = LossWatch()

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, condition: Condition
    ) -> torch.Tensor:
        """Return the network's prediction for latents (batch, channels, frames, ...)."""
        # Compiled for the shape of training only: every other shape would compile again.
        as_compiled = self.training or not self.compile_network
        network = self.network if as_compiled else self.network.forward
        return self.model.predict(network, latents, timesteps, condition)

    def loss(
        self,
        batch: Batch,
        timesteps: torch.Tensor,
        noise: torch.Tensor,
        posterior_noise: torch.Tensor | None = None,
        condition: Condition | None = None,
    ) -> torch.Tensor:
        """Return the (batch,) mean squared errors of the prediction (see ``denoising_loss``).

        Args:
            batch: Examples.
            timesteps: (batch,) of the 1000 of the schedule.
            noise: Added to the latents.
            posterior_noise: Of the encoder's distribution; its mean is used without.
            condition: Of the batch; the captions' by default.
        """
        return denoising_loss(
            self.denoise,
            self.objective,
            self.model.latent(batch["moments"], posterior_noise),
            batch["embedding"] if condition is None else condition,
            timesteps,
            noise,
            batch["frames"],
        )

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        randomness = StepRandomness.draw(
            batch["draws"], self._latent_shape(batch), self.objective.n_timesteps, self.device
        )
        losses = self.loss(
            batch,
            randomness.timesteps,
            randomness.noise + self.noise_offset * randomness.offset,
            randomness.posterior,
            self.chosen_condition(batch, randomness.uniform),
        )
        self._watch.add(losses.mean(), batch["draws"], self.trainer)
        self.log("train/loss", self._mean_over_ranks(losses), prog_bar=True)
        if self.min_snr is not None:
            losses = losses * self.objective.min_snr_weight(randomness.timesteps, self.min_snr)
        return losses.mean()

    def on_validation_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self._split = GroupLosses(data.val_clips, ["val", "val_raw"])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Compute the loss at fixed noise and timesteps; in the second pass with the average."""
        if dataloader_idx and self._has_average and not self._average.swapped:
            self._average.swap(self.trained_weights())
        indices = [draw.clip for draw in batch["draws"]]
        noise = fixed_noise(indices, self._latent_shape(batch)).to(batch["moments"])
        timesteps = fixed_timesteps(indices, self.objective.n_timesteps).to(self.device)
        kind = "val" if dataloader_idx else "val_raw"
        self._split.add(kind, indices, self.loss(batch, timesteps, noise))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss, and val/<machine, label, role>/...; val_raw/... without the average."""
        self._average.restore(self.trained_weights())
        sums = self._split.sums.to(self.device)
        self._split.sums = self.trainer.strategy.reduce(sums, reduce_op="sum").cpu()
        means = self._split.means()
        # Before a checkpoint is kept: one step can spoil weights whose training loss was fine.
        for name, loss in means.items():
            if not math.isfinite(loss):
                stop_training(f"{name} became {loss}", self.trainer)
        total = means.pop("val/loss", None)
        if total is not None:
            # All ranks know the same numbers, of which sync_dist takes the mean.
            self.log("val/loss", total, prog_bar=True, sync_dist=True)
            self.log_dict(means, sync_dist=True)

    def configure_model(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.begin_training()

    def begin_training(self) -> None:
        """Select the weights to train, shard them where asked to, and start their average."""
        if self.ema is not None:
            return
        self._select_weights()
        if self.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        if self.device_mesh is not None:
            shard(self.network, self.device_mesh["data_parallel"])
            self.sharded = True
            # What is frozen is not in the checkpoints, and so far Lightning asks for all.
            self.strict_loading = False
        if self.channels_last and self._where.type == "cuda":
            self.network.to(memory_format=torch.channels_last)
        # Sharded tensors cannot be copied many at once.
        self.ema = WeightAverage(
            self.trained_weights(), decay=self.ema_decay, foreach=not self.sharded
        )

    def configure_callbacks(self) -> list[L.Callback]:
        return [RestoreWeights()]

    def on_fit_start(self) -> None:
        self._average.to(self.device)
        if self.device.type != "cuda":
            if self.compile_network or self.channels_last:
                log.info("compile_network and channels_last are for CUDA, and not used on a CPU")
            return
        if self.compile_network:
            # In place: the weights keep their names.
            self.network.compile()

    def trained_weights(self) -> list[torch.nn.Parameter]:
        """Return the weights that are trained."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    @property
    def examples_per_step(self) -> int:
        """Of the optimizer, over all devices and accumulated batches."""
        return self.trainer.datamodule.batch_size  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(
            self.optimizer_name, self.trained_weights(), self.learning_rate, self.weight_decay
        )
        self.total_steps = steps = optimizer_steps(self.trainer)
        if self.trainer.is_global_zero:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            clips = len(data.train_clips)
            warn_if_too_short(steps, self.examples_per_step, clips, self.warmup_steps)
        schedule = get_cosine_schedule_with_warmup(
            optimizer, min(self.warmup_steps, steps // 2), steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self._average.step(self.trained_weights())

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Use the moving average of the weights; without a training step there is none."""
        if not self._has_average:
            return contextlib.nullcontext()
        return self._average.swapped_in(self.trained_weights())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the frozen weights, and refuse what is not finite."""
        self._watch.check(self.trainer)
        frozen = self._frozen_weights()
        state = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
        weights, average = self._average.separate(self.trained_weights())
        if self._average.swapped:
            names = [n for n, p in self.network.named_parameters() if p.requires_grad]
            placed = zip(names, map(gather, weights), strict=True)
            state |= {f"network.{n}": weight for n, weight in placed if f"network.{n}" in state}
        checkpoint["state_dict"] = state
        about = self._average.state_dict()
        checkpoint["ema"] = {**about, "shadow_params": [*map(gather, average)]}
        numbers = self.trainer.callback_metrics.items()
        checkpoint["metrics"] = {name: float(number) for name, number in numbers}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Sharded weights have been loaded by Lightning already.
        if "state_dict" in checkpoint:
            checkpoint["state_dict"] = {**self._frozen_weights(), **checkpoint["state_dict"]}
        average = checkpoint["ema"]
        shadows = zip(average["shadow_params"], self.trained_weights(), strict=True)
        placed = [shard_like(shadow, weight) for shadow, weight in shadows]
        self._average.load_state_dict({**average, "shadow_params": placed})
        self.metrics = {"step": checkpoint["global_step"], **checkpoint["metrics"]}

    def on_fit_end(self) -> None:
        """Gather sharded weights on every process."""
        if not self.sharded:
            return
        state = {name: gather(weight) for name, weight in self.network.state_dict().items()}
        self._average.shadow_params = [*map(gather, self._average.shadow_params)]
        self.network = type(self.network).from_config(self.network.config)
        self._select_weights()
        self.network.load_state_dict(state)
        self.sharded = False

    def _select_weights(self) -> None:
        self.adaptation.apply(self.network)
        # Of weights without a gradient, DDP would wait for one.
        for name, weight in self.network.named_parameters():
            if any(fnmatchcase(name, pattern) for pattern in self.model.unused):
                weight.requires_grad_(False)

    def chosen_condition(self, batch: Batch, uniform: torch.Tensor) -> Condition:
        """Return the condition of each example of a training step.

        Args:
            batch: Examples.
            uniform: (batch, 2) of ``StepRandomness``.
        """
        return drop_condition(
            batch["embedding"], self.unconditional_on(self.device), uniform[:, 0],
            self.condition_dropout,
        )  # fmt: skip

    def unconditional_on(self, device: torch.device) -> Condition:
        """Return the condition of an empty caption on a device, and keep it there."""
        self.unconditional = map_condition(lambda tensor: tensor.to(device), self.unconditional)
        return self.unconditional

    def _mean_over_ranks(self, losses: torch.Tensor) -> torch.Tensor:
        mean = losses.detach().mean()
        # Only where it is logged: to ask the other ranks is to wait for them.
        logged = (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if logged and self.trainer.world_size > 1:
            mean = self.trainer.strategy.reduce(mean, reduce_op="mean")
        return mean

    def _frozen_weights(self) -> dict[str, torch.Tensor]:
        return {
            f"network.{name}": parameter.detach()
            for name, parameter in self.network.named_parameters()
            if not parameter.requires_grad
        }

    @property
    def _where(self) -> torch.device:
        """Where it trains, also before Lightning has moved it there."""
        return self.trainer.strategy.root_device if self._trainer else self.device

    @property
    def _has_average(self) -> bool:
        return self.ema is not None and self.ema.optimization_step > 0

    @property
    def _average(self) -> WeightAverage:
        if self.ema is None:
            raise RuntimeError("the weights' average exists from the start of fitting on")
        return self.ema

    def _latent_shape(self, batch: Batch) -> tuple[int, ...]:
        return tuple(self.model.latent(batch["moments"][:1]).shape[1:])
