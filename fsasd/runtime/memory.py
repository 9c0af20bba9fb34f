"""Memory: what a process keeps of it, and what to do where an accelerator's does not suffice."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

import torch

# Of the GNU C library's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


@contextlib.contextmanager
def memory_advice(lower: str) -> Iterator[None]:
    """Say what to lower in the place of PyTorch's error.

    Args:
        lower: The settings that what is done here needs its memory for, and their values.

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
    """Where a CPU trains, let the C library keep what one step frees for the next.

    It gives large blocks back to the system and gets them anew, each page set to zero: up to half
    of the time of a step and more. What it keeps is up to half of the peak more (docs/speed.md).
    Other C libraries than GNU's are left as they are.
    """
    if platform.libc_ver()[0] == "glibc" and not torch.cuda.is_available():
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_memory() -> None:
    """Give the system what ``keep_freed_memory`` had kept: to be called when a training is done.

    The next one divides it otherwise, and would be kept beside it.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
