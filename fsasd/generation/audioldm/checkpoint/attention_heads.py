"""Attention heads of a UNet per level, which checkpoints can state wrongly: no shape shows them.

The original UNet has heads of 32 channels (S, M) or 64 (L). The hub's ``audioldm-s-full-v2`` says
``attention_head_dim: 8``, which diffusers reads as eight heads at every level. No shape changes, so
nothing complains; the prediction is off by about 1 % (rms).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

from fsasd.generation.audioldm.checkpoint.components import SIZES, CheckpointError

log = logging.getLogger(__name__)


def heads_of(unet: UNet2DConditionModel) -> tuple[int, ...]:
    """Return the heads per level that a UNet computes with.

    >>> from fsasd.generation.audioldm.checkpoint.components import build_unet
    >>> heads_of(build_unet(SIZES["nano"]))
    (1, 2, 3)
    """
    heads = unet.config.attention_head_dim
    levels = len(unet.config.block_out_channels)
    return (heads,) * levels if isinstance(heads, int) else tuple(heads)


def original_heads(unet: UNet2DConditionModel) -> tuple[int, ...] | None:
    """Return the heads per level of the original UNet of this width; ``None`` if there is none."""
    channels = tuple(unet.config.block_out_channels)
    known = [tuple(size.heads) for size in SIZES.values() if tuple(size.channels) == channels]
    return known[0] if known else None


def require_original_heads(unet: UNet2DConditionModel) -> tuple[int, ...]:
    """Return the heads per level of the original UNet of this width.

    Raises:
        CheckpointError: There is none of this width.
    """
    heads = original_heads(unet)
    if heads is None:
        raise CheckpointError(
            "attention_heads=original: there is no original AudioLDM with channels "
            f"{list(unet.config.block_out_channels)}; use auto or checkpoint"
        )
    return heads


def set_heads(unet: UNet2DConditionModel, heads: Sequence[int]) -> None:
    """Give a UNet these heads per level; the weights stay as they are.

    Raises:
        CheckpointError: A level's channels cannot be divided among its heads.
    """
    channels = unet.config.block_out_channels
    for level, (width, count) in enumerate(zip(channels, heads, strict=True)):
        if width % count:
            raise CheckpointError(f"level {level}: {width} channels for {count} attention heads")
    for blocks, per_level in ((unet.down_blocks, heads), (unet.up_blocks, heads[::-1])):
        for block, count in zip(blocks, per_level, strict=True):
            _set(block, count)
    _set(unet.mid_block, heads[-1])
    unet.register_to_config(attention_head_dim=list(heads))


def keep_better_heads(unet: UNet2DConditionModel, loss: Callable[[], float]) -> None:
    """Set the heads with which a UNet denoises better: the checkpoint's or the original's.

    Args:
        unet: Unchanged where there is nothing to compare.
        loss: Computes its denoising loss, always on the same clips and noise.
    """
    stated, original = heads_of(unet), original_heads(unet)
    if original is None or stated == original:
        return
    losses = {}
    for heads in (stated, original):
        set_heads(unet, heads)
        losses[heads] = loss()
    best = min(losses, key=losses.__getitem__)
    set_heads(unet, best)
    log.info(
        "attention heads per level: the checkpoint says %s (denoising loss %.5f), the original "
        "UNet has %s (%.5f); using %s",
        stated, losses[stated], original, losses[original], best,
    )  # fmt: skip


def _set(block: nn.Module, heads: int) -> None:
    for module in block.modules():
        if isinstance(module, Attention):
            module.heads = module.sliceable_head_dim = heads
            module.scale = (module.inner_dim // heads) ** -0.5
