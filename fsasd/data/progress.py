"""Progress of a resumed run: Lightning's counts of batches, converted to whole steps.

Lightning decides by the number of batches when to step, when to validate and when an epoch ends. A
run may be resumed with another number of batches per step, and its checkpoint may have been written
in the middle of a step or of a validation: then its counts no longer hold.
"""

from __future__ import annotations

from typing import Any

import lightning as L


def recount(trainer: L.Trainer, accumulated: int, batches_per_epoch: int) -> None:
    """Convert the progress of a resumed run to its present number of batches per step.

    An unfinished step begins anew, since its gradients are in no checkpoint, and so does an
    unfinished validation.

    Args:
        trainer: Has restored its loops from a checkpoint, and not begun to train.
        accumulated: Batches per step before the interruption.
        batches_per_epoch: After it; whole steps.
    """
    if trainer.limit_train_batches != 1.0:
        # Epochs are not whole then; it is for trying things out.
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
        # As if it had been interrupted at its first batch.
        for batches_of_it in (validation.total, validation.current):
            _set(batches_of_it, 1, 0)


def _is_validation_due(trainer: L.Trainer, batches: int) -> bool:
    interval = trainer.val_check_interval
    by_batches = isinstance(interval, int) and trainer.check_val_every_n_epoch is None
    return by_batches and batches > 0 and batches % interval == 0


def _set(count: Any, begun: int, ended: int) -> None:
    count.ready = count.started = begun
    count.processed = count.completed = ended
