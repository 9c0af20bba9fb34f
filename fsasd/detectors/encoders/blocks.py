"""Components of vision transformers, under the names that EAT, Dasheng and CED give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

_EPS = 1e-6


SIZES = ("blocks.0.norm1.weight", "blocks.0.mlp.fc1.weight")
"""Weights of which ``blocks_of`` reads sizes."""


class Patches(nn.Module):
    """(batch, height, width) maps -> (batch, dim, rows, columns) of patches that do not overlap.

    Args:
        weight: Of the projection, (dim, 1, height, width), of which the sizes are read.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        dim, _, self.height, self.width = weight.shape
        size = (self.height, self.width)
        self.proj = nn.Conv2d(1, dim, size, stride=size)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.proj(maps[:, None])


class Block(nn.Module):
    """Self-attention and a perceptron of two layers on (batch, steps, dim) states.

    Args:
        dim: Of the states.
        heads: Of the attention.
        hidden: Of the perceptron.
        norm_first: Whether inputs are normalised, instead of sums.
    """

    def __init__(self, dim: int, heads: int, hidden: int, *, norm_first: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attn = _Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = _Perceptron(dim, hidden)
        self.norm_first = norm_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm_first:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


def blocks_of(
    weights: Mapping[str, torch.Tensor], heads: int, *, norm_first: bool
) -> nn.ModuleList:
    """Return as many blocks, of such sizes, as weights are for (``blocks.0.norm1.weight`` ...)."""
    dim = weights["blocks.0.norm1.weight"].shape[0]
    hidden = weights["blocks.0.mlp.fc1.weight"].shape[0]
    count = len(_numbers(weights))
    return nn.ModuleList(Block(dim, heads, hidden, norm_first=norm_first) for _ in range(count))


def _numbers(names: Iterable[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("blocks.")}


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))


class _Perceptron(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))
