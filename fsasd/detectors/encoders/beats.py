"""BEATs (Chen et al., ICML 2023, arXiv 2212.09058), which loads Microsoft's checkpoints.

github.com/microsoft/unilm/tree/master/beats: a transformer of 16 x 16 patches of a log-mel
spectrogram with gated relative positions (WavLM's, arXiv 2110.13900, section 3.1) and the residual
weights of DeepNet (arXiv 2203.00555). Weights are under the MIT licence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional as F

from fsasd.data.encoder_inputs import kaldi_fbank
from fsasd.detectors.encoders.loaded import Inputs, LoadedEncoder, Steps
from fsasd.detectors.encoders.weights import fill, require_settings

_RATE, _BINS = 16_000, 128
_SECONDS = 10
"""Length of the clips that it was trained on."""

_FULL_SCALE = 2.0**15
"""Its spectrograms are of samples on the scale of 16 bits."""

_MEAN, _DEVIATION = 15.41663, 6.55582
"""Of its training clips' spectrograms."""

_DEFAULTS: dict[str, Any] = {
    "embed_dim": 512,
    "input_patch_size": 16,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "num_buckets": 320,
    "max_distance": 800,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
"""The published models' settings, under their names in the checkpoint's ``cfg``."""

_ONLY: dict[str, Any] = {
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "activation_fn": "gelu",
}
"""What all published models have in common."""


class BEATs(LoadedEncoder):
    """States of 8 frequency bands, 160 ms a step; layer 0 is the input of the first block.

    Args:
        source: Name of the file, for messages.
        settings: Its ``cfg``.
        weights: Name to values. The classifier of one fine-tuned on AudioSet is left out.

    Raises:
        ValueError: Its settings are of no published model, or weights are missing or surplus.
    """

    spectrogram: ClassVar[str | None] = "spectrogram"

    def __init__(
        self, source: str, settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
    ) -> None:
        require_settings(source, settings, _ONLY)
        with torch.device("meta"):
            network = BEATsNetwork(settings)
        self.network = fill(network, weights, source, apart=("predictor.",))
        self.rate = _RATE
        self.window = _SECONDS * _RATE
        self.least = 400 + 160 * (network.patch - 1)
        self.steps = Steps(bands=_BINS // network.patch, by_time=True)

    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        fbank = kaldi_fbank(_FULL_SCALE * waveforms, _RATE, _BINS, window="povey")
        return {"spectrogram": (fbank - _MEAN) / (2 * _DEVIATION)}

    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        return self.network(inputs["spectrogram"])


class BEATsNetwork(nn.Module):
    """(batch, frames, bins) spectrograms -> (batch, steps, dim) of each layer.

    Args:
        settings: A checkpoint's ``cfg``; what it lacks is that of the published models.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        cfg = _DEFAULTS | dict(settings)
        self.patch = cfg["input_patch_size"]
        size, dim = cfg["embed_dim"], cfg["encoder_embed_dim"]
        self.patch_embedding = nn.Conv2d(
            1, size, self.patch, stride=self.patch, bias=cfg["conv_bias"]
        )
        self.layer_norm = nn.LayerNorm(size)
        self.post_extract_proj = nn.Linear(size, dim) if size != dim else None
        self.encoder = _Transformer(cfg)

    def forward(self, spectrograms: torch.Tensor) -> list[torch.Tensor]:
        patches = self.patch_embedding(spectrograms[:, None]).flatten(2).transpose(1, 2)
        patches = self.layer_norm(patches)
        if self.post_extract_proj is not None:
            patches = self.post_extract_proj(patches)
        return self.encoder(patches)


class _Transformer(nn.Module):
    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        dim = cfg["encoder_embed_dim"]
        self.pos_conv = nn.Sequential(
            _NormedConv(dim, cfg["conv_pos"], cfg["conv_pos_groups"]), nn.GELU()
        )
        self.layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(cfg["dropout"])
        # One table of positions for all layers; checkpoints hold it for each.
        table = nn.Embedding(cfg["num_buckets"], cfg["encoder_attention_heads"])
        self.layers = nn.ModuleList(_Block(cfg, table) for _ in range(cfg["encoder_layers"]))
        self.buckets, self.furthest = cfg["num_buckets"], cfg["max_distance"]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2)
        states = [self.dropout(self.layer_norm(x))]
        buckets = relative_buckets(x.shape[1], self.buckets, self.furthest, x.device)
        first = cast(_Block, self.layers[0])
        positions = first.self_attn.relative_attention_bias(buckets).permute(2, 0, 1)
        for layer in self.layers:
            states.append(layer(states[-1], positions))
        return states


class _NormedConv(nn.Module):
    """A convolution over time whose kernel has, at each of its taps, a learnt norm."""

    def __init__(self, dim: int, width: int, groups: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(1, 1, width))
        self.weight_v = nn.Parameter(torch.randn(dim, dim // groups, width))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.weight_v.norm(dim=(0, 1), keepdim=True)
        width = self.weight_v.shape[2]
        kernel = self.weight_g * self.weight_v / norm
        convolved = F.conv1d(x, kernel, self.bias, padding=width // 2, groups=self.groups)
        return convolved[..., : x.shape[2]]


class _Block(nn.Module):
    def __init__(self, cfg: Mapping[str, Any], table: nn.Embedding) -> None:
        super().__init__()
        dim = cfg["encoder_embed_dim"]
        self.self_attn = _Attention(cfg, table)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, cfg["encoder_ffn_embed_dim"])
        self.fc2 = nn.Linear(cfg["encoder_ffn_embed_dim"], dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(cfg["dropout"])
        self.inner_dropout = nn.Dropout(cfg["activation_dropout"])
        self.residual = (2 * cfg["encoder_layers"]) ** 0.25 if cfg["deep_norm"] else 1.0

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        attended = self.dropout(self.self_attn(x, positions))
        x = self.self_attn_layer_norm(self.residual * x + attended)
        inner = self.inner_dropout(F.gelu(self.fc1(x)))
        return self.final_layer_norm(self.residual * x + self.dropout(self.fc2(inner)))


class _Attention(nn.Module):
    def __init__(self, cfg: Mapping[str, Any], table: nn.Embedding) -> None:
        super().__init__()
        dim, self.heads = cfg["encoder_embed_dim"], cfg["encoder_attention_heads"]
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(dim, dim) for _ in range(4)
        )
        self.relative_attention_bias = table
        self.grep_linear = nn.Linear(dim // self.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        self.dropout = cfg["attention_dropout"]

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # How much a query minds positions depends on the query.
        gates = self.grep_linear(query).unflatten(3, (2, 4)).sum(dim=4).sigmoid()
        update, reset = gates[..., :1], gates[..., 1:]
        weight = update * (reset * self.grep_a - 1) + 2
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=weight * positions,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def relative_buckets(
    steps: int, buckets: int, furthest: int, device: torch.device | None = None
) -> torch.Tensor:
    """Return the (steps, steps) number of the bucket of each key's distance to each query.

    Half of the buckets are for later keys. Of each half, the first half are distances up to a
    quarter of ``buckets``, the others grow with their logarithm up to ``furthest`` (T5, Raffel et
    al., arXiv 1910.10683).

    >>> relative_buckets(3, 8, 16).tolist()
    [[0, 5, 6], [1, 0, 5], [2, 1, 0]]
    """
    place = torch.arange(steps, device=device)
    offset = place[None] - place[:, None]
    half, exact = buckets // 2, buckets // 4
    distance = offset.abs()
    growth = torch.log(distance.clamp(min=1) / exact) / math.log(furthest / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)
