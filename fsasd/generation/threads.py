"""The same bits whatever number of CPU threads computes them.

Kernels choose the order of their sums by the number of threads, too. So a batch is generated in
small pieces of one thread each, as many at a time as there are threads: also faster than to share
the small layers of a small model among threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

PIECE = 4
"""Prompts that a CPU thread generates together."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_pieces(
    function: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T], size: int = PIECE
) -> list[R]:
    """Apply a function to pieces of the items, each on one CPU thread, several at a time.

    Args:
        function: Maps a piece to as many results; is called without gradients.
        items: What it is applied to.
        size: Items per piece.

    >>> in_pieces(lambda piece: [2 * item for item in piece], range(7))
    [0, 2, 4, 6, 8, 10, 12]
    """
    threads = torch.get_num_threads()
    # All of these are a thread's own.
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def work(piece: Sequence[T]) -> Sequence[R]:
        torch.set_num_threads(1)
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
            return function(piece)

    pieces = [items[i : i + size] for i in range(0, len(items), size)]
    try:
        with ThreadPoolExecutor(threads, "generate") as pool:
            return [result for piece in pool.map(work, pieces) for result in piece]
    finally:
        torch.set_num_threads(threads)
