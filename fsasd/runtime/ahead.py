"""A map in threads that works a few items ahead of whoever takes the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Yield the results of a function, in the order of the items.

    ``Executor.map`` queues all items at once: those of a hundred thousand recordings, with their
    results, until they are taken.

    Args:
        executor: Calls the function.
        function: Item to result.
        items: Are taken as they are needed.
        ahead: Most items that are waiting, worked on, or done and not yet taken.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as threads:
    ...     list(map_ahead(threads, abs, [-3, 1, -2], ahead=2))
    [3, 1, 2]
    """
    queue: deque[Future[R]] = deque()
    for item in items:
        if len(queue) == ahead:
            yield queue.popleft().result()
        queue.append(executor.submit(function, item))
    while queue:
        yield queue.popleft().result()
