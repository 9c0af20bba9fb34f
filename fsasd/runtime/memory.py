"""Memory of a process: errors of an accelerator's, and what the C library keeps of a CPU's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from fsasd.runtime import malloc


@contextlib.contextmanager
def memory_advice(lower: str) -> Iterator[None]:
    """Replace PyTorch's error for lack of memory by one that names the settings to lower.

    Args:
        lower: The settings that determine how much memory is needed, and their values.

    Raises:
        ValueError: The accelerator is out of memory.

    >>> with memory_advice("batch_size (now 64)"):
    ...     raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    Traceback (most recent call last):
    ValueError: the accelerator's memory does not suffice (CUDA out of memory). Lower batch_size \
(now 64)
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"the accelerator's memory does not suffice ({str(error).partition('. ')[0]}). Lower "
            f"{lower}"
        ) from error


def keep_freed_memory() -> None:
    """Without a GPU, let the C library keep freed blocks for the next training step.

    By default it returns large blocks to the system and requests them again, with each page set to
    zero, which may take half of a step's time. Kept blocks add up to half of the peak
    (docs/explanation/speed.md).
    """
    if not torch.cuda.is_available():
        malloc.keep_all_blocks()


def return_freed_memory() -> None:
    """Return to the system what ``keep_freed_memory`` has kept, at the end of a training.

    The next training needs blocks of other sizes, which would be added to those.
    """
    malloc.return_blocks()
