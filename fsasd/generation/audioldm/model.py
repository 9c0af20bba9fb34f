"""AudioLDM's components as a latent diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.audioldm import checkpoint as checkpoints
from fsasd.generation.audioldm import clap
from fsasd.generation.audioldm.mel import AUDIOLDM_MEL, OVERLAP, WINDOW, encode
from fsasd.generation.diffusion.model import Condition, Model, fingerprint

MEL_HOP = 160
LATENT_BINS = 16
"""64 mels, halved twice by the VAE."""


class AudioLDMModel(Model):
    """UNet, VAE over log-mels, CLAP's text branch and vocoder (Liu et al., 2023).

    Its condition is one tensor, the (batch, dim) embeddings of captions.

    Args:
        components: As ``checkpoint.load`` returns them.
    """

    sampling_rate = SAMPLE_RATE

    def __init__(self, components: checkpoints.Components) -> None:
        self.components = components
        self.network = components.unet
        self.scheduler = components.scheduler
        self.hop = MEL_HOP * 2 ** (len(components.vae.config.block_out_channels) - 1)

    def frozen(self) -> Sequence[nn.Module]:
        return self.components.frozen()

    def encode(self, waveform: np.ndarray) -> torch.Tensor:
        return encode(self.components.vae, AUDIOLDM_MEL(waveform).T)

    def latent(self, encoded: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        return sample_posterior(encoded, noise) * self.components.vae.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.components.vae
        mel = vae.decode(latents / vae.config.scaling_factor).sample
        # HiFi-GAN returns 32 samples more than frames * hop.
        return self.components.vocoder(mel[:, 0])

    def condition(self, captions: Sequence[str], seconds: float) -> torch.Tensor:
        components = self.components
        return clap.embed_captions(components.text_encoder, components.tokenizer, captions)

    def predict(
        self,
        network: Callable[..., Any],
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Condition,
    ) -> torch.Tensor:
        return network(
            latents, timesteps, encoder_hidden_states=None, class_labels=condition
        ).sample

    def latent_shape(self, frames: int) -> tuple[int, ...]:
        return self.components.unet.config.in_channels, frames, LATENT_BINS

    def save(self, network: Any, folder: Path) -> None:
        checkpoints.save(replace(self.components, unet=network), folder)

    def fingerprint(self) -> str:
        windows = f"windows of {WINDOW}, {OVERLAP} in common"
        return f"AudioLDM, {fingerprint(self.components.vae)}, {AUDIOLDM_MEL}, {windows}"


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
