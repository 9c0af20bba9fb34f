"""Dasheng (Dinkel et al., Interspeech 2024, arXiv 2406.06992) and CED (ICASSP 2024, 2308.11957).

github.com/RicherMans/Dasheng and RicherMans/CED, and mispeech's models of the hub: one vision
transformer of log-mels. Dasheng's patches are as high as the spectrogram, CED's have four bands.
Weights are under the Apache licence 2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torchaudio.transforms import MelSpectrogram

from fsasd.detectors.encoders.blocks import SIZES, Patches, blocks_of
from fsasd.detectors.encoders.loaded import Inputs, LoadedEncoder, Steps
from fsasd.detectors.encoders.weights import fill, require_settings, require_weights

_RATE, _FFT, _HOP = 16_000, 512, 160

_ONLY = {"n_fft": _FFT, "win_size": _FFT, "hop_size": _HOP, "f_min": 0, "center": True}
"""Settings of the spectrogram that all published models have in common."""

_QUIETEST, _RANGE = 1e-10, 120.0
"""Smallest power; decibels below the loudest at which a clip's spectrogram is cut off."""

_HEAD_SIZES = {1280: 80}
"""Dim of the states to that of an attention head, where it is not 64: Dasheng 0.6B."""

_SIZES = {
    "init_bn.weight", "patch_embed.proj.weight", "time_pos_embed", "freq_pos_embed", "norm.weight",
    *SIZES,
}  # fmt: skip
_APART = ("front_end.", "outputlayer.")


class Dasheng(LoadedEncoder):
    """Layer 0 is the input of the first block; the last layer is normalised.

    Decibels are cut off 120 below the loudest of each clip, in the original of each batch.

    Args:
        source: Name of the checkpoint, for messages.
        settings: Its ``config``, of which only the number of heads is needed.
        weights: Name to values. CED's classifier is left out.

    Raises:
        ValueError: Its settings are of no published model, or weights are missing or surplus.
    """

    spectrogram: ClassVar[str | None] = "spectrogram"

    def __init__(
        self, source: str, settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
    ) -> None:
        settings = {**settings, **settings.get("encoder_kwargs", {})}
        require_settings(source, settings, _ONLY)
        weights = {_name(name): values for name, values in weights.items()}
        require_weights(source, _SIZES - weights.keys(), ())
        dim = weights["time_pos_embed"].shape[1]
        heads = settings.get("num_heads", dim // _HEAD_SIZES.get(dim, 64))
        with torch.device("meta"):
            network = DashengNetwork(weights, heads)
        self.network = fill(network, weights, source, apart=_APART)
        bins, width = network.init_bn.num_features, network.patch_embed.width
        self.mel = MelSpectrogram(_RATE, _FFT, hop_length=_HOP, f_max=_RATE / 2, n_mels=bins)
        self.rate = _RATE
        self.window = (network.time_pos_embed.shape[3] * width - 1) * _HOP
        # Of fewer samples, frames would have no reflection to be padded with.
        self.least = max((width - 1) * _HOP, _FFT)
        self.steps = Steps(bands=bins // network.patch_embed.height)

    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        with torch.autocast(waveforms.device.type, enabled=False):
            power = self.mel.to(waveforms.device)(waveforms.float())
            decibels = 10 * power.clamp(min=_QUIETEST).log10()
            least = decibels.amax(dim=(1, 2), keepdim=True) - _RANGE
            return {"spectrogram": torch.maximum(decibels, least).transpose(1, 2)}

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        return self.network(inputs["spectrogram"])


class DashengNetwork(nn.Module):
    """(batch, frames, bins) spectrograms -> (batch, steps, dim) of each layer.

    Args:
        weights: Name to values, of which the sizes are read.
        heads: Of the attention.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], heads: int) -> None:
        super().__init__()
        self.init_bn = nn.BatchNorm1d(weights["init_bn.weight"].shape[0], momentum=0.01)
        self.patch_embed = Patches(weights["patch_embed.proj.weight"])
        self.time_pos_embed = nn.Parameter(torch.empty(weights["time_pos_embed"].shape))
        self.freq_pos_embed = nn.Parameter(torch.empty(weights["freq_pos_embed"].shape))
        self.blocks = blocks_of(weights, heads, norm_first=True)
        self.norm = nn.LayerNorm(weights["norm.weight"].shape[0], eps=1e-6)

    def forward(self, spectrograms: torch.Tensor) -> list[torch.Tensor]:
        normalised = self.init_bn(spectrograms.transpose(1, 2))
        patches = self.patch_embed(normalised)
        placed = patches + self.time_pos_embed[..., : patches.shape[3]] + self.freq_pos_embed
        states = [placed.flatten(2).transpose(1, 2)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return [*states[:-1], self.norm(states[-1])]


def _name(name: str) -> str:
    """Return a weight's name in the network.

    >>> _name("encoder.init_bn.1.weight"), _name("outputlayer.0.bias")
    ('init_bn.weight', 'outputlayer.0.bias')
    """
    return name.removeprefix("encoder.").replace("init_bn.1.", "init_bn.")
