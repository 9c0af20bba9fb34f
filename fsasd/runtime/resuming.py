"""Training with interruptions: checkpoints on Ctrl-C and of SLURM, and resuming from the latest."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import signal
import traceback
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
"""What Lightning writes into its root when SLURM announces the end of a job's time."""

_STEPS_BETWEEN_CHECKS = 10
"""Steps after which several processes check whether one of them was interrupted."""


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule | None,
    folder: Path,
) -> None:
    """Train to the end, resuming from the latest checkpoint if there is one.

    On Ctrl-C the current step is finished and a checkpoint written; a second Ctrl-C ends at once.

    Args:
        trainer: Runs the training. A checkpoint of SLURM is in its ``default_root_dir``.
        module: The module to train.
        data: The data; by default the dataloaders of the module.
        folder: Where checkpoints are written, ``interrupted.ckpt`` among them.

    Raises:
        KeyboardInterrupt: Training was interrupted.
        ChildProcessError: A process that loads examples was killed.
        CheckpointFileError: The latest checkpoint is damaged, or holds more than tensors and
            plain values.
    """
    root = Path(trainer.default_root_dir)
    last = latest_checkpoint(folder, root)
    if last:
        read_checkpoint(last)
        log.info("resuming from %s", last)
    interrupt = _Interrupt(folder / "interrupted.ckpt")
    trainer.callbacks.insert(0, interrupt)  # type: ignore[attr-defined]
    with interrupt.handled(), interruptible(trainer), warnings.catch_warnings():
        # Training is resumed from checkpoints in that folder.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        # A data set may be too small for validation clips.
        warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
    if trainer.is_global_zero:
        interrupt.path.unlink(missing_ok=True)
        for path in root.glob(_OF_BATCH_SYSTEM):
            path.unlink()


def latest_checkpoint(folder: Path, root: Path) -> Path | None:
    """Return the latest checkpoint of those in a folder, and of SLURM's in Lightning's root.

    >>> latest_checkpoint(Path("nowhere"), Path("nowhere")) is None
    True
    """
    names = ("last.ckpt", "interrupted.ckpt")
    paths = [folder / name for name in names if (folder / name).exists()]
    paths += root.glob(_OF_BATCH_SYSTEM)
    return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)


class CheckpointFileError(ValueError):
    """A file is not a checkpoint, or cannot be read without running code."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of Lightning: tensors and plain values, never code.

    Reading a pickle may run any code, and a store may be shared: a file that holds anything but
    tensors and plain values (numbers, texts, lists, mappings) is refused.

    Args:
        path: The file.

    Raises:
        CheckpointFileError: The file is damaged, or holds something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointFileError(
            f"{path}: expected a checkpoint of tensors and plain values, {_describe(error)}. "
            "It was not loaded. Delete it, and training starts again; or force the stage "
            "(force=[...])"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointFileError(
            f"{path}: expected a checkpoint of Lightning, found {type(checkpoint).__name__} "
            "without 'state_dict'. Delete it, and training starts again"
        )
    return checkpoint


def _describe(error: Exception) -> str:
    """Return what ``torch.load`` found in a file instead of a checkpoint.

    >>> _describe(pickle.UnpicklingError("Unsupported global: GLOBAL os.system was not an"))
    'found os.system, which could run code'
    """
    unsafe = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and unsafe:
        return f"found {unsafe[1]}, which could run code"
    return f"found a damaged file ({str(error).strip().partition(chr(10))[0]})"


@contextlib.contextmanager
def interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Raise errors by which a trainer's run ends as what they are.

    Raises:
        KeyboardInterrupt: Lightning has turned one into an exit.
        ChildProcessError: A process that loads examples was killed.
    """
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    except (ConnectionError, EOFError, RuntimeError) as error:
        if not _is_of_a_dead_worker(error):
            raise
        raise ChildProcessError(
            f"a process that loads examples was killed or has crashed ({error}). If memory was "
            "short, lower data.num_workers. The same command resumes from the last checkpoint"
        ) from error


def _is_of_a_dead_worker(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error) and "exited unexpectedly" in str(error)
    # It was to hand over a tensor.
    frames = traceback.walk_tb(error.__traceback__)
    return any(f.f_globals.get("__name__") == "torch.utils.data.dataloader" for f, _ in frames)


class _Interrupt(L.Callback):
    """Ends training after the current step, with a checkpoint, when SIGINT was received."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._received = False
        self._process = os.getpid()

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        try:
            before = signal.signal(signal.SIGINT, self._handle)
        except ValueError:
            # Only the main thread can handle signals.
            yield
            return
        self._before = before
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = True
        signal.signal(signal.SIGINT, self._before)
        # Other ranks and DataLoader workers receive it, too; workers are needed for this step.
        if rank() == 0 and os.getpid() == self._process:
            log.warning("stopping after this step; Ctrl-C again stops at once")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if (index + 1) % trainer.accumulate_grad_batches:
            return
        stop = self._received
        if trainer.world_size > 1:
            if trainer.global_step % _STEPS_BETWEEN_CHECKS:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            trainer.save_checkpoint(self.path, weights_only=False)
            raise KeyboardInterrupt
