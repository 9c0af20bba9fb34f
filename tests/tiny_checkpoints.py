"""Checkpoints of BEATs, Dasheng, CED and EAT as their authors publish them, tiny, drawn by name."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from named_weights import drawn

Shapes = dict[str, tuple[int, ...]]

BEATS = {
    "embed_dim": 12, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 2, "encoder_layers": 3, "conv_pos": 8, "conv_pos_groups": 4,
    "num_buckets": 32, "max_distance": 40, "input_patch_size": 16, "deep_norm": True,
    "layer_norm_first": False, "relative_position_embedding": True, "gru_rel_pos": True,
    "activation_fn": "gelu", "encoder_layerdrop": 0.05, "dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "dropout_input": 0.0, "conv_bias": False, "finetuned_model": False,
}  # fmt: skip
"""A ``cfg`` with the names of Microsoft's."""

DASHENG = {
    "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 1.5, "target_length": 48,
    "patch_size": [64, 4], "patch_stride": [64, 4],
}  # fmt: skip


def checkpoint(kind: str) -> dict[str, Any]:
    """Return what ``torch.save`` writes of a tiny encoder of a kind."""
    return {"beats": beats, "ced": ced, "dasheng": dasheng, "eat": eat}[kind]()


def beats() -> dict[str, Any]:
    return {"cfg": dict(BEATS), "model": weights_of(beats_shapes(BEATS))}


def dasheng() -> dict[str, Any]:
    shapes = dasheng_shapes(dim=16, depth=3, hidden=24, patch=(64, 4), grid=(1, 12))
    return {"config": dict(DASHENG), "model": weights_of(shapes) | statistics()}


def ced() -> dict[str, Any]:
    shapes = dasheng_shapes(dim=64, depth=2, hidden=32, patch=(16, 16), grid=(4, 6))
    shapes |= linear("outputlayer.1", 64, 5) | norm("outputlayer.0", 64)
    return {"model": weights_of(shapes) | statistics()}


def eat() -> dict[str, Any]:
    weights = weights_of(eat_shapes(dim=64, depth=2, hidden=32, frames=12))
    # Of the pre-training.
    weights |= {"_ema": {"blocks": torch.zeros(1)}, f"{EAT}decoder.proj.weight": torch.zeros(2)}
    return {"cfg": {"model": {"depth": 2}}, "model": weights}


EAT = "modality_encoders.IMAGE."


def weights_of(shapes: Shapes) -> dict[str, Any]:
    return {name: drawn(name, shape) for name, shape in shapes.items()}


def statistics() -> dict[str, torch.Tensor]:
    """What the batch normalisation of spectrograms has learnt, and buffers of the front end."""
    rng = np.random.default_rng(3)
    mean, variance = rng.normal(-20, 5, 64), rng.uniform(50, 200, 64)
    return {
        "init_bn.1.running_mean": torch.from_numpy(mean.astype(np.float32)),
        "init_bn.1.running_var": torch.from_numpy(variance.astype(np.float32)),
        "init_bn.1.num_batches_tracked": torch.tensor(7),
        "front_end.0.spectrogram.window": torch.hann_window(512),
        "front_end.0.mel_scale.fb": torch.zeros(257, 64),
    }


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def beats_shapes(cfg: Mapping[str, Any]) -> Shapes:
    size, dim, patch = cfg["embed_dim"], cfg["encoder_embed_dim"], cfg["input_patch_size"]
    hidden, heads = cfg["encoder_ffn_embed_dim"], cfg["encoder_attention_heads"]
    shapes = {"patch_embedding.weight": (size, 1, patch, patch)} | norm("layer_norm", size)
    shapes |= linear("post_extract_proj", size, dim) | norm("encoder.layer_norm", dim)
    width = cfg["conv_pos"]
    shapes |= {
        "encoder.pos_conv.0.bias": (dim,),
        "encoder.pos_conv.0.weight_g": (1, 1, width),
        "encoder.pos_conv.0.weight_v": (dim, dim // cfg["conv_pos_groups"], width),
    }
    for number in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{number}"
        attention = f"{layer}.self_attn"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= linear(f"{attention}.{name}", dim, dim)
        shapes |= linear(f"{attention}.grep_linear", dim // heads, 8)
        shapes |= {f"{attention}.grep_a": (1, heads, 1, 1)}
        shapes |= {f"{attention}.relative_attention_bias.weight": (cfg["num_buckets"], heads)}
        shapes |= norm(f"{layer}.self_attn_layer_norm", dim) | norm(
            f"{layer}.final_layer_norm", dim
        )
        shapes |= linear(f"{layer}.fc1", dim, hidden) | linear(f"{layer}.fc2", hidden, dim)
    return shapes


def block_shapes(dim: int, depth: int, hidden: int) -> Shapes:
    shapes: Shapes = {}
    for number in range(depth):
        block = f"blocks.{number}"
        shapes |= norm(f"{block}.norm1", dim) | norm(f"{block}.norm2", dim)
        shapes |= linear(f"{block}.attn.qkv", dim, 3 * dim) | linear(f"{block}.attn.proj", dim, dim)
        shapes |= linear(f"{block}.mlp.fc1", dim, hidden) | linear(f"{block}.mlp.fc2", hidden, dim)
    return shapes


def dasheng_shapes(
    dim: int, depth: int, hidden: int, patch: tuple[int, int], grid: tuple[int, int]
) -> Shapes:
    return {
        **norm("init_bn.1", 64),
        "patch_embed.proj.weight": (dim, 1, *patch),
        "patch_embed.proj.bias": (dim,),
        "time_pos_embed": (1, dim, 1, grid[1]),
        "freq_pos_embed": (1, dim, grid[0], 1),
        **block_shapes(dim, depth, hidden),
        **norm("norm", dim),
    }


def eat_shapes(dim: int, depth: int, hidden: int, frames: int) -> Shapes:
    return {
        f"{EAT}local_encoder.proj.weight": (dim, 1, 16, 16),
        f"{EAT}local_encoder.proj.bias": (dim,),
        f"{EAT}fixed_positional_encoder.positions": (1, 8 * frames, dim),
        f"{EAT}extra_tokens": (1, 1, dim),
        **norm(f"{EAT}context_encoder.norm", dim),
        **block_shapes(dim, depth, hidden),
    }


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
