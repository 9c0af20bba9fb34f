"""Training with interruptions: checkpoints on signals, and resuming from the latest."""

from __future__ import annotations

import contextlib
import logging
import pickle
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from fsasd.runtime.stopping import OwnSignals, StopAfterStep, take_time_limit

log = logging.getLogger(__name__)

LAST = "last.ckpt"
"""Name of the checkpoint that is written at the end of a training, and before as often as asked."""

_OF_BATCH_SYSTEM = "hpc_ckpt_*.ckpt"
"""What Lightning writes into its root when SLURM announces the end of a job's time."""


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule | DataLoader | None,
    folder: Path | None,
) -> None:
    """Train to the end, resuming from the latest checkpoint if there is one.

    On Ctrl-C, SIGTERM and the like, and when ``max_time`` is over, the step at hand is finished and
    a checkpoint written (``StopAfterStep``); a second Ctrl-C ends at once.

    Args:
        trainer: Runs the training. Its ``max_time`` is that of this call. A checkpoint that
            Lightning wrote for SLURM is in its ``default_root_dir``.
        module: The module to train.
        data: The data, whose training examples go on within an epoch; by default the dataloaders of
            the module.
        folder: Where checkpoints are written, ``interrupted.ckpt`` among them. Without one, the
            training ends at once and starts anew.

    Raises:
        KeyboardInterrupt: Training was interrupted; a checkpoint was written.
        TimeoutError: ``max_time`` was over before the last step; a checkpoint was written.
        ChildProcessError: A process that loads examples was killed.
        CheckpointFileError: The latest checkpoint is damaged, or holds more than tensors and
            plain values.
    """
    trainer.callbacks.insert(0, OwnSignals())  # type: ignore[attr-defined]
    if folder is None:
        with interruptible(trainer):
            trainer.fit(module, data)
        return
    root = Path(trainer.default_root_dir)
    last = latest_checkpoint(folder, root)
    if last:
        read_checkpoint(last)
        log.info("resuming from %s", last)
    interrupt = StopAfterStep(folder / "interrupted.ckpt", take_time_limit(trainer))
    trainer.callbacks.append(interrupt)  # type: ignore[attr-defined]
    with interrupt.handled(), interruptible(trainer), warnings.catch_warnings():
        # Training is resumed from checkpoints in that folder.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        # A data set may be too small for validation clips.
        warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")
        # The order of examples knows where it was interrupted.
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
    if trainer.is_global_zero:
        interrupt.path.unlink(missing_ok=True)
        for path in root.glob(_OF_BATCH_SYSTEM):
            path.unlink()


def latest_checkpoint(folder: Path, root: Path) -> Path | None:
    """Return the checkpoint of most steps of those in a folder, and of SLURM's in Lightning's root.

    The later one of as many: a validation may lie between them. Clocks may go back, steps do not.

    >>> latest_checkpoint(Path("nowhere"), Path("nowhere")) is None
    True
    """
    names = (LAST, "interrupted.ckpt")
    paths = [folder / name for name in names if (folder / name).exists()]
    paths += root.glob(_OF_BATCH_SYSTEM)
    if len(paths) < 2:
        return paths[0] if paths else None
    return max(paths, key=lambda path: (_steps(path), path.stat().st_mtime_ns))


def _steps(checkpoint: Path) -> int:
    return read_checkpoint(checkpoint).get("global_step", 0)


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
        KeyboardInterrupt: The one that Lightning has turned into an exit.
        ChildProcessError: A process that loads examples was killed.
    """
    try:
        yield
    except SystemExit as end:
        if trainer.interrupted and isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise
    except (ConnectionError, EOFError, RuntimeError) as error:
        if not _is_of_a_dead_worker(error):
            raise
        raise ChildProcessError(
            f"a process that loads examples was killed or has crashed ({error}). If memory was "
            "short, lower data.num_workers. The same command resumes from the last checkpoint"
        ) from error


def _is_of_a_dead_worker(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        # Said by the loader that waits for it, or by torch's handler of SIGCHLD, at any line.
        return bool(
            re.match(r"DataLoader worker .*(exited unexpectedly|killed by signal)", str(error))
        )
    # It was to hand over a tensor.
    frames = traceback.walk_tb(error.__traceback__)
    return any(f.f_globals.get("__name__") == "torch.utils.data.dataloader" for f, _ in frames)
