"""Content of files: SHA-256 of recordings and weights, for which each file is read once.

Features and artifacts are found by content: after a data set was copied, moved or touched, nothing
is computed anew. So that no process reads the files again, hashes are kept in a table under path,
size and time of change.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fsasd.data.audio_files import printable
from fsasd.data.recording import AudioError, require_file
from fsasd.runtime.threads import thread_pool
from fsasd.store.locks import file_lock

log = logging.getLogger(__name__)

TABLE = "content.txt"
"""Rows of: digest of path, size and time; SHA-256 of the content; CRC-32 of both. Rows are only
appended, so that several processes may write at once; a damaged row is ignored."""

_ROW = re.compile(rb"([0-9a-f]{32}) ([0-9a-f]{64}) ([0-9a-f]{8})")

_BATCH = 1000
"""Files that are hashed before their rows are written."""

_TICK = 50_000_000
"""Nanoseconds within which a file may change twice and have one time of change."""

_COARSE_TICK = 2_000_000_000
"""The same on disks that keep times in whole seconds."""


def content_hash(path: str | Path, folder: str | Path | None = None) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Args:
        path: The file.
        folder: Where hashes are kept, such as that of the feature cache. Without one, or where it
            cannot be written, they are kept as long as the process lives.

    Raises:
        FileNotFoundError: The file does not exist.
        AudioError: It is a folder, a pipe or a device, or may not be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.wav")
    >>> _ = path.write_bytes(b"abc")
    >>> content_hash(path)[:16]
    'ba7816bf8f01cfea'
    """
    return content_hashes([path], folder)[0]


def content_hashes(
    paths: Iterable[str | Path], folder: str | Path | None = None, *, strict: bool = True
) -> list[str]:
    """Return the SHA-256 of each file's bytes, several read at a time.

    Args:
        paths: The files.
        folder: As in ``content_hash``.
        strict: Raise for a file that cannot be read; otherwise its hash is ``""``.

    Raises:
        FileNotFoundError, AudioError: As in ``content_hash``.
    """
    table = _table(None if folder is None else Path(folder).absolute())
    return table.hashes([Path(path) for path in paths], strict)


def digest(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts, one a line.

    >>> digest(["a", "b"]) == digest(["b", "a"])
    False
    """
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@functools.cache
def _table(folder: Path | None) -> _HashTable:
    return _HashTable(folder)


class _HashTable:
    """Hashes of files: in memory, and in the table of a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / TABLE
        self._hashes: dict[str, str] = {}
        self._bytes_read = 0

    def hashes(self, paths: Sequence[Path], strict: bool) -> list[str]:
        keys = [_key(path, strict) for path in paths]
        files = {k: p for k, p in zip(keys, paths, strict=True) if k and k not in self._hashes}
        unknown = list(files.items())
        new = {"": ""}
        for first in range(0, len(unknown), _BATCH):
            new |= self._hash(dict(unknown[first : first + _BATCH]), strict)
        return [new[key] if key in new else self._hashes[key] for key in keys]

    def _hash(self, files: Mapping[str, Path], strict: bool) -> dict[str, str]:
        """Hash files that are not known yet, or that another process has hashed meanwhile."""
        with self._turn() if len(files) > 1 else contextlib.nullcontext():
            self._read_rows()
            rest = {key: path for key, path in files.items() if key not in self._hashes}
            read = functools.partial(_sha256, strict=strict)
            if len(rest) > 1:
                with thread_pool("content") as threads:
                    # No more than a batch of them is queued.
                    hashes = dict(zip(rest, threads.map(read, rest.values()), strict=True))
            else:
                hashes = {key: read(path) for key, path in rest.items()}
            lasting = {
                key: hashes[key] for key, path in rest.items() if hashes[key] and _is_settled(path)
            }
            self._append(lasting)
        self._hashes |= lasting
        return hashes

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one process at a time hash many files; the others find its rows."""
        lock = None
        if self._path is not None:
            # Where nothing can be written, each process hashes by itself.
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                lock = file_lock(f"{self._path}.lock")
                lock.acquire()
        try:
            yield
        finally:
            if lock is not None and lock.is_locked:
                lock.release()

    def _read_rows(self) -> None:
        """Read what was appended to the table since it was last read."""
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                file.seek(self._bytes_read)
                text = file.read()
        except OSError:
            return
        # A row that is being written is read when it is complete.
        whole = text[: text.rfind(b"\n") + 1]
        self._bytes_read += len(whole)
        for line in whole.splitlines():
            row = _ROW.fullmatch(line)
            if row and int(row[3], 16) == zlib.crc32(line[:-9]):
                self._hashes[row[1].decode()] = row[2].decode()

    def _append(self, hashes: Mapping[str, str]) -> None:
        if self._path is None or not hashes:
            return
        rows = b"".join(_row(key, sha256) for key, sha256 in hashes.items())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(rows)
        except OSError as error:
            log.debug("%s: hashes are not kept (%s)", self._path, error.strerror)


def _key(path: Path, strict: bool) -> str:
    """Return the digest of path, size and time of change, under which a file's hash is kept."""
    try:
        require_file(path)
        stat = path.stat()
    except (AudioError, OSError):
        if strict:
            raise
        return ""
    text = f"{_real_path(path)}|{stat.st_size}|{stat.st_mtime_ns}"
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def _real_path(path: Path) -> str:
    if path.is_symlink():
        return os.path.realpath(path)
    folder = path.parent
    status = folder.stat()
    return _real_folder(str(folder), status.st_dev, status.st_ino) + path.name


@functools.lru_cache(maxsize=4096)
def _real_folder(folder: str, device: int, inode: int) -> str:
    """Resolve links once for all files of a folder, as long as it is the same one."""
    return os.path.realpath(folder).rstrip(os.sep) + os.sep


def _is_settled(path: Path) -> bool:
    """Tell whether a further change of a file will show in its time."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return False
    tick = _TICK if changed % 10**9 else _COARSE_TICK
    return abs(time.time_ns() - changed) > tick


def _sha256(path: Path, strict: bool) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if strict:
            name = printable(path)
            raise AudioError(f"{name}: cannot be read: {error.strerror}") from error
        return ""


def _row(key: str, sha256: str) -> bytes:
    text = f"{key} {sha256}".encode()
    return b"%s %08x\n" % (text, zlib.crc32(text))
