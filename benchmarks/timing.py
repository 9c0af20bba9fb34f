"""How long a call takes by the clock, and in processor time."""

from __future__ import annotations

import time


def seconds(call, *args) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call(*args)
    return time.perf_counter() - started


def seconds_and_work(call, *args) -> tuple[float, float]:
    """Return the seconds of one call by the clock, and of all processor cores together.

    The clock also counts what others do on a busy machine.
    """
    started = time.process_time()
    clock = seconds(call, *args)
    return clock, time.process_time() - started
