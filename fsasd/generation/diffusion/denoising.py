"""The denoising loss of a batch, and its random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch.nn import functional as F

from fsasd.data.draws import Draw
from fsasd.generation.diffusion.sampling import Denoiser


@dataclass(frozen=True)
class StepRandomness:
    """The random numbers of a training step, without its crops.

    Those of an example depend on its seed alone, not on its batch, process or order.

    Attributes:
        timesteps: (batch,)
        noise: (batch, channels, frames, bins), added to the latents.
        posterior: The same shape, of the VAE's posterior.
        offset: (batch, channels, 1, 1), of a noise that is the same all over a latent.
        uniform: (batch, 2) in [0, 1): whether the caption is dropped; whether the condition is the
            recording.
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
        shape: tuple[int, int, int],
        n_timesteps: int,
        device: torch.device,
    ) -> StepRandomness:
        """Draw for each example from its own seed.

        Args:
            draws: Of the batch.
            shape: (channels, frames, bins) of a latent.
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
            offset.append(torch.randn((shape[0], 1, 1), generator=generator, device=device))
        noise = torch.stack(normal)
        return cls(
            timesteps=torch.tensor(timesteps, device=device),
            noise=noise[:, 0],
            posterior=noise[:, 1],
            offset=torch.stack(offset),
            uniform=torch.from_numpy(np.stack(uniform)).to(device, torch.float32),
        )


def sample_posterior(moments: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """Return latents sampled from the VAE's posterior; without noise, its mean.

    >>> moments = torch.stack([torch.ones(8, 16), torch.zeros(8, 16)])[None]
    >>> sample_posterior(moments, torch.full((1, 1, 8, 16), 2.0)).mean()
    tensor(3.)
    """
    mean, log_variance = moments.chunk(2, dim=1)
    if noise is None:
        return mean
    return mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise


def choose_condition(
    captions: torch.Tensor,
    recordings: torch.Tensor | None,
    unconditional: torch.Tensor,
    uniform: torch.Tensor,
    dropout: float,
    audio_share: float,
) -> torch.Tensor:
    """Return the (batch, dim) condition of each example: caption, recording or nothing.

    Args:
        captions: (batch, dim) embeddings.
        recordings: (batch, dim) embeddings, where there are any.
        unconditional: (dim,) of the empty caption.
        uniform: (batch, 2) in [0, 1): dropout; recording or caption.
        dropout: Share of examples without a condition, for guidance.
        audio_share: Share of the others that are conditioned on their recording.
    """
    dropped, from_recording = (uniform < uniform.new_tensor([dropout, audio_share])).T
    if recordings is not None:
        captions = torch.where(from_recording[:, None], recordings, captions)
    return torch.where(dropped[:, None], unconditional, captions)


def denoising_loss(
    denoise: Denoiser,
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    timesteps: torch.Tensor,
    noise: torch.Tensor,
    frames: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the (batch,) squared errors of the predicted noise (AudioLDM, equation 4).

    Of the velocity, where the scheduler's ``prediction_type`` is ``v_prediction``, as the nano
    model's.

    Args:
        denoise: The UNet.
        scheduler: Its noise schedule.
        latents: (batch, channels, frames, bins), scaled.
        embeddings: (batch, dim), of the condition.
        timesteps: (batch,)
        noise: Added to the latents.
        frames: (batch,) frames of the clip; those beyond do not count.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    target = noise
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    predicted = denoise(noisy, timesteps, embeddings)
    errors = F.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 3))
    if frames is None:
        return errors.mean(1)
    valid = torch.arange(errors.shape[1], device=errors.device) < frames[:, None]
    return (errors * valid).sum(1) / frames


def min_snr_weight(scheduler: DDIMScheduler, timesteps: torch.Tensor, most: float) -> torch.Tensor:
    """Return the (batch,) weights of Hang et al. (2023): small noise counts for less.

    min(snr, most) / snr where noise is predicted, min(snr, most) / (snr + 1) where velocity is.

    >>> schedule = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    >>> min_snr_weight(schedule, torch.tensor([0, 999]), 5.0)
    tensor([0.0075, 1.0000])
    """
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alphas / (1 - alphas)
    kept = snr.clamp(max=most)
    return kept / (snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr)
