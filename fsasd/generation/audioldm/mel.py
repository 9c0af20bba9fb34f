"""AudioLDM's log-mel, and the half of a model that AudioLDM and AudioLDM 2 share: its latents."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.diffusion.model import Model, fingerprint
from fsasd.generation.level import normalise

AUDIOLDM_MEL = LogMel.audioldm()

WINDOW = 1024
"""Frames of the log-mel (10.24 s) that the VAE encodes at once: it attends to all of them."""

OVERLAP = 64
"""Frames by which two windows overlap."""


class MelModel(Model, abc.ABC):
    """A model whose latents are those of a VAE over AudioLDM's log-mel.

    ``encode`` returns the (2 * channels, frames, bins) moments of a posterior, from which
    ``latent`` samples.
    """

    sampling_rate = SAMPLE_RATE

    @property
    @abc.abstractmethod
    def vae(self) -> AutoencoderKL:
        """Encodes (batch, 1, frames, 64) log-mels."""

    @property
    @abc.abstractmethod
    def vocoder(self) -> Any:
        """Turns (batch, frames, 64) log-mels into (batch, samples) waveforms."""

    @property
    def hop(self) -> int:  # type: ignore[override]
        """Samples of a latent frame."""
        return AUDIOLDM_MEL.hop * frames_per_latent(self.vae)

    def encode(self, waveform: np.ndarray) -> torch.Tensor:
        return encode(self.vae, AUDIOLDM_MEL(waveform).T)

    def latent(self, encoded: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        return sample_posterior(encoded, noise) * self.vae.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        mel = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        # HiFi-GAN returns 32 samples more than frames * hop.
        return self.vocoder(mel[:, 0])

    def latent_shape(self, frames: int) -> tuple[int, ...]:
        bins = AUDIOLDM_MEL.n_mels // frames_per_latent(self.vae)
        return self.vae.config.latent_channels, frames, bins

    def fingerprint(self) -> str:
        windows = f"windows of {WINDOW}, {OVERLAP} in common"
        return f"{fingerprint(self.vae)}, {AUDIOLDM_MEL}, {windows}"


def normalised_mel(waveform: np.ndarray) -> np.ndarray:
    """Return the (frames, 64) log-mel of a waveform that is scaled to a peak of 0.5."""
    return AUDIOLDM_MEL(normalise(waveform)[0]).T


@torch.no_grad()
def encode(vae: AutoencoderKL, mel: np.ndarray) -> torch.Tensor:
    """Return (2 * channels, frames, bins) moments of the posterior of a (frames, 64) log-mel.

    More than 10.24 s are encoded in windows of that length which overlap by 0.64 s, of which each
    gives one half.
    """
    batch = torch.from_numpy(mel)[None, None].to(vae.device, vae.dtype)
    step = frames_per_latent(vae)
    frames = len(mel) // step * step
    moments = []
    for begin, end in windows(frames):
        encoded = vae.encode(batch[:, :, begin:end]).latent_dist.parameters[0]
        first = OVERLAP // 2 // step if begin else 0
        last = encoded.shape[1] - (OVERLAP // 2 // step if end < frames else 0)
        moments.append(encoded[:, first:last])
    return torch.cat(moments, dim=1)


def frames_per_latent(vae: AutoencoderKL) -> int:
    """Return how many frames of the log-mel, and how many bins, a latent frame and bin has."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def windows(frames: int) -> list[tuple[int, int]]:
    """Return where windows over so many frames begin and end; the last is as long as is left.

    >>> windows(1024), windows(2000)
    ([(0, 1024)], [(0, 1024), (960, 1984), (1920, 2000)])
    """
    hop = WINDOW - OVERLAP
    count = max(-(-(frames - OVERLAP) // hop), 1)
    return [(i * hop, min(i * hop + WINDOW, frames)) for i in range(count)]


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
