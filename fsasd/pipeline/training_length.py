"""How long a generator's training is: steps, batches, and after which of them it is validated.

As Lightning counts them, of the settings of ``lightning.Trainer``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.draws import process_batch
from fsasd.detectors.networks.training import processes


def training_steps(trainer: Mapping[str, Any], data: FirstShotDataModule) -> int:
    """Return the optimizer steps of a generator's training, by ``max_steps`` and ``max_epochs``.

    Args:
        trainer: Settings of ``lightning.Trainer``.
        data: What is trained on.

    Raises:
        ValueError: The training has no end, or no batch.
    """
    steps, epochs = trainer.get("max_steps") or -1, trainer.get("max_epochs") or -1
    ends = [steps] if steps > 0 else []
    if epochs > 0:
        ends.append(epochs * _steps_per_epoch(trainer, data))
    if not ends:
        raise ValueError(
            f"trainer.max_steps={steps}, trainer.max_epochs={epochs}: expected a number for one of "
            "them, since training needs an end: the learning rate falls to 0 at the last step"
        )
    return min(ends)


def first_validation(trainer: Mapping[str, Any], data: FirstShotDataModule) -> int:
    """Return after which optimizer step the first validation is due."""
    epochs = trainer.get("check_val_every_n_epoch", 1)
    before = (epochs - 1) * _steps_per_epoch(trainer, data) if epochs else 0
    return before + math.ceil(_interval(trainer, data) / accumulated(trainer))


def validates_last(trainer: Mapping[str, Any], data: FirstShotDataModule) -> bool:
    """Return whether a validation is due after the last optimizer step."""
    epochs = trainer.get("check_val_every_n_epoch", 1)
    last = training_steps(trainer, data) - 1
    epoch, step = divmod(last, _steps_per_epoch(trainer, data))
    batches = _batches_per_epoch(trainer, data)
    batch = min((step + 1) * accumulated(trainer), batches)
    if epochs is None:
        batch += epoch * batches
    elif (epoch + 1) % epochs:
        return False
    return batch % _interval(trainer, data) == 0


def _interval(trainer: Mapping[str, Any], data: FirstShotDataModule) -> int:
    """Return after how many batches one is validated: an integer is steps, another a share."""
    interval = trainer.get("val_check_interval")
    if isinstance(interval, int):
        return interval * accumulated(trainer)
    return max(1, int(_batches_per_epoch(trainer, data) * (interval or 1.0)))


def accumulated(trainer: Mapping[str, Any]) -> int:
    """Return how many batches one optimizer step is of."""
    return trainer.get("accumulate_grad_batches") or 1


def _steps_per_epoch(trainer: Mapping[str, Any], data: FirstShotDataModule) -> int:
    return math.ceil(_batches_per_epoch(trainer, data) / accumulated(trainer))


def _batches_per_epoch(trainer: Mapping[str, Any], data: FirstShotDataModule) -> int:
    batches = math.ceil(len(data.split()[0]) / data.batch_size) * accumulated(trainer)
    limit = trainer.get("limit_train_batches")
    if not (limited := _limited(batches, limit)):
        raise ValueError(
            f"trainer.limit_train_batches={limit}: expected a batch at least of the {batches} of "
            "an epoch, since nothing would be trained"
        )
    return limited


def validated_batches(trainer: Mapping[str, Any], data: FirstShotDataModule) -> int:
    """Return how many batches are validated each time; those that there are may be none."""
    size = process_batch(data.batch_size, processes(trainer), accumulated(trainer))
    clips = math.ceil(len(data.split()[1]) / processes(trainer))
    limit = trainer.get("limit_val_batches")
    return _limited(max(1, math.ceil(clips / size)), limit)


def _limited(batches: int, limit: float | None) -> int:
    """Return how many batches Lightning takes: an integer is their number, another their share."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)
