"""What to do where an accelerator's memory does not suffice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


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
