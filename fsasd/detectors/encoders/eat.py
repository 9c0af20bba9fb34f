"""EAT, the efficient audio transformer (Chen et al., IJCAI 2024, arXiv 2401.03497).

github.com/cwx-worst-one/EAT, whose checkpoints of fairseq and of the hub (worstchan/EAT-...) it
loads: a vision transformer of 16 x 16 patches of a log-mel spectrogram, with a token of the clip.
Weights are under the MIT licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from fsasd.data.encoder_inputs import kaldi_fbank
from fsasd.detectors.encoders.blocks import SIZES, Patches, blocks_of
from fsasd.detectors.encoders.loaded import Inputs, LoadedEncoder, Steps
from fsasd.detectors.encoders.weights import fill, require_settings, require_weights

_RATE, _BINS = 16_000, 128
_FRAMES = 1024
"""Of the clips of 10 s that it was trained on."""

_HEAD_SIZE = 64
_MEAN, _DEVIATION = -4.268, 4.569
"""Of its training clips' spectrograms."""

_ONLY = {"layer_norm_first": False, "mel_bins": _BINS, "norm_eps": 1e-6}

_POSITIONS = "fixed_positional_encoder.positions"
_SIZES = {"local_encoder.proj.weight", _POSITIONS, *SIZES}
_APART = (
    "decoder.", "shared_decoder.", "_ema", "cls_proj.", "recon_proj.", "center", "encoder_mask",
    "head.", "fc_norm.",
)  # fmt: skip
"""Weights of the pre-training, and of the classifier of one fine-tuned on AudioSet."""


class EAT(LoadedEncoder):
    """States of a token and of 8 bands, 160 ms a step; layer 0 is the input of the first block.

    The last patches of a clip are filled up with silence, by less than 160 ms.

    Args:
        source: Name of the checkpoint, for messages.
        settings: Its ``cfg`` or ``config.json``.
        weights: Name to values.

    Raises:
        ValueError: Its settings are of no published model, or weights are missing or surplus.
    """

    spectrogram: ClassVar[str | None] = "spectrogram"

    def __init__(
        self, source: str, settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
    ) -> None:
        require_settings(source, settings, _ONLY)
        weights = {_name(name): values for name, values in weights.items()}
        require_weights(source, _SIZES - weights.keys(), ())
        with torch.device("meta"):
            network = EATNetwork(weights)
        self.network = fill(network, weights, source, apart=_APART)
        # The table of positions is computed, not learnt.
        network.fixed_positional_encoder.positions.requires_grad_(False)
        self.patch = network.local_encoder.height
        self.rate = _RATE
        bands = _BINS // self.patch
        placed = network.fixed_positional_encoder.positions.shape[1] // bands * self.patch
        self.window = 400 + 160 * (min(_FRAMES, placed) - 1)
        self.least = 400 + 160 * (self.patch - 1)
        self.steps = Steps(tokens=1, bands=bands, by_time=True)

    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        centred = waveforms - waveforms.mean(dim=1, keepdim=True)
        fbank = kaldi_fbank(centred, _RATE, _BINS, window="hanning")
        fbank = F.pad(fbank, (0, 0, 0, -fbank.shape[1] % self.patch))
        return {"spectrogram": (fbank - _MEAN) / (2 * _DEVIATION)}

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        return self.network(inputs["spectrogram"])


class EATNetwork(nn.Module):
    """(batch, frames, bins) spectrograms -> (batch, steps, dim) of each layer.

    Args:
        weights: Name to values, of which the sizes are read.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.local_encoder = Patches(weights["local_encoder.proj.weight"])
        self.fixed_positional_encoder = _Positions(weights[_POSITIONS].shape)
        dim = weights[_POSITIONS].shape[2]
        self.extra_tokens = nn.Parameter(torch.empty(1, 1, dim))
        self.pre_norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = blocks_of(weights, dim // _HEAD_SIZE, norm_first=False)

    def forward(self, spectrograms: torch.Tensor) -> list[torch.Tensor]:
        patches = self.local_encoder(spectrograms).flatten(2).transpose(1, 2)
        placed = patches + self.fixed_positional_encoder.positions[:, : patches.shape[1]]
        token = self.extra_tokens.expand(len(placed), -1, -1)
        states = [self.pre_norm(torch.cat([token, placed], dim=1))]
        for block in self.blocks:
            states.append(block(states[-1]))
        return states


class _Positions(nn.Module):
    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(shape))


def _name(name: str) -> str:
    """Return a weight's name in the network, which is that on the hub without ``model.``.

    >>> _name("modality_encoders.IMAGE.context_encoder.norm.bias")
    'pre_norm.bias'
    """
    name = name.removeprefix("model.").removeprefix("modality_encoders.IMAGE.")
    return name.replace("context_encoder.norm.", "pre_norm.")
