"""Watching a folder: recordings that are complete, as they appear below it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsasd.data.audio_files import is_recording, printable, recordings_below

log = logging.getLogger(__name__)

SETTLED = 2.0
"""Seconds after which a recording that nobody has closed counts as complete, if it is unchanged."""

POLL = 1.0
"""Seconds between two looks at the folder."""


@dataclass
class _File:
    signature: tuple[int, int, int]
    since: float
    scored: bool


class Watcher:
    """The recordings below a folder, and which of them are complete and not yet scored.

    Those that are there at the start are left alone until they change. A recording that is changed
    later, or replaced by another of its name, is complete once more.

    Args:
        folder: The folder; it may be removed and come back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, _File] = {}
        self._closed: set[Path] = set()
        self._lock = threading.Lock()
        self._gone = False
        for path, signature in self._signatures():
            self._files[path] = _File(signature, 0.0, scored=True)

    def closed(self, path: Path) -> None:
        """Note that a file was closed after writing, or renamed to this path."""
        if is_recording(path):
            with self._lock:
                self._closed.add(path)

    def complete(self, now: float) -> list[Path]:
        """Look at the folder; return recordings that are complete since the last look, sorted.

        Args:
            now: Seconds of a clock that only goes forward.
        """
        with self._lock:
            closed, self._closed = self._closed, set()
        if not self.folder.is_dir():
            if not self._gone:
                log.warning("%s is gone: waiting for it", printable(self.folder))
            self._gone = True
            return []
        self._gone = False
        complete, seen = [], {}
        for path, signature in self._signatures():
            file = self._files.get(path)
            if file is None or file.signature != signature:
                file = _File(signature, now, scored=False)
            if not file.scored and (path in closed or now - file.since >= SETTLED):
                file.scored = True
                complete.append(path)
            seen[path] = file
        self._files = seen
        return complete

    def _signatures(self) -> Iterator[tuple[Path, tuple[int, int, int]]]:
        for path in recordings_below(self.folder):
            try:
                status = path.stat()
            except OSError:
                # Deleted in between, or a link that leads nowhere.
                continue
            yield path, (status.st_mtime_ns, status.st_size, status.st_ino)


def watch(folder: Path, stop: threading.Event | None = None) -> Iterator[list[Path]]:
    """Yield recordings that have become complete below a folder, until ``stop`` is set.

    Complete is what its writer closes or renames into place, where the operating system tells so;
    on other file systems, what has not changed for ``SETTLED`` seconds. The list is empty where
    nothing has happened for ``POLL`` seconds.

    Args:
        folder: The folder.
        stop: Ends it; without, it does not end.

    Raises:
        NotADirectoryError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{printable(folder)}: expected a folder to watch")
    stop = stop or threading.Event()
    watcher, happened = Watcher(folder), threading.Event()
    observer = _observe(folder, watcher, happened)
    try:
        while not stop.is_set():
            happened.wait(POLL)
            happened.clear()
            yield watcher.complete(time.monotonic())
    finally:
        if observer is not None:
            observer.stop()


def _observe(folder: Path, watcher: Watcher, happened: threading.Event) -> Any:
    """Tell a watcher of closed and renamed files, as the operating system tells."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    class Handler(FileSystemEventHandler):
        def on_closed(self, event: FileSystemEvent) -> None:
            self._note(event.src_path)

        def on_moved(self, event: FileSystemEvent) -> None:
            self._note(event.dest_path)

        def _note(self, path: bytes | str) -> None:
            watcher.closed(Path(os.fsdecode(path)))
            happened.set()

    observer = Observer()
    try:
        observer.schedule(Handler(), str(folder), recursive=True)
        observer.start()
    except OSError as error:
        log.warning(
            "%s cannot be observed (%s): recordings are scored %g s after their last change",
            printable(folder), error.strerror or error, SETTLED,
        )  # fmt: skip
        return None
    return observer
