"""Optimizers, and the number of steps of a training."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch

log = logging.getLogger(__name__)

MIN_PASSES = 5
"""Passes over the clips; with fewer, many clips are seen at one noise level or none."""


def build_optimizer(
    name: str, parameters: Sequence[torch.nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build AdamW (Loshchilov and Hutter, 2019), or its relative with 8-bit moments.

    Raises:
        ValueError: The name is unknown, or its package is not installed.
    """
    if name == "adamw":
        # Not fused: Lightning refuses to clip gradients then, wherever precision is mixed.
        return torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay)
    if name != "adamw_8bit":
        raise ValueError(f"optimizer must be 'adamw' or 'adamw_8bit', found '{name}'")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            "optimizer=adamw_8bit needs bitsandbytes: pip install 'fsasd[8bit]', or use adamw"
        ) from error
    return AdamW8bit(parameters, learning_rate, weight_decay=weight_decay)


def warn_if_too_short(steps: int, examples_per_step: int, clips: int, warmup_steps: int) -> None:
    """Warn of a training that is too short: the defaults are for trying things out.

    Args:
        steps: Of the optimizer.
        examples_per_step: On all devices together.
        clips: Trained on.
        warmup_steps: Asked for; half of the steps is the most that there are.
    """
    passes = steps * examples_per_step / clips
    if passes < MIN_PASSES:
        log.warning(
            "%d steps of %d clips are %.2g passes over the %d that are trained on, expected %d or "
            "more: raise trainer.max_steps to %d, or data.batch_size",
            steps, examples_per_step, passes, clips, MIN_PASSES,
            math.ceil(MIN_PASSES * clips / examples_per_step),
        )  # fmt: skip
    if warmup_steps > steps // 2:
        log.warning(
            "generator.warmup_steps=%d is cut to %d, half of trainer.max_steps=%d: raise the "
            "steps, or lower the warm-up",
            warmup_steps, steps // 2, steps,
        )  # fmt: skip


def optimizer_steps(trainer: L.Trainer) -> int:
    """Return the number of optimizer steps.

    Lightning's own estimate would begin to load data before it knows where a resumed run goes on.

    Raises:
        ValueError: The run has no end, so its learning rate could not fall to zero.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if trainer.max_epochs not in (None, -1):
        batches = data.batches_per_epoch
        if isinstance(trainer.limit_train_batches, int):
            batches = min(batches, trainer.limit_train_batches)
        else:
            batches = int(batches * trainer.limit_train_batches)
        per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        steps = min(steps, per_epoch * trainer.max_epochs)
    if steps == math.inf:
        raise ValueError("training needs an end: set trainer.max_steps or trainer.max_epochs")
    return int(steps)
