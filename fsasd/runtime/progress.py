"""The progress bar of training and synthesis, which counts optimizer steps."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class StepProgress(ProgressBar):
    """Progress in optimizer steps, with the metrics that are logged with ``prog_bar=True``.

    It is written to standard error, if that is a terminal; standard output is for results.

    Args:
        console: Where to show it; standard error by default.
    """

    only_watches = True

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console(stderr=True)
        self._enabled = True
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def disable(self) -> None:
        """Show nothing; called by Lightning on ranks above 0."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Return the metrics to show, without the version number of the logger."""
        return {
            name: value for name, value in super().get_metrics(*args).items() if name != "v_num"
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar, at the step of the checkpoint if training is resumed."""
        steps = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        self._start("training", steps, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Show the number of optimizer steps."""
        if self._bar is not None:
            metrics = self.get_metrics(trainer, pl_module).items()
            # Values are floats, or text of a logger.
            shown = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics]
            self._bar.update(self._task, completed=trainer.global_step, shown=", ".join(shown))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start a bar of batches of clips."""
        self._start("generating", sum(trainer.num_predict_batches), 0)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Close the bar before the error is printed."""
        self._stop()

    def _start(self, what: str, total: float, done: int) -> None:
        self._stop()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=self.console,
            disable=not (self._enabled and self.console.is_terminal),
        )
        finite = total if math.isfinite(total) else None
        self._task = self._bar.add_task(what, total=finite, completed=done, shown="")
        self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
