"""Work that all ranks do together, or none of them."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from fsasd.runtime import ranks
from fsasd.runtime.ranks import RankError, add, broadcast, end_all, rank, receive

_GRACE = 30.0
"""Seconds within which work fails on all ranks, if it does."""

_RUN, _DONE, _BUSY = "run", "done", "busy"
_times: collections.Counter[str] = collections.Counter()


class BusyError(Exception):
    """Another job is at the work: it is to be asked for again later."""


class Joint:
    """Work for which rank 0 decides whether it is done, and which all ranks do, or none.

    Rank 0 enters it as a context and calls ``run`` in there if there is something to do; the other
    ranks call ``follow``. A rank that comes late, started by Lightning within the work of rank 0 or
    after it, learns what became of it.

    If the work fails on some ranks and not on others, all processes end: those that go on would
    wait in a collective, for the others, for as long as its time limit is.

    Args:
        name: What it is, the same on all ranks. Its n-th use on one rank is the n-th on the others.

    >>> with Joint("finetune/4f1c") as joint:
    ...     joint.run(lambda: print("done by rank 0"))
    done by rank 0
    """

    def __init__(self, name: str) -> None:
        _times[name] += 1
        self.name = f"{name} {_times[name]}"

    def __enter__(self) -> Joint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        outcome = _DONE if error is None else _reason(error)
        if isinstance(error, BusyError):
            outcome = _BUSY
        broadcast(f"{self.name} begin", outcome)
        broadcast(f"{self.name} end", outcome)

    def run(self, work: Callable[[], object]) -> None:
        """Do the work on rank 0 while the others do it.

        Raises:
            Exception: What the work raised, on all ranks.
        """
        add(f"{self.name} begun", 1)
        broadcast(f"{self.name} begin", _RUN)
        self._attempt(work)

    def of(self, build: Callable[[Path], object]) -> Callable[[Path], None]:
        """Return a build of a folder as ``run`` does it."""
        return lambda folder: self.run(lambda: build(folder))

    def follow(self, work: Callable[[], object]) -> None:
        """Do the work on another rank if rank 0 does it; return when rank 0 is done.

        Raises:
            BusyError: Rank 0 has raised it instead of doing the work.
            RankError: Rank 0 has failed, or is gone.
            Exception: What the work raised, on all ranks.
        """
        receive(f"{self.name} begin")
        # A rank that is counted first either reads that rank 0 has failed, or is waited for.
        add(f"{self.name} begun", 1)
        outcome = receive(f"{self.name} begin")
        if outcome == _RUN:
            self._attempt(work)
            outcome = receive(f"{self.name} end")
        elif outcome not in (_DONE, _BUSY):
            add(f"{self.name} failed", 1)
        if outcome == _BUSY:
            raise BusyError(self.name)
        if outcome != _DONE:
            raise RankError(outcome)

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            if rank() == 0:
                broadcast(f"{self.name} begin", _reason(error))
            if not self._failed_everywhere():
                end_all(f"failed where other ranks did not ({error})")
            raise

    def _failed_everywhere(self) -> bool:
        deadline = time.monotonic() + _GRACE
        failed = add(f"{self.name} failed", 1)
        while failed < add(f"{self.name} begun", 0) and time.monotonic() < deadline:
            time.sleep(0.2)
            failed = add(f"{self.name} failed", 0)
        # A collective also fails because another rank has ended.
        return not ranks.failure() and failed == add(f"{self.name} begun", 0)


def _reason(error: BaseException) -> str:
    return f"rank 0 failed: {str(error) or type(error).__name__}"
