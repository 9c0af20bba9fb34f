"""What a network is trained to predict, the loss of a batch, and its random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fsasd.data.draws import Draw
from fsasd.generation.diffusion.cosine import CosineScheduler, shares
from fsasd.generation.diffusion.model import Condition, map_condition
from fsasd.generation.diffusion.sampling import Denoiser


@dataclass(frozen=True)
class StepRandomness:
    """The random numbers of a training step, without its crops.

    Those of an example depend on its seed alone, not on its batch, process or order.

    Attributes:
        timesteps: (batch,)
        noise: (batch, channels, frames, ...), added to the latents.
        posterior: The same shape, of the encoder's distribution.
        offset: (batch, channels, 1, ...), of a noise that is the same all over a latent.
        uniform: (batch, 2) in [0, 1): whether the condition is dropped; which of several kinds of
            conditions it is.
    """

    timesteps: torch.Tensor
    noise: torch.Tensor
    posterior: torch.Tensor
    offset: torch.Tensor
    uniform: torch.Tensor

    @classmethod
    def draw(
        cls,
        draws: Sequence[Draw],
        shape: tuple[int, ...],
        n_timesteps: int,
        device: torch.device,
    ) -> StepRandomness:
        """Draw for each example from its own seed.

        Args:
            draws: Of the batch.
            shape: (channels, frames, ...) of a latent.
            n_timesteps: Length of the noise schedule.
            device: Where noise is drawn: its generator depends on the kind of device.

        >>> one, two = Draw(0, 7), Draw(1, 8)
        >>> both = StepRandomness.draw([one, two], (4, 8, 16), 1000, torch.device("cpu"))
        >>> alone = StepRandomness.draw([two], (4, 8, 16), 1000, torch.device("cpu"))
        >>> torch.equal(both.noise[1], alone.noise[0])
        True
        """
        timesteps, uniform, normal, offset = [], [], [], []
        for draw in draws:
            few = np.random.default_rng(draw.seed)
            timesteps.append(int(few.integers(n_timesteps)))
            uniform.append(few.random(2))
            generator = torch.Generator(device).manual_seed(draw.seed)
            normal.append(torch.randn((2, *shape), generator=generator, device=device))
            alike = (shape[0], *[1] * (len(shape) - 1))
            offset.append(torch.randn(alike, generator=generator, device=device))
        noise = torch.stack(normal)
        return cls(
            timesteps=torch.tensor(timesteps, device=device),
            noise=noise[:, 0],
            posterior=noise[:, 1],
            offset=torch.stack(offset),
            uniform=torch.from_numpy(np.stack(uniform)).to(device, torch.float32),
        )


def drop_condition(
    condition: Condition, unconditional: Condition, uniform: torch.Tensor, share: float
) -> Condition:
    """Return conditions of which a share is replaced by the unconditional one, for guidance.

    Args:
        condition: Of the batch.
        unconditional: Of one empty caption, without the axis of the batch.
        uniform: (batch,) in [0, 1); below the share, an example has no condition.
        share: Of examples without a condition.
    """
    dropped = uniform < share

    def choose(given: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        return torch.where(dropped.view(-1, *[1] * (given.ndim - 1)), empty, given)

    return map_condition(choose, condition, unconditional)


class Objective:
    """What a network predicts of noisy latents, by the scheduler that it was trained with.

    ``noise`` (AudioLDM, equation 4) and ``velocity`` (Salimans and Ho, 2022) are those of
    schedulers of diffusion (``prediction_type`` ``epsilon`` and ``v_prediction``); ``flow`` is that
    of rectified flow (Liu et al., 2023): latents are mixed linearly with noise, and the network
    predicts noise minus latents. Time is continuous in flow matching and on the cosine schedule
    (``cosine``), and is drawn at 1000 places all the same.

    Args:
        scheduler: Of diffusers.

    Raises:
        ValueError: The scheduler is trained with another target.

    >>> from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
    >>> Objective(DDIMScheduler()).kind, Objective(FlowMatchEulerDiscreteScheduler()).kind
    ('noise', 'flow')
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        prediction = scheduler.config.get("prediction_type", "flow")
        kinds = {"epsilon": "noise", "v_prediction": "velocity", "flow": "flow"}
        if prediction not in kinds:
            raise ValueError(
                f"{type(scheduler).__name__}: expected a prediction_type of "
                f"{', '.join(list(kinds)[:2])}, or a scheduler of flow matching, found "
                f"'{prediction}'"
            )
        self.kind = kinds[prediction]
        self.continuous = self.kind == "flow" or isinstance(scheduler, CosineScheduler)

    @property
    def n_timesteps(self) -> int:
        """Length of the noise schedule; 1000 where time is continuous."""
        return 1000 if self.continuous else self.scheduler.config.num_train_timesteps

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Return latents with the noise of (batch,) timesteps."""
        if not self.continuous:
            return self.scheduler.add_noise(latents, noise, timesteps)
        of_clip, of_noise = self._shares(timesteps, latents.ndim)
        return of_clip * latents + of_noise * noise

    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Return what the network is to predict."""
        if self.kind == "velocity" and self.continuous:
            of_clip, of_noise = self._shares(timesteps, latents.ndim)
            return of_clip * noise - of_noise * latents
        if self.kind == "velocity":
            return self.scheduler.get_velocity(latents, noise, timesteps)
        return noise if self.kind == "noise" else noise - latents

    def network_time(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the timesteps as the network gets them, in the scheduler's own unit."""
        if not self.continuous:
            return timesteps
        unit = self.scheduler.config.num_train_timesteps if self.kind == "flow" else 1
        return self.time(timesteps) * unit

    def time(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the continuous time in (0, 1] at (batch,) timesteps; noise alone is at 1."""
        return (timesteps + 1) / self.n_timesteps

    def _shares(self, timesteps: torch.Tensor, ndim: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shares of the clip and of noise, for latents of so many axes."""
        time = self.time(timesteps).view(-1, *[1] * (ndim - 1))
        return (1 - time, time) if self.kind == "flow" else shares(time)

    def min_snr_weight(self, timesteps: torch.Tensor, most: float) -> torch.Tensor:
        """Return the (batch,) weights of Hang et al. (2023): small noise counts for less.

        min(snr, most) / snr where noise is predicted, min(snr, most) / (snr + 1) where velocity is.

        Raises:
            ValueError: The model is one of flow matching, which has no such weights.

        >>> from diffusers import DDIMScheduler
        >>> schedule = DDIMScheduler(beta_start=0.0015, beta_end=0.0195,
        ...                          beta_schedule="scaled_linear")
        >>> Objective(schedule).min_snr_weight(torch.tensor([0, 999]), 5.0)
        tensor([0.0075, 1.0000])
        """
        if self.kind == "flow":
            raise ValueError("generator.min_snr is for diffusion: expected null with flow matching")
        if self.continuous:
            of_clip, of_noise = self._shares(timesteps, 1)
            snr = (of_clip / of_noise) ** 2
        else:
            alphas = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
            snr = alphas / (1 - alphas)
        return snr.clamp(max=most) / (snr + 1 if self.kind == "velocity" else snr)


def denoising_loss(
    denoise: Denoiser,
    objective: Objective,
    latents: torch.Tensor,
    condition: Condition,
    timesteps: torch.Tensor,
    noise: torch.Tensor,
    frames: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the (batch,) mean squared errors of the prediction.

    Args:
        denoise: The network.
        objective: What it predicts.
        latents: (batch, channels, frames, ...), scaled.
        condition: Of the batch.
        timesteps: (batch,)
        noise: Added to the latents.
        frames: (batch,) frames of the clip; those beyond do not count.
    """
    noisy = objective.noised(latents, noise, timesteps)
    target = objective.target(latents, noise, timesteps)
    predicted = denoise(noisy, objective.network_time(timesteps), condition)
    errors = F.mse_loss(predicted.float(), target.float(), reduction="none")
    errors = errors.mean([axis for axis in range(1, errors.ndim) if axis != 2])
    if frames is None:
        return errors.mean(1)
    valid = torch.arange(errors.shape[1], device=errors.device) < frames[:, None]
    return (errors * valid).sum(1) / frames
