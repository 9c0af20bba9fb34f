"""Non-finite losses: they end the training before a checkpoint is written."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from fsasd.data.draws import Draw


class TrainingError(ValueError):
    """Training stopped; the message names the batch or the cause."""


class LossWatch:
    """Checks that losses are finite, several at once: reading one waits for the accelerator.

    Args:
        several: Losses on an accelerator that are checked together.
    """

    def __init__(self, several: int = 16) -> None:
        self.several = several
        self.unchecked: list[tuple[torch.Tensor, list[Draw]]] = []

    def add(self, loss: torch.Tensor, draws: list[Draw], trainer: Any) -> None:
        """Add the loss of a batch, and check the unchecked ones when it is time."""
        self.unchecked.append((loss.detach(), draws))
        if loss.device.type == "cpu" or len(self.unchecked) >= self.several:
            self.check(trainer)

    def check(self, trainer: Any) -> None:
        """Check all losses that were added since the last check.

        Raises:
            TrainingError: A loss is not finite; names the clips of its batch.
        """
        unchecked, self.unchecked = self.unchecked, []
        if not unchecked:
            return
        finite = torch.isfinite(torch.stack([loss for loss, _ in unchecked])).tolist()
        if all(finite):
            return
        loss, draws = unchecked[finite.index(False)]
        clips = trainer.datamodule.train_clips
        batch = ", ".join(str(clips[draw.clip].path) for draw in draws)
        stop_training(f"the loss became {float(loss)} with the batch of {batch}", trainer)


def stop_training(why: str, trainer: Any) -> NoReturn:
    """End the training.

    Raises:
        TrainingError: Says why, and how to go on.
    """
    paths = [getattr(c, "last_model_path", "") for c in trainer.checkpoint_callbacks]
    last = next(filter(None, paths), "none yet")
    raise TrainingError(
        f"{why}. Training stopped; the last good checkpoint: {last}. Lower generator.learning_rate "
        "or trainer.gradient_clip_val; with 16-mixed precision use bf16-mixed; look at the "
        "recordings"
    )
