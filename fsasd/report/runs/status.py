"""The state of a sweep's jobs: small files, which the jobs write and every process may read.

A sweep lists its jobs in ``sweep.json`` of its folder before the first one starts. A job keeps its
state in ``status.json`` of its own folder, on whatever machine it runs. So a job that never started
and one whose process was killed are known as such, also when the sweep's process is gone.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from fsasd.settings.files import fields_of, read_json
from fsasd.store.atomic import write_text
from fsasd.store.registry import RUNS

STATUS = "status.json"
"""Name of the file in a job's folder that holds its state."""

SWEEP = "sweep.json"
"""Name of the file in a sweep's folder that lists its jobs."""

NOT_STARTED, RUNNING, DONE, INCOMPLETE, FAILED, INTERRUPTED = (
    "not started", "running", "done", "incomplete", "failed", "interrupted",
)  # fmt: skip
STATES = (DONE, INCOMPLETE, FAILED, INTERRUPTED, RUNNING, NOT_STARTED)
"""``incomplete``: done, without some sections or recordings. ``interrupted``: its process ended or
was killed before it had a result."""

_MOST_JOBS = 1_000_000
_PROCESS = re.compile(r"\d{1,9}( \w+)?")


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep.

    Attributes:
        started: When it began, UTC in ISO 8601; jobs refer to it by this.
        overrides: The command line of the sweep.
        n_jobs: Number of its jobs; of a search, that of its trials.
        jobs: Command line of each job, where these are known before they start.
    """

    started: str
    overrides: list[str]
    n_jobs: int
    jobs: list[list[str]] | None

    def __post_init__(self) -> None:
        jobs = self.n_jobs if self.jobs is None else len(self.jobs)
        if not 0 <= self.n_jobs == jobs <= _MOST_JOBS:
            raise ValueError(f"n_jobs: expected the number of its jobs, found {self.n_jobs}")

    def write(self, folder: Path) -> None:
        """Write ``sweep.json`` into the sweep's folder."""
        _write(folder / SWEEP, self)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read ``sweep.json`` of a folder; ``None`` without one."""
        return _read(cls, folder / SWEEP)


@dataclass(frozen=True)
class Status:
    """The state of one job of a sweep.

    Attributes:
        sweep: ``Sweep.started`` of its sweep.
        number: Of the job, from 0.
        overrides: The command line of the job.
        state: One of ``STATES``.
        started: When the job began, UTC in ISO 8601.
        host: Name of the machine that it runs on.
        process: Its process, as ``process_id`` names it.
        ended: When it ended; empty while it runs.
        reason: Why it failed, in one line.
        result: Its score or loss in words; empty where it has none.
    """

    sweep: str
    number: int
    overrides: list[str]
    state: str
    started: str
    host: str
    process: str
    ended: str = ""
    reason: str = ""
    result: str = ""

    def __post_init__(self) -> None:
        for name, text in (("started", self.started), ("ended", self.ended or self.started)):
            try:
                has_zone = datetime.fromisoformat(text).tzinfo is not None
            except ValueError:
                has_zone = False
            if not has_zone:
                raise ValueError(
                    f"{name}: expected a time in ISO 8601 with its zone, found {text!r}"
                )
        if not _PROCESS.fullmatch(self.process):
            raise ValueError(f"process: expected its number, found {self.process!r}")

    @classmethod
    def begin(cls, sweep: str, number: int, overrides: Sequence[str]) -> Self:
        """Return the status of a job that this process starts now."""
        return cls(
            sweep, number, list(overrides), RUNNING, now(), socket.gethostname(), process_id()
        )

    def ending(self, state: str, reason: str = "", result: str = "") -> Self:
        """Return the status of the job when it ends, now."""
        return replace(self, state=state, reason=reason, result=result, ended=now())

    @property
    def seconds(self) -> float:
        """How long it has run; 0 where the clock was put back meanwhile."""
        end = datetime.fromisoformat(self.ended) if self.ended else datetime.now(UTC)
        return max((end - datetime.fromisoformat(self.started)).total_seconds(), 0.0)

    def current(self) -> Self:
        """Return it as interrupted if it says that it runs, and its process is gone.

        That of another machine is believed.
        """
        alive = self.host != socket.gethostname() or is_alive(self.process)
        return self if self.state != RUNNING or alive else replace(self, state=INTERRUPTED)

    def write(self, folder: Path) -> None:
        """Write ``status.json`` into the job's folder."""
        _write(folder / STATUS, self)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read ``status.json`` of a folder; ``None`` without one."""
        return _read(cls, folder / STATUS)


def job_folders(folder: Path) -> list[Path]:
    """Return the folders of runs that lie below a folder, or the folder itself, in their order.

    A folder is a run's if it holds the configuration that Hydra wrote; no run lies within another.

    Args:
        folder: Of a run, of a sweep, or of several.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    return sorted(_runs(folder), key=lambda run: [(len(p), p) for p in run.parts])


def _runs(folder: Path) -> Iterator[Path]:
    if (folder / ".hydra").is_dir() or (folder / STATUS).is_file():
        yield folder
        return
    with os.scandir(folder) as entries:
        below = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in below:
        # The store may lie beside the runs, and holds far more folders than they.
        is_store = next((path / RUNS).glob("*.jsonl"), None) is not None
        if not path.name.startswith(".") and not is_store:
            yield from _runs(path)


def jobs_of(folder: Path, sweep: Sweep) -> dict[int, tuple[Path, Status]]:
    """Return folder and status of each job of a sweep that has started, by its number.

    Folders of an earlier sweep in the same place are not among them.

    Args:
        folder: The sweep's folder.
        sweep: The sweep.
    """
    read = ((path, Status.read(path)) for path in job_folders(folder))
    return {
        status.number: (path, status.current())
        for path, status in read
        if status is not None and status.sweep == sweep.started
    }


def now() -> str:
    """Return the time, UTC in ISO 8601."""
    return datetime.now(UTC).isoformat()


def process_id(pid: int | None = None) -> str:
    """Name a process of this machine by its number and, where the system tells, when it started.

    Args:
        pid: Its number; this process by default.

    >>> is_alive(process_id())
    True
    """
    pid = os.getpid() if pid is None else pid
    state, started = _stat(pid)
    return f"{pid} {started}".strip() if state != "Z" else f"{pid} ended"


def is_alive(process: str) -> bool:
    """Return whether a process of this machine runs; another with its number is not it.

    Args:
        process: As ``process_id`` names it.

    >>> is_alive(f"{os.getpid()} 1"), is_alive("4194305")
    (False, False)
    """
    pid = int(process.split()[0])
    try:
        # Signal 0 only asks.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process_id(pid) == process


def _stat(pid: int) -> tuple[str, str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    values = text.rpartition(")")[2].split()
    return values[0], values[19]


def _write(path: Path, record: Any) -> None:
    write_text(path, json.dumps(asdict(record), indent=2) + "\n")


def _read(kind: type[Any], path: Path) -> Any:
    try:
        read = read_json(path)
        return fields_of(kind, {f.name: read[f.name] for f in fields(kind) if f.name in read})
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{path}: expected the state that fsasd wrote: {error}. Remove it"
        ) from error
