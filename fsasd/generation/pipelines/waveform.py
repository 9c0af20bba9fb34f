"""The half of a model that Stable Audio 3 and Stable Audio Open share: latents of a waveform."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
import torch

from fsasd.generation.pipelines.model import PipelineModel


class WaveformModel(PipelineModel):
    """A model whose latents are those of an autoencoder of the waveform of two channels.

    A clip has one channel: it is encoded as that of both channels, and what is decoded is their
    mean.
    """

    def __init__(self, source: str, allow: Sequence[str] = ()) -> None:
        super().__init__(source, allow)
        self.sampling_rate = self.pipeline.vae.config.sampling_rate
        # Weight normalisation has computed weights with a gradient, which could not be copied.
        self.decode(self.latent(self.encode(np.zeros(self.hop, np.float32))[None]))

    @property
    @abc.abstractmethod
    def hop(self) -> int:  # type: ignore[override]
        """Samples of a latent frame."""

    @abc.abstractmethod
    def encode_channels(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, ...), what ``encode`` returns, of (batch, channels, samples)."""

    @torch.no_grad()
    def encode(self, waveform: np.ndarray) -> torch.Tensor:
        vae = self.pipeline.vae
        samples = len(waveform) // self.hop * self.hop
        sound = torch.from_numpy(waveform[:samples]).to(vae.device, vae.dtype)
        return self.encode_channels(sound.expand(1, vae.config.audio_channels, -1))[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.pipeline.vae.decode(latents).sample.mean(1)
