"""AudioLDM's components as a latent diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import SpeechT5HifiGan

from fsasd.generation.audioldm import checkpoint as checkpoints
from fsasd.generation.audioldm import clap
from fsasd.generation.audioldm.mel import MelModel
from fsasd.generation.audioldm.vocoder import GriffinLim
from fsasd.generation.diffusion.model import Condition


class AudioLDMModel(MelModel):
    """UNet, VAE over log-mels, CLAP's text branch and vocoder (Liu et al., 2023).

    Its condition is one tensor, the (batch, dim) embeddings of captions.

    Args:
        components: As ``checkpoint.load`` returns them.
    """

    def __init__(self, components: checkpoints.Components) -> None:
        self.components = components
        self.network = components.unet
        self.scheduler = components.scheduler

    @property
    def vae(self) -> AutoencoderKL:
        return self.components.vae

    @property
    def vocoder(self) -> SpeechT5HifiGan | GriffinLim:
        return self.components.vocoder

    def frozen(self) -> Sequence[nn.Module]:
        return self.components.frozen()

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

    def save(self, network: Any, folder: Path) -> None:
        checkpoints.save(replace(self.components, unet=network), folder)
