"""Fitting a generator, resumable, on any number of ranks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import (
    Checkpoint,
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    RichModelSummary,
    RichProgressBar,
    ThroughputMonitor,
    Timer,
    TQDMProgressBar,
)
from lightning.pytorch.trainer.states import TrainerFn

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.generation.base import Generator
from fsasd.generation.diffusion.cost import memory_reductions
from fsasd.generation.training import Training
from fsasd.runtime.memory import memory_advice
from fsasd.runtime.ranks import rank
from fsasd.runtime.resuming import LAST, fit, read_checkpoint

log = logging.getLogger(__name__)

MODEL = "model"
"""Folder of the generator that was fitted, in that of its training."""

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints, which hold the state of the optimizer, too."""

WATCHERS = frozenset(
    {
        *(DeviceStatsMonitor, LearningRateMonitor, ThroughputMonitor),
        *(ModelSummary, RichModelSummary, ProgressBar, RichProgressBar, TQDMProgressBar, Timer),
    }
)
"""Lightning's callbacks that change nothing in the result of a training. One that ``Timer`` ends is
resumed (``runtime.stopping``)."""


def changes_result(callback: type[L.Callback]) -> bool:
    """Say whether what is trained may depend on a callback.

    Args:
        callback: A class. One of your own that only watches has the attribute
            ``only_watches = True``.

    >>> from lightning.pytorch.callbacks import EarlyStopping
    >>> changes_result(LearningRateMonitor), changes_result(EarlyStopping)
    (False, True)
    """
    return callback not in WATCHERS and not getattr(callback, "only_watches", False)


def finetune(
    generator: Generator,
    data: FirstShotDataModule,
    trainer: L.Trainer,
    folder: str | Path,
    *,
    keep_checkpoints: bool = False,
) -> None:
    """Fine-tune a generator, and save it in ``folder/model``.

    A call that was interrupted is resumed by the same call, from its last checkpoint.

    Args:
        generator: Is trained in place.
        data: What it is trained on.
        trainer: How to train; all of its ranks call this function. A ``ModelCheckpoint`` without a
            folder writes into ``folder/checkpoints``.
        folder: Gets the model, ``training.json`` and, while it is trained, checkpoints.
        keep_checkpoints: Leave them there; otherwise they are removed once the model is saved.

    Raises:
        KeyboardInterrupt: Training was interrupted; a checkpoint was written.
        TimeoutError: The trainer's ``max_time`` was over; a checkpoint was written.
        ValueError: The best checkpoint was to be taken, and none was kept; or the accelerator's
            memory does not suffice.
    """
    if not data.captioned.labels.any() and rank() == 0:
        log.warning(
            "no reference machine has anomalous clips: the generator cannot learn what "
            "'anomaly' sounds like, so its anomalous clips will differ from its normal ones "
            "by chance. generator=transforms needs none"
        )
    fit_and_save(generator, data, trainer, Path(folder), generator.save, keep_checkpoints)


def fit_best(
    generator: Generator, data: FirstShotDataModule, trainer: L.Trainer, folder: Path
) -> Training:
    """Train a generator, then take the weights of the best checkpoint.

    The best is that by the ``monitor`` of the trainer's first ``ModelCheckpoint``; without one, the
    last weights are taken.

    Args:
        generator: Is trained in place.
        data: What it is trained on.
        trainer: How to train.
        folder: Gets the checkpoints.

    Returns:
        Which weights were taken.

    Raises:
        ValueError: No checkpoint was kept.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder)
    last = _LastCheckpoint(folder / LAST)
    trainer.callbacks.append(last)  # type: ignore[attr-defined]
    with memory_advice(memory_reductions(data.batch_size, trainer.accumulate_grad_batches)):
        fit(trainer, generator, data, folder)
    checkpoint = trainer.checkpoint_callback
    if not isinstance(checkpoint, ModelCheckpoint) or not checkpoint.monitor:
        return last.kept(trainer.global_step)
    if not checkpoint.best_model_path:
        raise ValueError(
            f"no checkpoint was kept: '{checkpoint.monitor}' was never logged. Validate "
            "at least once (trainer.val_check_interval), or use callbacks=none"
        )
    state = read_checkpoint(Path(checkpoint.best_model_path))
    generator.on_load_checkpoint(state)
    generator.load_state_dict(state["state_dict"])
    step, monitor = state["global_step"], checkpoint.monitor
    log.info("using the checkpoint of step %d, the best by %s", step, monitor)
    return last.kept(step)


class _LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` after every validation, whether or not it was the best.

    It keeps the ``val/loss`` of every validation, by step.

    ``save_last`` of Lightning's ``ModelCheckpoint`` writes it only along with a best one, so that a
    training that was killed would lose all steps since then. Without validation clips, checkpoints
    are written as often as one would be validated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_model_path = ""
        self.losses: dict[int, float] = {}
        self._step = -1

    def kept(self, step: int) -> Training:
        """Return what is known of the weights of a step."""
        return Training(step, self.losses.get(step))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": dict(self.losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = dict(state_dict["losses"])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            if "val/loss" in trainer.callback_metrics:
                self.losses[trainer.global_step] = float(trainer.callback_metrics["val/loss"])
            self._save(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        interval = trainer.val_check_interval
        if sum(trainer.num_val_batches) or not isinstance(interval, int):
            return
        if trainer.global_step % max(1, interval // trainer.accumulate_grad_batches) == 0:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step != self._step:
            trainer.save_checkpoint(self.path)
            self._step, self.last_model_path = trainer.global_step, str(self.path)


def fit_and_save(
    generator: Generator,
    data: FirstShotDataModule,
    trainer: L.Trainer,
    folder: Path,
    save: Callable[[Path], object],
    keep_checkpoints: bool,
) -> None:
    """Fit a generator, and save it in ``folder/model`` (see ``finetune``).

    Args:
        generator: Is trained in place.
        data: What it is trained on.
        trainer: How to train.
        folder: Gets the model.
        save: Writes the generator into a folder.
        keep_checkpoints: Leave them there.
    """
    model = folder / MODEL
    # A call that was killed once its model was saved has only checkpoints to remove.
    if not model.is_dir():
        training = fit_best(generator, data, trainer, folder / CHECKPOINTS)
        # Until every rank has read the best checkpoint.
        trainer.strategy.barrier()
        if rank() == 0:
            partial = folder / f"{MODEL}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            save(partial)
            training.write(folder)
            partial.rename(model)
    if rank() == 0 and not keep_checkpoints:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
