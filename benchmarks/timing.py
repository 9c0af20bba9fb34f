"""How long a call takes by the clock."""

from __future__ import annotations

import time


def seconds(call, *args) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call(*args)
    return time.perf_counter() - started
