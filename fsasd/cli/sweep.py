"""A sweep's jobs: their states while they run, and their comparison at the end.

Hydra imports this at the start of every run: what only a sweep needs is imported where it is used.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fsasd.cli import job_console
from fsasd.cli.failures import ending_the_command, is_expected, reason
from fsasd.cli.launching import is_grid, join_cluster
from fsasd.cli.resolvers import command_started
from fsasd.report.runs.status import (
    DONE,
    FAILED,
    INCOMPLETE,
    INTERRUPTED,
    NOT_STARTED,
    RUNNING,
    SWEEP,
    Status,
    Sweep,
    jobs_of,
    process_id,
)
from fsasd.runtime.clusters import leave_cluster
from fsasd.runtime.ranks import rank
from fsasd.store.atomic import replacing

log = logging.getLogger(__name__)

TABLE = "sweep.csv"


class Comparison(Callback):
    """Follows the jobs of a sweep, and compares them when it ends, also where some have failed.

    Jobs keep their state in their folders, whatever launcher starts them, and wherever; the process
    of the sweep reads it there. Where jobs fail, a sweep of Hydra's own sweeper goes on, and its
    exit code is 1; it is 3 where results lack sections or recordings.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """List the jobs, show their states from now on, and compare them at the end.

        Hydra calls nothing after a launcher that failed, so that the end is that of the process.
        """
        # Jobs copy what these are now; a launcher's processes may inherit no variables.
        folder = Path(config.hydra.sweep.dir)
        OmegaConf.to_container(config.hydra.job.env_set, resolve=True)
        # Other ranks run the sweep, too, and end before rank 0 has detected.
        if rank() > 0:
            return
        with ending_the_command("the sweep could not begin"):
            folder.mkdir(parents=True, exist_ok=True)
            _running.append(_RunningSweep(folder.resolve(), _sweep(config)))
            atexit.register(_end)
            try:
                join_cluster(config.hydra)
            except Exception:
                withdraw()
                raise

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the jobs, and end with the exit code of what they lack.

        Raises:
            SystemExit: Jobs failed, never ran, or lack something, or they cannot be compared.
        """
        with ending_the_command("the jobs could not be compared"):
            if (code := _end()) > 0:
                sys.exit(code)

    def on_job_start(
        self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any
    ) -> None:
        """Note that this process runs a job, whose console goes to its log."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        # Hydra sets them anew, which is as it was only where the job inherits from the command.
        os.environ.update({name: str(value) for name, value in config.hydra.job.env_set.items()})
        folder = Path(config.hydra.runtime.output_dir)
        job_console.redirect(folder)
        if rank() == 0:
            overrides = list(config.hydra.overrides.task)
            Status.begin(command_started(), config.hydra.job.num, overrides).write(folder)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note what became of a job, and why it failed."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        try:
            if rank() == 0:
                folder = Path(config.hydra.runtime.output_dir)
                status = Status.read(folder)
                assert status is not None
                _ended(status, folder, job_return, config.get("objective")).write(folder)
            if job_return.status == JobStatus.FAILED and is_grid(config.hydra):
                # Hydra would end the sweep with the first job that failed, and print it again.
                job_return.status, job_return.return_value = JobStatus.COMPLETED, math.nan
        finally:
            job_console.restore()


def note_interruption(folder: Path) -> None:
    """Note that the job of a sweep that this process runs, if it runs one, ends without a result.

    Hydra calls nothing when a job ends its process.

    Args:
        folder: Of the job.
    """
    status = Status.read(folder) if rank() == 0 else None
    if status is not None and status.state == RUNNING and status.process == process_id():
        status.ending(INTERRUPTED).write(folder)


def withdraw() -> None:
    """Take the list of the sweep's jobs back, where it is refused before the first began.

    An earlier sweep's list in the same folder is there again: its jobs may yet be completed.
    """
    if _running and not jobs_of(_running[-1].folder, _running[-1].sweep):
        _running.pop().withdraw()


