"""A loss that is no number ends the training before anything of it is saved."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from fsasd.data.draws import Draw


class TrainingError(ValueError):
    """Training cannot go on; the message says with what it stopped."""


class LossWatch:
    """Looks at losses, several at once where to look is to wait for an accelerator.

    Args:
        several: Losses on an accelerator that are looked at together.
    """

    def __init__(self, several: int = 16) -> None:
        self.several = several
        self.unseen: list[tuple[torch.Tensor, list[Draw]]] = []

    def add(self, loss: torch.Tensor, draws: list[Draw], trainer: Any) -> None:
        """Remember the loss of a batch, and look at those remembered when it is time."""
        self.unseen.append((loss.detach(), draws))
        if loss.device.type == "cpu" or len(self.unseen) >= self.several:
            self.check(trainer)

    def check(self, trainer: Any) -> None:
        """Look at all that has not been looked at.

        Raises:
            TrainingError: A loss is not a number; names the clips of its batch.
        """
        unseen, self.unseen = self.unseen, []
        if not unseen:
            return
        finite = torch.isfinite(torch.stack([loss for loss, _ in unseen])).tolist()
        if all(finite):
            return
        loss, draws = unseen[finite.index(False)]
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
