"""Where a resumed run goes on: Lightning's counts, said anew in whole steps.

Lightning counts batches and tells by their number when to step, when to validate and when an epoch
ends. A run may go on with other batches to a step than it had, and a checkpoint may have been
written in the middle of a step, or of a validation: then its counts mean something else.
"""

from __future__ import annotations

from typing import Any

import lightning as L


def recount(trainer: L.Trainer, accumulated: int, batches_per_epoch: int) -> None:
    """Let a resumed run have taken its steps with as many batches each as it will take from now on.

    A step that was not finished begins anew, since its gradients are in no checkpoint, and so does
    a validation that was due and is not complete.

    Args:
        trainer: Has restored its loops from a checkpoint, and not begun to train.
        accumulated: Batches per step before.
        batches_per_epoch: From now on; whole steps.
    """
    if trainer.limit_train_batches != 1.0:
        # Epochs are not whole then, and nobody trains so but to try something out.
        return
    loop: Any = trainer.fit_loop
    counts, validation = loop.epoch_loop.batch_progress, loop.epoch_loop.val_loop.batch_progress
    cut = counts.total.completed < counts.total.processed
    cut |= validation.current.completed < validation.current.ready
    batches = counts.total.processed // accumulated * trainer.accumulate_grad_batches
    epoch, in_epoch = divmod(batches, batches_per_epoch)
    _set(counts.total, batches, batches)
    _set(counts.current, in_epoch, in_epoch)
    counts.is_last_batch = False
    for epochs in (loop.epoch_progress.total, loop.epoch_progress.current):
        _set(epochs, epoch + (in_epoch > 0), epoch)
    if cut and _is_validation_due(trainer, batches):
        # As if it had been cut at its first batch.
        for batches_of_it in (validation.total, validation.current):
            _set(batches_of_it, 1, 0)


def _is_validation_due(trainer: L.Trainer, batches: int) -> bool:
    interval = trainer.val_check_interval
    by_batches = isinstance(interval, int) and trainer.check_val_every_n_epoch is None
    return by_batches and batches > 0 and batches % interval == 0


def _set(count: Any, begun: int, ended: int) -> None:
    count.ready = count.started = begun
    count.processed = count.completed = ended
