"""Weights that are drawn by the names of parameters: the same in any network with these names."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch


def drawn(name: str, shape: Sequence[int]) -> torch.Tensor:
    """Return values of a parameter: scales are around 1, all else is around 0.

    One of all layers, BEATs' table of positions, has the values of the first.
    """
    first = "encoder.layers.0.self_attn.relative_attention_bias.weight"
    seed = first if name.endswith("relative_attention_bias.weight") else name
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    values = rng.normal(0, 0.2, tuple(shape)).astype(np.float32)
    is_scale = len(shape) < 2 and name.endswith("weight")
    return torch.from_numpy(values + 1 if is_scale else values)


@torch.no_grad()
def draw(network: torch.nn.Module) -> torch.nn.Module:
    """Fill a network's parameters."""
    for name, parameter in network.named_parameters():
        parameter.copy_(drawn(name, parameter.shape))
    return network
