"""The sampler: noise and conditions -> latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from fsasd.generation.diffusion.cosine import CosineScheduler
from fsasd.generation.diffusion.model import Condition, even_levels, map_condition, tensor_of

Denoiser = Callable[[torch.Tensor, torch.Tensor, Condition], torch.Tensor]
"""(latents, timestep, condition) -> prediction of the scheduler's type, mostly the noise."""


@dataclass(frozen=True)
class Sampler:
    """A sampler of latents.

    Args:
        steps: Evaluations of the network per clip, each twice where there is guidance.
        guidance: Classifier-free guidance (Ho and Salimans, 2022); 1 is none.
        scheduler: ``dpm++`` is DPM-Solver++ 2M (Lu et al., 2022) on the noise levels of Karras et
            al. (2022): with the schedule's own levels, 20 steps lose low-variance detail.
            ``ddim`` (Song et al., 2021) with 200 steps and ``eta`` 1 is AudioLDM's own. ``euler``
            is for models of flow matching, and for these alone. On the continuous cosine schedule
            there is ``dpm++`` alone, on the schedule's own levels.
        eta: Share of fresh noise in each DDIM step.
        strength: Share of the noise schedule that is passed through, above 0. With 1 a clip is
            made of noise alone; with less it is an edit of a real one, to which the noise of the
            first step at or below that share is added (SDEdit, Meng et al., 2022), and only the
            steps from there on are taken; of flow matching and on the cosine schedule, all
            steps are, from that share of noise on. Several are a ladder
            (``editing.with_strengths``).
        channel: What to take of real clips with several channels (see ``recording.read``).
        region_seconds: Shortest and longest region in time that is generated anew, the rest of the
            clip being that of a real one (``inpainting``); ``None`` for whole clips.

    >>> Sampler(steps=0)
    Traceback (most recent call last):
    ...
    ValueError: sampler needs at least 1 step, found 0
    """

    steps: int = 25
    guidance: float = 2.5
    scheduler: Literal["dpm++", "ddim", "euler"] = "dpm++"
    eta: float = 1.0
    strength: float | Sequence[float] = 1.0
    channel: int | str | None = None
    region_seconds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampler needs at least 1 step, found {self.steps}")
        if self.scheduler not in ("dpm++", "ddim", "euler"):
            raise ValueError(
                f"scheduler must be 'dpm++', 'ddim' or 'euler', found '{self.scheduler}'"
            )
        if not self.strengths or not all(0 < strength <= 1 for strength in self.strengths):
            raise ValueError(
                "sampler.strength: expected a number above 0 and at most 1, or several, found "
                f"{self.strength}"
            )
        if self.inpaints:
            self._check_regions(list(self.region_seconds))  # type: ignore[arg-type]

    @property
    def strengths(self) -> tuple[float, ...]:
        """The ladder of strengths; of one rung mostly."""
        one = isinstance(self.strength, (int, float))
        return tuple(map(float, [self.strength] if one else self.strength))  # type: ignore[arg-type]

    @property
    def derived(self) -> bool:
        """Whether clips are edits of real ones."""
        return self.inpaints or any(strength < 1 for strength in self.strengths)

    @property
    def inpaints(self) -> bool:
        """Whether only a region of a real clip is generated anew."""
        return self.region_seconds is not None

    def _check_regions(self, seconds: list[float]) -> None:
        if len(seconds) != 2 or not 0 < seconds[0] <= seconds[1]:
            raise ValueError(
                "sampler.region_seconds: expected the shortest and the longest region, above 0, "
                f"found {seconds}"
            )
        if self.strengths != (1.0,):
            raise ValueError(
                "sampler.strength: a region is made of noise alone: expected 1 with "
                f"sampler.region_seconds, found {self.strength}"
            )

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoiser,
        noise_schedule: Any,
        condition: Condition,
        unconditional: Condition,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        sources: torch.Tensor | None = None,
        strength: float = 1.0,
        levels: Callable[[int, float], list[float]] = even_levels,
    ) -> torch.Tensor:
        """Draw one latent per clip.

        Args:
            denoise: The network.
            noise_schedule: The schedule it was trained with.
            condition: (batch, ...) of the captions.
            unconditional: Of the batch, or of one clip; what guidance leads away from.
            shape: (channels, frames, ...) of a latent.
            seeds: One per clip: its noise does not depend on the rest of the batch.
            sources: (batch, channels, frames, ...) of the real clips, for edits.
            strength: Of the edits.
            levels: ``Model.levels``, for flow matching.

        Returns:
            (batch, channels, frames, ...)
        """
        device, dtype = tensor_of(condition).device, tensor_of(condition).dtype
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        latents = torch.stack([torch.randn(shape, generator=g) for g in generators])
        latents = latents.to(device, dtype)
        sources = None if sources is None else sources.to(device, dtype)
        scheduler = self._scheduler(noise_schedule, strength)
        if self.scheduler == "euler":
            scheduler.set_timesteps(sigmas=levels(self.steps, strength), device=device)
        else:
            scheduler.set_timesteps(self.steps, device=device)
        latents, timesteps = _start(scheduler, sources, latents, strength)
        # DPM-Solver++ adds no noise of its own.
        extra: dict[str, Any] = {} if self.scheduler == "dpm++" else {"generator": generators}
        if self.scheduler == "ddim":
            extra["eta"] = self.eta
        guided = self.guidance != 1.0
        if guided:
            condition = map_condition(
                lambda without, within: torch.cat([without.expand_as(within), within]),
                unconditional,
                condition,
            )
        for t in timesteps:
            flow = self.scheduler == "euler"
            one = latents if flow else scheduler.scale_model_input(latents, t)
            inputs = torch.cat([one] * (1 + guided))
            noise = denoise(inputs, t, condition)
            if guided:
                without, within = noise.chunk(2)
                noise = without + self.guidance * (within - without)
            latents = scheduler.step(noise, t, latents, **extra).prev_sample
        return latents

    def check_schedule(self, schedule: Any) -> None:
        """Check that this sampler is one for models of a noise schedule.

        Args:
            schedule: Of diffusers, that a model was trained with.

        Raises:
            ValueError: It is not.
        """
        flow = isinstance(schedule, FlowMatchEulerDiscreteScheduler)
        cosine = isinstance(schedule, CosineScheduler)
        kind = "flow matching" if flow else "the cosine schedule" if cosine else "diffusion"
        possible = ["euler"] if flow else ["dpm++"] if cosine else ["dpm++", "ddim"]
        if self.scheduler not in possible:
            raise ValueError(
                f"sampler.scheduler: '{self.scheduler}' is not for a model of {kind}: choose "
                f"generator/sampler={'flow' if flow else 'dpm'}"
            )

    def _scheduler(self, schedule: Any, strength: float) -> Any:
        self.check_schedule(schedule)
        if isinstance(schedule, FlowMatchEulerDiscreteScheduler):
            return FlowMatchEulerDiscreteScheduler.from_config(schedule.config)
        if isinstance(schedule, CosineScheduler):
            return schedule.part(strength)
        if self.scheduler == "ddim":
            return DDIMScheduler.from_config(schedule.config)
        return DPMSolverMultistepScheduler.from_config(
            schedule.config, algorithm_type="dpmsolver++", use_karras_sigmas=True
        )


def _start(
    scheduler: Any,
    sources: torch.Tensor | None,
    noise: torch.Tensor,
    strength: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents that diffusion begins with, and the timesteps that are left."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        mixed = noise if sources is None else (1 - strength) * sources + strength * noise
        return mixed, scheduler.timesteps
    if isinstance(scheduler, CosineScheduler):
        return scheduler.begin(noise, sources), scheduler.timesteps
    noise = noise * scheduler.init_noise_sigma
    timesteps = scheduler.timesteps
    if sources is None:
        return noise, timesteps
    # A latent at timestep t has been through t + 1 steps of noise.
    limit = strength * scheduler.config.num_train_timesteps
    begin = int((timesteps + 1 > limit).sum())
    # None is added where no step is left to remove it.
    if begin == len(timesteps):
        return sources, timesteps[begin:]
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        # Two steps may be rounded to one timestep: it counts them by index.
        scheduler.set_begin_index(begin)
    return scheduler.add_noise(sources, noise, timesteps[begin : begin + 1]), timesteps[begin:]
