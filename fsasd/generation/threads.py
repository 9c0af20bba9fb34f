"""Results that are the same, bit by bit, on any number of CPU threads.

Kernels choose the order of their sums by the number of threads. So a batch is generated in small
chunks of one thread each, as many at a time as there are threads, which is also faster than to
share the layers of a small model among threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 4
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


def map_in_chunks(
    function: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T], size: int = CHUNK
) -> list[R]:
    """Apply a function to chunks of the items, each on one CPU thread, several at a time.

    Args:
        function: Maps a chunk to as many results; is called without gradients.
        items: What it is applied to.
        size: Items per chunk.

    >>> map_in_chunks(lambda chunk: [2 * item for item in chunk], range(7))
    [0, 2, 4, 6, 8, 10, 12]
    """
    threads = torch.get_num_threads()
    # All of these are a thread's own.
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def work(chunk: Sequence[T]) -> Sequence[R]:
        torch.set_num_threads(1)
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
            return function(chunk)

    chunks = [items[i : i + size] for i in range(0, len(items), size)]
    try:
        with ThreadPoolExecutor(threads, "generate") as pool:
            return [result for chunk in pool.map(work, chunks) for result in chunk]
    finally:
        torch.set_num_threads(threads)
