"""What the C library keeps of freed memory, instead of returning it to the system.

A block that is returned and requested again has each of its pages set to zero: for arrays of a
megabyte, such as those between a waveform and its log-mel, that takes longer than to compute them.
Only the GNU C library is configured.
"""

from __future__ import annotations

import ctypes
import functools
import platform

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4

_SMALL = 32 << 20
"""Bytes of the largest blocks that are kept; the library's own limit."""

_SOME = 64 << 20
"""Bytes that each thread keeps, at most."""


@functools.cache
def keep_small_blocks() -> None:
    """Keep some freed blocks for the next arrays of their size, once and for all."""
    if (library := _library()) is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _SMALL)
        library.mallopt(_M_TRIM_THRESHOLD, _SOME)


def keep_all_blocks() -> None:
    """Keep all freed blocks, whatever they add up to."""
    # If it came later, it would take the place of this.
    keep_small_blocks()
    if (library := _library()) is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_blocks() -> None:
    """Return to the system what is kept at present."""
    if (library := _library()) is not None:
        library.malloc_trim(0)


@functools.cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
