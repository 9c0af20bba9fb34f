"""What a sweep shows while it runs: live on a terminal, elsewhere a line for each ended job."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fsasd.report.formatting import count, duration
from fsasd.report.runs.status import (
    DONE,
    FAILED,
    INCOMPLETE,
    INTERRUPTED,
    NOT_STARTED,
    RUNNING,
    STATES,
    Status,
    Sweep,
    job_folders,
)

_SHOWN = {NOT_STARTED: "waiting"}
_STYLES = {DONE: "green", INCOMPLETE: "yellow", FAILED: "red", INTERRUPTED: "red"}


class SweepProgress:
    """Watches the folders of a sweep's jobs, wherever these run, and shows their states.

    Args:
        folder: The sweep's folder.
        sweep: The sweep.
        stream: Where to show it; by default standard error, as it is now.
        interval: Seconds between two looks.
    """

    def __init__(
        self, folder: Path, sweep: Sweep, stream: IO[str] | None = None, interval: float = 1.0
    ) -> None:
        self.folder, self.sweep, self.interval = folder, sweep, interval
        self._stream = stream or _standard_error()
        self._is_ours = stream is None and self._stream is not sys.stderr
        self._console = Console(file=self._stream, highlight=False, markup=False)
        self._jobs: dict[Path, Status] = {}
        self._reported: dict[Path, str] = {}
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._live: Live | None = None
        self._thread = threading.Thread(target=self._watch, name="sweep-progress", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if self._console.is_terminal:
            # Hydra's lines appear above it.
            self._live = Live(
                self._table(),
                console=self._console,
                auto_refresh=False,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()
        self._thread.start()

    def stop(self) -> None:
        """Look once more, and end."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        self._look()
        if self._live is not None:
            self._live.stop()
        if self._is_ours:
            self._stream.close()

    def _watch(self) -> None:
        pause = self.interval
        while not self._stop.wait(pause):
            began = time.monotonic()
            self._look()
            # On a slow file system with many jobs, looking is a small share of the time.
            pause = max(self.interval, 10 * (time.monotonic() - began))

    def _look(self) -> None:
        try:
            folders = job_folders(self.folder)
        except OSError:
            return
        for folder in folders:
            known = self._jobs.get(folder)
            if known is not None and known.ended:
                continue
            try:
                status = Status.read(folder)
            except (OSError, ValueError):
                # A file system that is away for a moment must not end the sweep.
                continue
            if status is not None and status.sweep == self.sweep.started:
                self._jobs[folder] = status.current()
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            self._report()

    def _report(self) -> None:
        if self._jobs and not self._reported:
            # Not before: what cannot start is refused in one line.
            print(self._where(), file=self._stream, flush=True)
            self._reported[self.folder] = ""
        for folder, status in self._jobs.items():
            if status.state != RUNNING and self._reported.get(folder) != status.state:
                self._reported[folder] = status.state
                place = f"[{len(self._reported) - 1}/{self.sweep.n_jobs}]"
                line = f"{place} {title(status, self.sweep)}: {outcome(status)}"
                print(line, file=self._stream, flush=True)

    def _where(self) -> str:
        jobs = count(self.sweep.n_jobs, "job")
        if self.sweep.jobs is None:
            # Each command that goes on with a search has a folder for its jobs.
            return f"{jobs}; what each prints is in run.log of its folder below {self.folder}"
        return f"{jobs}; what each prints is in {self.folder / '<job>' / 'run.log'}"

    def _table(self) -> Group:
        jobs = list(self._jobs.values())
        states = Counter(status.state for status in jobs)
        states[NOT_STARTED] = max(self.sweep.n_jobs - len(jobs), 0)
        words = [f"{states[s]} {_SHOWN.get(s, s)}" for s in STATES if states[s]]
        elapsed = duration(time.monotonic() - self._begun)
        summary = Text(f"{count(self.sweep.n_jobs, 'job')}: {', '.join(words)}; {elapsed}")
        table = Table(box=None, pad_edge=False, show_header=False)
        order = [RUNNING, FAILED, INTERRUPTED, INCOMPLETE, DONE]
        recent = sorted(jobs, key=lambda job: job.ended, reverse=True)
        shown = sorted(recent, key=lambda job: order.index(job.state))
        room = max(self._console.height - 4, 1)
        for status in shown[:room]:
            text = outcome(status)
            line = Text(text, style=_STYLES.get(status.state, ""), overflow="ellipsis")
            line.no_wrap = True
            table.add_row(Text(title(status, self.sweep), no_wrap=True), line)
        return Group(Text(self._where()), summary, table)


def title(status: Status, sweep: Sweep) -> str:
    """Name a job of a sweep by what distinguishes it from the others.

    Args:
        status: Of the job.
        sweep: Its sweep.

    >>> status = Status.begin("", 3, ["data=factory", "detector=knn", "seed=1"])
    >>> title(status, Sweep("", ["data=factory", "detector=knn,lof", "seed=0,1"], 4, None))
    'detector=knn seed=1'
    >>> jobs = [["plan=True", "detector=knn"], ["plan=True", "detector=lof"]]
    >>> title(Status.begin("", 0, jobs[0]), Sweep("", ["plan=true", "detector=knn,lof"], 2, jobs))
    'detector=knn'
    """
    # Hydra may write a value in another way than the command line.
    of_all = [set(job) for job in sweep.jobs or []]
    given = set(sweep.overrides).union(set.intersection(*of_all) if of_all else ())
    return " ".join(o for o in status.overrides if o not in given) or f"job {status.number}"


def outcome(status: Status) -> str:
    """Describe in a line what became of a job.

    Args:
        status: Of the job.

    >>> outcome(Status.begin("", 0, []).ending("failed", "weights are missing"))
    'failed: weights are missing'
    >>> outcome(Status.begin("", 0, []).ending("done", result="official 71.2 %"))
    'done in 0 s, official 71.2 %'
    """
    if status.state == FAILED:
        return f"failed: {status.reason}"
    if status.state == INTERRUPTED:
        return "interrupted or killed"
    if status.state == RUNNING:
        return f"running for {duration(status.seconds)}"
    text = f"{status.state} in {duration(status.seconds)}"
    if status.reason:
        text += f": {status.reason}"
    return f"{text}, {status.result}" if status.result else text


def _standard_error() -> IO[str]:
    """Return standard error, also while a job in this process has it."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        # A test or a notebook has put something else in its place.
        return sys.stderr