class _RunningSweep:
    """A sweep of this process."""

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        # While a process ends, some modules can no longer be imported.
        from fsasd.cli.sweep_progress import SweepProgress
        from fsasd.report.runs import comparison, console  # noqa: F401

        self.folder, self.sweep = folder, sweep
        self._list = folder / SWEEP
        self._replaced = self._list.read_bytes() if self._list.is_file() else None
        sweep.write(folder)
        self.progress = SweepProgress(folder, sweep)
        self.progress.start()

    def withdraw(self) -> None:
        """End it as if it had not begun."""
        self.progress.stop()
        leave_cluster()
        if self._replaced is None:
            self._list.unlink()
        else:
            with replacing(self._list) as unfinished:
                unfinished.write_bytes(self._replaced)

    def end(self) -> int:
        """Compare the jobs, and return the exit code that they lead to."""
        self.progress.stop()
        return compare(self.folder)


_running: list[_RunningSweep] = []
"""The sweep of this process; Hydra pickles its callbacks, so they cannot hold it."""


def _end() -> int:
    # A job that was interrupted has not given the console back.
    job_console.restore()
    leave_cluster()
    return _running.pop().end() if _running else 0


def _sweep(config: DictConfig) -> Sweep:
    """List the jobs of a sweep; of a search, only their number is known before they start."""
    overrides = list(config.hydra.overrides.task)
    jobs = None
    if is_grid(config.hydra):
        params = OmegaConf.to_container(config.hydra.sweeper.params or OmegaConf.create({}))
        assert isinstance(params, dict)
        named = [f"{name!s}={value}" for name, value in params.items()]
        parsed = OverridesParser.create().parse_overrides([*named, *overrides])
        batches = BasicSweeper.split_arguments(parsed, None)
        jobs = [list(job) for batch in batches for job in batch]
    n_jobs = len(jobs) if jobs is not None else int(config.hydra.sweeper.get("n_trials") or 0)
    return Sweep(command_started(), overrides, n_jobs, jobs)


def _ended(status: Status, folder: Path, job_return: JobReturn, objective: str | None) -> Status:
    if job_return.status == JobStatus.FAILED:
        error = job_return._return_value
        shown = None if is_expected(error) and not os.environ.get("HYDRA_FULL_ERROR") else error
        log.error("the job failed: %s", reason(error), exc_info=shown)
        return status.ending(FAILED, reason(error))
    from fsasd.pipeline.run_folder import UNREADABLE
    from fsasd.report.results import FAILED as SECTIONS

    missing = [name for name in (SECTIONS, UNREADABLE) if (folder / name).is_file()]
    if missing:
        return status.ending(INCOMPLETE, f"see {' and '.join(missing)}", _result(folder, objective))
    return status.ending(DONE, result=_result(folder, objective))


def _result(folder: Path, optimised: str | None) -> str:
    """Return in words what a job is ranked by: the objective, official score or loss."""
    from fsasd.report.formatting import decimal, percent
    from fsasd.report.headline import headline
    from fsasd.report.objective import DIRECTIONS, objective
    from fsasd.report.results import Results
    from fsasd.report.runs.finetuning import finetuned

    if optimised and not math.isnan(value := objective(optimised, folder)):
        is_loss = DIRECTIONS[optimised] == "minimize"
        return f"{optimised} {decimal(value) if is_loss else f'{percent(value)} %'}"
    official = headline(Results(folder))
    if official is not None and not math.isnan(official.score):
        return f"official {percent(official.score)} %"
    loss = finetuned(folder).get("val_loss")
    return "" if loss is None else f"val/loss {decimal(loss)}"


def compare(folder: Path) -> int:
    """Print the jobs of a sweep, the best first, and write ``sweep.csv``; list those that failed.

    Jobs that differ only in their seed are one row. The trials of a search are ranked by their
    objective.

    Args:
        folder: The sweep's folder.

    Returns:
        The exit code: 1 where a job has no result, 3 where results lack something, else 0.
    """
    from fsasd.report.runs.comparison import compare_runs
    from fsasd.report.runs.console import print_comparison, print_missing

    comparison = compare_runs(folder)
    if comparison.is_scored or comparison.is_finetuned:
        comparison.jobs.to_csv(folder / TABLE, index=False)
        print_comparison(comparison, f"The sweep, {comparison.order}")
        print(f"{'sweep:':<16} {folder / TABLE}")
    sys.stdout.flush()
    print_missing(comparison)
    states = set(comparison.jobs["state"])
    if states & {INTERRUPTED, RUNNING, NOT_STARTED} and states != {NOT_STARTED}:
        print("The same command goes on from what the store holds.", file=sys.stderr)
    return comparison.exit_code
