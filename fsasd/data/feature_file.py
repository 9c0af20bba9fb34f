"""Files of features: NumPy's format with a checksum behind it, so that no damaged one is used."""

from __future__ import annotations

import functools
import os
import threading
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

_FOOTER = b"CRC-32 "
"""Stands before the checksum of all that precedes it; readers of ``.npy`` look at neither."""

_CHECKSUM_BYTES = 4
_PREFIX_BYTES = 10
"""Of NumPy's first version: before the header, of which the last two are the length."""

# A header is a Python expression, and Python 3.11 may fail to parse several at a time
# (github.com/python/cpython/issues/106905).
_one_header = threading.Lock()


class DamagedFileError(ValueError):
    """A file does not hold what was written."""


def write_features(path: Path, features: np.ndarray) -> None:
    """Write an array; the file appears when it is complete.

    Raises:
        OSError: It cannot be written.
    """
    header = BytesIO()
    layout = np.lib.format.header_data_from_array_1_0(features)
    np.lib.format.write_array_header_1_0(header, layout)
    values = features.T if layout["fortran_order"] else features
    parts = header.getvalue(), np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    checksum = zlib.crc32(parts[1], zlib.crc32(parts[0]))
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with _opened(partial) as file:
            file.writelines([*parts, _FOOTER + checksum.to_bytes(_CHECKSUM_BYTES, "little")])
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def read_features(path: Path) -> np.ndarray:
    """Return what ``write_features`` wrote, in any number of threads.

    Raises:
        DamagedFileError: The file was cut or altered.
    """
    with path.open("rb") as file:
        content = bytearray(os.fstat(file.fileno()).st_size)
        file.readinto(content)
    size = len(content) - len(_FOOTER) - _CHECKSUM_BYTES
    if size <= 0 or content[size:-_CHECKSUM_BYTES] != _FOOTER:
        raise DamagedFileError("cut short")
    if zlib.crc32(memoryview(content)[:size]) != int.from_bytes(content[-4:], "little"):
        raise DamagedFileError("its checksum is another than that of its content")
    start = _PREFIX_BYTES + int.from_bytes(content[_PREFIX_BYTES - 2 : _PREFIX_BYTES], "little")
    with _one_header:
        shape, by_column, dtype = _header(bytes(content[:start]))
    values = np.frombuffer(content, dtype, (size - start) // dtype.itemsize, start)
    return values.reshape(shape, order="F" if by_column else "C")


@functools.lru_cache(maxsize=256)
def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    # Parsing takes longer than reading, and files of one front end have a few headers in common.
    header = BytesIO(data)
    np.lib.format.read_magic(header)
    return np.lib.format.read_array_header_1_0(header)
