"""The batch of all devices, as part of a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def examples_per_step(batch_size: int, trainer: Mapping[str, Any]) -> int | str:
    """Return how many examples a step has, on all devices together.

    Where the number of devices is that of the machine (``-1``, ``auto``), that is all that is known
    of it, and runs that differ in nothing else are taken for the same.

    Args:
        batch_size: Of a process.
        trainer: Settings of ``lightning.Trainer``.

    >>> examples_per_step(4, {"devices": 8}) == examples_per_step(32, {"devices": [3]}) == 32
    True
    >>> examples_per_step(4, {"devices": -1, "num_nodes": 2})
    '8 a device, devices=-1'
    """
    devices = trainer.get("devices") or 1
    some = batch_size * (trainer.get("num_nodes") or 1)
    some *= trainer.get("accumulate_grad_batches") or 1
    count = len(devices) if isinstance(devices, list) else devices
    if isinstance(count, str) and count.isdecimal():
        count = int(count)
    if isinstance(count, int) and count > 0:
        return some * count
    return f"{some} a device, devices={devices}"
