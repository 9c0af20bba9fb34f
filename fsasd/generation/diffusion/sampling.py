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
        strength: Share of the noise schedule that is passed through, above 0. With 1 a clip is
            made of noise alone; with less it is an edit of a real one, to which the noise of the
            first step at or below that share is added (SDEdit, Meng et al., 2022), and only the
            steps from there on are taken. Several are a ladder (``editing.with_strengths``).
        channel: What to take of real clips with several channels (see ``recording.read``).

    >>> Sampler(steps=0)
    Traceback (most recent call last):
    ...
    ValueError: sampler needs at least 1 step, found 0
    """

    steps: int = 25
    guidance: float = 2.5
    scheduler: Literal["dpm++", "ddim"] = "dpm++"
    eta: float = 1.0
    strength: float | Sequence[float] = 1.0
    channel: int | str | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampler needs at least 1 step, found {self.steps}")
        if self.scheduler not in ("dpm++", "ddim"):
            raise ValueError(f"scheduler must be 'dpm++' or 'ddim', found '{self.scheduler}'")
        if not self.strengths or not all(0 < strength <= 1 for strength in self.strengths):
            raise ValueError(
                "sampler.strength: expected a number above 0 and at most 1, or several, found "
                f"{self.strength}"
            )

    @property
    def strengths(self) -> tuple[float, ...]:
        """The ladder of strengths; of one rung mostly."""
        one = isinstance(self.strength, (int, float))
        return tuple(map(float, [self.strength] if one else self.strength))  # type: ignore[arg-type]

    @property
    def derived(self) -> bool:
        """Whether clips are edits of real ones."""
        return any(strength < 1 for strength in self.strengths)

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoiser,
        noise_schedule: DDIMScheduler,
        embeddings: torch.Tensor,
        unconditional: torch.Tensor,
        shape: tuple[int, int, int],
        seeds: Sequence[int],
        sources: torch.Tensor | None = None,
        strength: float = 1.0,
    ) -> torch.Tensor:
        """Draw one latent per embedding.

        Args:
            denoise: The UNet.
            noise_schedule: The schedule it was trained with.
            embeddings: (batch, dim) of the captions.
            unconditional: (dim,) or (batch, dim), what guidance leads away from.
            shape: (channels, frames, bins) of a latent.
            seeds: One per clip: its noise does not depend on the rest of the batch.
            sources: (batch, channels, frames, bins) of the real clips, for edits.
            strength: Of the edits.

        Returns:
            (batch, channels, frames, bins)
        """
        device, dtype = embeddings.device, embeddings.dtype
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        latents = torch.stack([torch.randn(shape, generator=g) for g in generators])
        scheduler = self._scheduler(noise_schedule)
        scheduler.set_timesteps(self.steps, device=device)
        latents = latents.to(device, dtype) * scheduler.init_noise_sigma
        timesteps = scheduler.timesteps
        if sources is not None:
            # A latent at timestep t has been through t + 1 steps of noise.
            limit = strength * noise_schedule.config.num_train_timesteps
            begin = int((timesteps + 1 > limit).sum())
            timesteps = timesteps[begin:]
            latents = _noised(scheduler, sources.to(device, dtype), latents, begin)
        extra: dict[str, Any] = (
            {"eta": self.eta, "generator": generators} if self.scheduler == "ddim" else {}
        )
        guided = self.guidance != 1.0
        if guided:
            embeddings = torch.cat([unconditional.expand_as(embeddings), embeddings])
        for t in timesteps:
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


def _noised(
    scheduler: DDIMScheduler | DPMSolverMultistepScheduler,
    sources: torch.Tensor,
    noise: torch.Tensor,
    begin: int,
) -> torch.Tensor:
    """Add the noise of a step to latents; none where no step is left to remove it."""
    if begin == len(scheduler.timesteps):
        return sources
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        # Two steps may be rounded to one timestep: it counts them by index.
        scheduler.set_begin_index(begin)
    return scheduler.add_noise(sources, noise, scheduler.timesteps[begin : begin + 1])
