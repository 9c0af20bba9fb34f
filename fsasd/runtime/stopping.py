"""Callbacks by which a run of Lightning's trainer ends early: signals, and a limit of time."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from fsasd.runtime.ranks import leave, rank
from fsasd.runtime.signals import ENDING, REQUEUE, stop

log = logging.getLogger(__name__)

_STEPS_BETWEEN_CHECKS = 10
"""Steps after which several processes check whether one of them is to stop."""

_TIME = 0
_REASONS: tuple[int, ...] = (
    _TIME,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Why a training stops: of those that several processes have, the last. What puts the job into the
queue again (``REQUEUE``, submitit's SIGUSR2) comes before what SLURM sends after it."""


class OwnSignals(L.Callback):
    """Keeps the handlers of signals that there were before a trainer's run.

    Lightning adds its own for SIGTERM, which begins a collective wherever a rank just is, and ends
    the training without a checkpoint.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._handlers = {n: h for n in (*ENDING, REQUEUE) if callable(h := signal.getsignal(n))}

    def on_sanity_check_start(self, *_: Any) -> None:
        self._restore()

    def on_train_start(self, *_: Any) -> None:
        self._restore()

    def on_predict_start(self, *_: Any) -> None:
        self._restore()

    def _restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                signal.signal(number, handler)


class StopAfterStep(L.Callback):
    """Ends training after the step at hand, with a checkpoint.

    A signal is handled as it was before, once the checkpoint is written: Ctrl-C and SIGTERM raise
    an exception, SLURM's and submitit's put the job into the queue again; where the handler does
    not end the process, training goes on. A second Ctrl-C stops at once. Any other signal that
    comes twice changes nothing, since launchers and batch systems send some twice.

    Args:
        path: Of the checkpoint.
        seconds: Time from the beginning of this training, or its resumption, to its end.

    Raises:
        TimeoutError: The time is over before the last step.
    """

    def __init__(self, path: Path, seconds: float | None = None) -> None:
        self.path = path
        self._seconds = seconds
        self._begin = time.monotonic()
        self._trains = False
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Receive signals that somebody handles, and those that end a process, in a context.

        Processes that load examples inherit the handler.
        """
        if threading.current_thread() is threading.main_thread():
            for number in _REASONS[1:]:
                handler = signal.getsignal(number)
                if callable(handler) or (number in ENDING and handler == signal.SIG_DFL):
                    self._before[number] = handler
                    signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        if self._received is not None:
            # In the last step.
            self._as_before(self._received)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin = time.monotonic()
        self._trains = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trains = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        # The gradients of a step are not divided. From a checkpoint of an epoch's last batch,
        # Lightning 2.6 would count the next epoch as that one: training ends with the epoch.
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if (index + 1) % trainer.accumulate_grad_batches or progress.is_last_batch:
            return
        if trainer.world_size == 1 or trainer.global_step % _STEPS_BETWEEN_CHECKS == 0:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch + 1 != trainer.max_epochs:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        over = self._seconds is not None and time.monotonic() - self._begin >= self._seconds
        reason = self._received if self._received is not None else _TIME if over else None
        reason = reason if trainer.world_size == 1 else _agreed(trainer, reason)
        # After the last step, only the end is left to do.
        if reason is None or (reason == _TIME and trainer.global_step == trainer.max_steps):
            return
        self._stop(trainer, reason)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A process that loads examples is needed for this step. A second signal ends it.
            default = number == signal.SIGINT
            signal.signal(number, self._before[number] if default else signal.SIG_DFL)
            return
        if not self._trains:
            # There is no step to finish.
            self._as_before(number)
            return
        again = self._received is not None
        if again and number == signal.SIGINT:
            self._as_before(number)
            return
        if not again or _REASONS.index(number) > _REASONS.index(self._received):
            self._received = number
        if rank() == 0 and not again:
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            log.warning("%s: stopping after this step; Ctrl-C stops at once", name)

    def _stop(self, trainer: L.Trainer, reason: int) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        if rank() == 0:
            log.warning("a checkpoint of step %d was written: %s", trainer.global_step, self.path)
        if reason == _TIME:
            raise TimeoutError(
                f"trainer.max_time: {timedelta(seconds=int(self._seconds or 0))} are over, after "
                f"step {trainer.global_step}: the same command goes on from there"
            )
        error: BaseException | None = None
        if trainer.is_global_zero:
            try:
                self._as_before(reason)
            except BaseException as raised:
                error = raised
        ends = trainer.strategy.broadcast(error is not None)
        if ends:
            # All end by themselves, some later than others: neither fsasd nor Lightning, which
            # watches the processes that it started, is to end those for the sake of the others.
            leave()
            getattr(trainer.strategy.launcher, "procs", []).clear()
        if error is not None:
            raise error
        if ends:
            stop(reason)
        self._received = None

    def _as_before(self, number: int) -> None:
        handler = self._before.get(number)
        if callable(handler):
            handler(number, None)
        else:
            stop(number)


def take_time_limit(trainer: L.Trainer) -> float | None:
    """Remove Lightning's timers of a trainer (``max_time``); return the least of their seconds.

    They would let a training end as if it were whole, and count the time of all of its resumptions.
    """
    timers = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
    trainer.callbacks = [one for one in trainer.callbacks if one not in timers]  # type: ignore[attr-defined]
    limits = (timer.time_remaining() for timer in timers)
    return min((limit for limit in limits if limit is not None), default=None)


def _agreed(trainer: L.Trainer, reason: int | None) -> int | None:
    """Return the last of all processes' reasons."""
    place = -1 if reason is None else _REASONS.index(reason)
    places = torch.tensor(place, device=trainer.strategy.root_device)
    last = int(trainer.strategy.reduce(places, reduce_op="max"))
    return None if last < 0 else int(_REASONS[last])
