"""The sampler: noise and caption embeddings -> latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

Denoiser = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents, timestep, embeddings) -> prediction of the scheduler's type, mostly the noise."""


@dataclass(frozen=True)
class Sampler:
    """A sampler of latents.

    Args:
        steps: Evaluations of the UNet per clip, each twice where there is guidance.
        guidance: Classifier-free guidance (Ho and Salimans, 2022); 1 is none.
        scheduler: ``dpm++`` is DPM-Solver++ 2M (Lu et al., 2022) on the noise levels of Karras et
            al. (2022): with the schedule's own levels, 20 steps lose low-variance detail.
            ``ddim`` (Song et al., 2021) with 200 steps and ``eta`` 1 is AudioLDM's own.
        eta: Share of fresh noise in each DDIM step.

    >>> Sampler(steps=0)
    Traceback (most recent call last):
    ...
    ValueError: sampler needs at least 1 step, found 0
    """

    steps: int = 25
    guidance: float = 2.5
    scheduler: Literal["dpm++", "ddim"] = "dpm++"
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampler needs at least 1 step, found {self.steps}")
        if self.scheduler not in ("dpm++", "ddim"):
            raise ValueError(f"scheduler must be 'dpm++' or 'ddim', found '{self.scheduler}'")

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoiser,
        noise_schedule: DDIMScheduler,
        embeddings: torch.Tensor,
        unconditional: torch.Tensor,
        shape: tuple[int, int, int],
        seeds: Sequence[int],
    ) -> torch.Tensor:
        """Draw one latent per embedding.

        Args:
            denoise: The UNet.
            noise_schedule: The schedule it was trained with.
            embeddings: (batch, dim) of the captions.
            unconditional: (dim,) or (batch, dim), what guidance leads away from.
            shape: (channels, frames, bins) of a latent.
            seeds: One per clip: its noise does not depend on the rest of the batch.

        Returns:
            (batch, channels, frames, bins)
        """
        device, dtype = embeddings.device, embeddings.dtype
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        latents = torch.stack([torch.randn(shape, generator=g) for g in generators])
        scheduler = self._scheduler(noise_schedule)
        scheduler.set_timesteps(self.steps, device=device)
        latents = latents.to(device, dtype) * scheduler.init_noise_sigma
        extra: dict[str, Any] = (
            {"eta": self.eta, "generator": generators} if self.scheduler == "ddim" else {}
        )
        guided = self.guidance != 1.0
        if guided:
            embeddings = torch.cat([unconditional.expand_as(embeddings), embeddings])
        for t in scheduler.timesteps:
            inputs = scheduler.scale_model_input(torch.cat([latents] * (1 + guided)), t)
            noise = denoise(inputs, t, embeddings)
            if guided:
                without, within = noise.chunk(2)
                noise = without + self.guidance * (within - without)
            latents = scheduler.step(noise, t, latents, **extra).prev_sample
        return latents

    def _scheduler(self, schedule: DDIMScheduler) -> DDIMScheduler | DPMSolverMultistepScheduler:
        if self.scheduler == "ddim":
            return DDIMScheduler.from_config(schedule.config)
        return DPMSolverMultistepScheduler.from_config(
            schedule.config, algorithm_type="dpmsolver++", use_karras_sigmas=True
        )
