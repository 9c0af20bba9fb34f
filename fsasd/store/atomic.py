"""Files that are either whole or not there, whenever a process is killed or a disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"
"""Ending of files that are being written, or that a killed process left."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to, which takes the place of another when the block ends.

    Nothing is left of a block that fails. Threads and processes may write the same file at once:
    the last one remains.

    Args:
        path: Of the file; its folder exists.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "settings.csv"
    >>> with replacing(path) as unfinished:
    ...     _ = unfinished.write_text("r,auc")
    >>> path.read_text()
    'r,auc'
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{UNFINISHED}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file that is whole even after a power failure.

    Args:
        path: Of the file, which is replaced.
        text: Its content, written as UTF-8.
    """
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_folder(new: Path, path: Path) -> None:
    """Give a folder the place of another, if there is one, which is deleted.

    Args:
        new: The folder, beside ``path``.
        path: Its new path. Whoever is killed here leaves what was there as ``<path>.replaced``.
    """
    replaced = path.with_name(f"{path.name}.replaced")
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    new.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def is_read_only(error: OSError) -> bool:
    """Return whether an error says that a file or its file system cannot be written.

    >>> is_read_only(PermissionError(errno.EACCES, "Permission denied"))
    True
    """
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
