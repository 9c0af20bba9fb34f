"""Files that settings name, and what shows that one of them has changed: size, times, inode."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fsasd.settings.spec import weight_files

_SETTLED = 2_000_000_000
"""Nanoseconds after which a further change of a file shows in its times, on any disk."""

_PATHLESS = frozenset({"store", "cache"})
"""Settings that say where results are kept, not what is read."""

Stats = dict[str, list[int]]
"""Path to size, nanoseconds of the last change of content and of anything, inode."""


def stats(paths: Iterable[str]) -> Stats:
    """Return what shows that a file has changed; of one that is not there, nothing.

    >>> list(stats([__file__, "no such file"])) == [__file__]
    True
    """
    files: Stats = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            files[path] = _stat(Path(path).stat())
    return files


def _stat(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def named_files(settings: Mapping[str, Any], store: Path) -> Stats:
    """Return the files that settings name: all below those of the data, weights elsewhere."""
    files: Stats = {}
    for text in _texts(settings.get("data")):
        if _is_file_name(text):
            files |= _below(Path(text).absolute(), store)
    others = {name: value for name, value in settings.items() if name != "data"}
    for text in _texts(others):
        files |= stats(str(path.absolute()) for path in weight_files(text))
    return dict(sorted(files.items()))


def _texts(settings: Any) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, Mapping):
        for name, value in settings.items():
            if name not in _PATHLESS:
                yield from _texts(value)
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            yield from _texts(value)


def _is_file_name(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):
        # A sentence, for instance, may be too long for a name.
        return False


def _below(path: Path, store: Path) -> Stats:
    """Return a file, or all files below a folder, those of the store excepted.

    Of a folder that may not be listed (``lost+found``) it is the folder itself: were that to
    change, its times would show it.

    Raises:
        OSError: A folder has gone meanwhile, or its disk cannot be read.
    """
    if not path.is_dir():
        return stats([str(path)])
    files: Stats = {}
    seen: set[tuple[int, int]] = set()
    waiting = [str(path)]
    while waiting:
        folder = waiting.pop()
        status = Path(folder).stat()
        # A link may lead back to a folder above it.
        if (status.st_dev, status.st_ino) in seen or os.path.realpath(folder) == str(store):
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            with os.scandir(folder) as listed:
                entries = list(listed)
        except PermissionError:
            files[folder] = _stat(status)
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    files[entry.path] = _stat(entry.stat())
    return files


def are_settled(files: Stats) -> bool:
    """Return whether a change of a file after this moment will show in its times."""
    limit = time.time_ns() - _SETTLED
    return all(max(changed, altered) < limit for _, changed, altered, _ in files.values())


def holds(files: Stats, folder: Path) -> bool:
    """Return whether the run's own folder is among the data: no two runs are equal there."""
    return any(Path(path).is_relative_to(folder.absolute()) for path in files)
