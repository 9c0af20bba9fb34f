"""Trainings that are cut: what Ctrl-C and a batch system leave, and where the next one goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch

from fsasd.runtime.ranks import rank

log = logging.getLogger(__name__)

_OF_BATCH_SYSTEM = "hpc_ckpt_*.ckpt"
"""What Lightning writes into its root when SLURM announces the end of the time that it gave."""

_TOGETHER = 10
"""Steps between two times that several processes ask one another whether to stop."""


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule | None,
    folder: Path,
) -> None:
    """Train to the end, from the latest checkpoint on if there is one.

    After Ctrl-C the step at hand is finished and a checkpoint written; a second one ends at once.

    Args:
        trainer: How to train; SLURM's checkpoint is in its root.
        module: What is trained.
        data: With what; by default the module says so itself.
        folder: Gets checkpoints, ``interrupted.ckpt`` among them.

    Raises:
        KeyboardInterrupt: Training was interrupted.
        CheckpointFileError: The latest checkpoint is damaged, or holds more than tensors and
            plain values.
    """
    root = Path(trainer.default_root_dir)
    last = latest_checkpoint(folder, root)
    if last:
        read_checkpoint(last)
        log.info("going on from %s", last)
    stop = _CtrlC(folder / "interrupted.ckpt")
    trainer.callbacks.insert(0, stop)  # type: ignore[attr-defined]
    with stop.listening(), interruptible(trainer), warnings.catch_warnings():
        # To go on is what the folder is for.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        # A data set may be too small to keep clips back for validation.
        warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
    if trainer.is_global_zero:
        stop.path.unlink(missing_ok=True)
        for path in root.glob(_OF_BATCH_SYSTEM):
            path.unlink()


def latest_checkpoint(folder: Path, root: Path) -> Path | None:
    """Return the checkpoint to go on from: of those in a folder, and SLURM's in Lightning's root.

    >>> latest_checkpoint(Path("nowhere"), Path("nowhere")) is None
    True
    """
    names = ("last.ckpt", "interrupted.ckpt")
    found = [folder / name for name in names if (folder / name).exists()]
    found += root.glob(_OF_BATCH_SYSTEM)
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


class CheckpointFileError(ValueError):
    """A file is not a checkpoint that can be read without running code."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of Lightning: tensors and plain values, never code.

    A pickle may run anything when it is read, and a store may be shared: whatever is neither a
    tensor nor a plain value (numbers, texts, lists, mappings) is refused unread.

    Args:
        path: The file.

    Raises:
        CheckpointFileError: The file is damaged, or holds something else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointFileError(
            f"{path}: expected a checkpoint of tensors and plain values, {_found_instead(error)}. "
            "It was not loaded. Delete it, and training begins anew; or force the stage "
            "(force=[...])"
        ) from error
    if not isinstance(found, dict) or "state_dict" not in found:
        raise CheckpointFileError(
            f"{path}: expected a checkpoint of Lightning, found {type(found).__name__} without "
            "'state_dict'. Delete it, and training begins anew"
        )
    return found


def _found_instead(error: Exception) -> str:
    """Return what kept ``torch.load`` from reading a file.

    >>> _found_instead(pickle.UnpicklingError("Unsupported global: GLOBAL os.system was not an"))
    'found os.system, which could run code'
    """
    stranger = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and stranger:
        return f"found {stranger[1]}, which could run code"
    return f"found a damaged file ({str(error).strip().partition(chr(10))[0]})"


@contextlib.contextmanager
def interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Raise a KeyboardInterrupt again, which Lightning turns into an exit."""
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None


class _CtrlC(L.Callback):
    """Ends a training between two steps, with a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._asked = False
        self._process = os.getpid()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        try:
            before = signal.signal(signal.SIGINT, self._ask)
        except ValueError:
            # Only the main thread is told of signals.
            yield
            return
        self._before = before
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, self._before)
        # Other ranks hear it, too, and processes that load examples, still needed for the step.
        if rank() == 0 and os.getpid() == self._process:
            log.warning("stopping after this step; Ctrl-C again stops at once")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if (index + 1) % trainer.accumulate_grad_batches:
            return
        stop = self._asked
        if trainer.world_size > 1:
            if trainer.global_step % _TOGETHER:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            trainer.save_checkpoint(self.path, weights_only=False)
            raise KeyboardInterrupt
