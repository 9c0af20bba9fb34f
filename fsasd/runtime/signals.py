"""Signals that end a run: SIGTERM and SIGHUP raise an exception as Ctrl-C does; SLURM's requeues.

What a stage saves on Ctrl-C it saves on each of them, and ``store.build`` leaves its folder for the
next run. A signal that somebody ignores (``nohup``), or handles (submitit, workers of Ray), stays
theirs.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from fsasd.runtime.ranks import leave_and_end_others, rank

log = logging.getLogger(__name__)

ENDING = (signal.SIGHUP, signal.SIGTERM)
"""A closed terminal; the end that batch systems, containers and ``kill`` ask for."""

REQUEUE = signal.SIGUSR1
"""What SLURM is asked to send before the end of a job's time (``#SBATCH --signal=USR1@90``)."""


class Stopped(KeyboardInterrupt):
    """A run was ended by a signal.

    Args:
        number: Of the signal.

    >>> str(Stopped(signal.SIGTERM)), exit_code(Stopped(signal.SIGTERM))
    ('SIGTERM', 143)
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)

    def __str__(self) -> str:
        return self.number.name


def exit_code(error: KeyboardInterrupt) -> int:
    """Return the exit code of a process that ends by a signal: 128 and its number.

    >>> exit_code(KeyboardInterrupt())
    130
    """
    return 128 + getattr(error, "number", signal.SIGINT)


_stopped: Stopped | None = None


def first_raised(error: KeyboardInterrupt) -> KeyboardInterrupt:
    """Return what a signal has raised, where a library raises ``KeyboardInterrupt`` for it.

    Ray does so, whatever interrupts it.

    Args:
        error: As it arrives.
    """
    return _stopped or error


def raise_on_signals() -> None:
    """Let ``ENDING`` raise ``Stopped`` in the main thread; in a job of SLURM, ``REQUEUE``, too.

    There the job is put into the queue again first; where that fails, the run goes on.
    """
    global _stopped
    _stopped = None
    _handle(ENDING, stop)
    if "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in _INTERACTIVE:
        _handle((REQUEUE,), _requeue_and_stop)


def ignore_signals() -> None:
    """Let ``ENDING`` do nothing more: this process is about to end.

    Launchers and batch systems send a signal more than once.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)


def stop(number: int, frame: FrameType | None = None) -> None:
    """Raise ``Stopped``; a handler of signals."""
    global _stopped
    _stopped = Stopped(number)
    raise _stopped


def end_interrupted(error: KeyboardInterrupt, store: str) -> NoReturn:
    """End this process, and all ranks, because of a signal: 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        error: By which the run ended.
        store: Where its artifacts are.
    """
    ignore_signals()
    error = first_raised(error)
    name = str(error) or "Ctrl-C"
    if rank() == 0:
        log.error("ended by %s: the same command goes on from what %s holds", name, store)
    leave_and_end_others(f"ended by {name}", exit_code(error))
    sys.exit(exit_code(error))


_INTERACTIVE = ("bash", "interactive")
"""Names of SLURM's jobs that are somebody's terminal."""

_Handler = Callable[[int, FrameType | None], Any]


def _handle(numbers: tuple[signal.Signals, ...], handler: _Handler) -> None:
    """Handle signals that end the process by default, in this process only."""
    if threading.current_thread() is not threading.main_thread():
        return
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            handler(number, frame)
            return
        # A process that was forked, such as one that loads examples, has nothing to save.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in numbers:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, handle)


def _requeue_and_stop(number: int, frame: FrameType | None) -> None:
    """Put this job of SLURM into the queue again; the first of its tasks does it for all.

    Lightning's own handler saves a checkpoint in the middle of a step, on each rank in another one.
    """
    if int(os.environ.get("SLURM_PROCID") or 0) > 0:
        return
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    else:
        job = os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("job %s could not be queued anew, and goes on: %s", job, error)
        return
    log.warning("job %s was queued anew", job)
    stop(number)
