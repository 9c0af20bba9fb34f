"""Threads of this process: how many it has cores for, and how many libraries start beside them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController

from fsasd.runtime.malloc import keep_small_blocks


def cores() -> int:
    """Return how many threads may compute at a time: in a worker of joblib, its share."""
    # Its import would be a fifth of the time of commands that need no threads.
    import joblib

    return joblib.cpu_count()


def thread_pool(name: str) -> ThreadPoolExecutor:
    """Return a pool of a thread for each core.

    Each of them has one OpenMP thread: many small problems are solved faster side by side than one
    by one with all cores. Small blocks that they free are kept for the next problem.

    >>> with thread_pool("squares") as threads:
    ...     list(threads.map(abs, [-1, 2]))
    [1, 2]
    """
    keep_small_blocks()
    return ThreadPoolExecutor(cores(), name, _one_openmp_thread)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Give BLAS one thread, in the whole process, so that it does not compete with a pool's.

    >>> with one_blas_thread():
    ...     {library["num_threads"] for library in _controller().select(user_api="blas").info()}
    {1}
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


def _one_openmp_thread() -> None:
    # OpenMP's limit is that of the calling thread, and ends with it.
    _controller().limit(limits=1, user_api="openmp")


_searched: tuple[int, ThreadpoolController] | None = None


def _controller() -> ThreadpoolController:
    """Return the controller of the libraries that are loaded.

    To search for them takes milliseconds, as long as a small fit: it is done again only when a
    module was imported since, which may have loaded another.
    """
    global _searched
    known = _searched
    if known is None or known[0] != len(sys.modules):
        _searched = known = len(sys.modules), ThreadpoolController()
    return known[1]
