"""The console of a sweep's jobs: what a job writes there goes to its log."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import IO

_root = logging.getLogger()


class JobConsole:
    """Sends what this process, its libraries and its child processes print to a job's log.

    Jobs of a sweep run beside one another: their lines and progress bars would mix, and break
    those of the sweep. Log lines are in the log already, and do not go to the console.

    Args:
        folder: Of the job; its log is the file in it that Hydra logs to, else ``run.log``.
    """

    def __init__(self, folder: Path) -> None:
        log, self._handlers = folder / "run.log", []
        for handler in list(_root.handlers):
            if isinstance(handler, logging.FileHandler):
                file = Path(handler.baseFilename)
                log = file if folder.resolve() in file.resolve().parents else log
            elif isinstance(handler, logging.StreamHandler):
                self._handlers.append(handler)
                _root.removeHandler(handler)
        self._streams: tuple[IO[str], IO[str]] = (sys.stdout, sys.stderr)
        _flush(*self._streams)
        self._saved = os.dup(1), os.dup(2)
        with log.open("ab") as appended:
            os.dup2(appended.fileno(), 1)
            os.dup2(appended.fileno(), 2)
        sys.stdout, sys.stderr = (
            os.fdopen(os.dup(number), "w", 1, encoding="utf-8", errors="backslashreplace")
            for number in (1, 2)
        )

    def close(self) -> None:
        """Give the process its console back."""
        printed = sys.stdout, sys.stderr
        _flush(*printed)
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        sys.stdout, sys.stderr = self._streams
        for stream in printed:
            stream.close()
        for handler in self._handlers:
            _root.addHandler(handler)


def _flush(*streams: IO[str]) -> None:
    for stream in streams:
        stream.flush()


_current: JobConsole | None = None


def redirect(folder: Path) -> None:
    """Send the console of this process to the log of the job that it starts.

    Args:
        folder: Of the job.
    """
    global _current
    restore()
    _current = JobConsole(folder)


def restore() -> None:
    """Give this process its console back, if a job of a sweep has it."""
    global _current
    if _current is not None:
        _current.close()
        _current = None
