"""A generator as another package would have it: other latents, conditions and rate than AudioLDM.

A latent is the waveform itself, cut into frames of 10 ms; the network is trained by flow matching.
"""

import zlib
from pathlib import Path

import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from fsasd.generation.diffusion.latent_diffusion import LatentDiffusion
from fsasd.generation.diffusion.model import Model

HOP = 240


class Convolutions(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width=64, words=16):
        super().__init__()
        self.into = nn.Conv1d(HOP + words + 2, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.out = nn.Conv1d(width, HOP, 3, padding=1)

    def forward(self, latents, times, words, seconds):
        known = torch.cat([words, seconds, times.expand(len(latents))[:, None] / 1000], dim=1)
        known = known[:, :, None].expand(-1, -1, latents.shape[2])
        hidden = self.into(torch.cat([latents, known], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden.relu())
        return self.out(hidden.relu())


class WaveformModel(Model):
    sampling_rate, hop = 24_000, HOP

    def __init__(self, network):
        self.network, self.scheduler = network, FlowMatchEulerDiscreteScheduler()

    def frozen(self):
        return ()

    def encode(self, waveform):
        frames = len(waveform) // HOP
        return torch.from_numpy(waveform[: frames * HOP]).reshape(frames, HOP).T

    def decode(self, latents):
        return latents.mT.flatten(1)

    def condition(self, captions, seconds):
        words = torch.zeros(len(captions), 16)
        for i, caption in enumerate(captions):
            for word in caption.split():
                words[i, zlib.crc32(word.encode()) % 16] += 1
        return {"words": words, "seconds": torch.full((len(captions), 1), seconds)}

    def predict(self, network, latents, timesteps, condition):
        return network(latents, timesteps, condition["words"], condition["seconds"])

    def latent_shape(self, frames):
        return HOP, frames

    def save(self, network, folder):
        network.save_pretrained(folder)

    def fingerprint(self):
        return f"frames of {HOP} samples"


class WaveformDiffusion(LatentDiffusion):
    def load_model(self, checkpoint, allow):
        network = Convolutions()
        if checkpoint != "random":
            network = Convolutions.from_pretrained(Path(checkpoint))
        return WaveformModel(network)
