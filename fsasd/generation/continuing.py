"""Training a finished model for more steps, from the checkpoints that its training has left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from fsasd.runtime.ranks import agree, rank
from fsasd.runtime.resuming import LAST, latest_checkpoint, read_checkpoint


def take_checkpoints(finished: Path, folder: Path) -> None:
    """Copy the checkpoints of a finished training for one that continues it; by the first rank.

    The last one holds weights, their average and the optimizer's state, the best one what it is to
    be compared with. Where the folder holds checkpoints, the continued training has begun, and
    nothing is copied.

    Args:
        finished: Folder of the finished training's checkpoints.
        folder: Gets them.

    Raises:
        FileNotFoundError: The finished training has left none.
    """
    if rank() == 0 and latest_checkpoint(folder, folder) is None:
        if not (finished / LAST).is_file():
            raise FileNotFoundError(
                f"{finished}: expected the checkpoints of the training to be continued, found "
                "none: it ran without keep_checkpoints=true. Train it again (force=[finetune]), or "
                f"go on with its weights alone: generator.checkpoint={finished.parent / 'model'}"
            )
        state = read_checkpoint(finished / LAST)
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(finished, partial, ignore=shutil.ignore_patterns(LAST))
        for path in partial.rglob("*"):
            path.chmod(0o644)
        torch.save({**state, "callbacks": _moved(state["callbacks"], folder)}, partial / LAST)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    # Ranks that were started at once look for the checkpoint, too.
    agree(f"checkpoints of {folder}", "there")


def _moved(callbacks: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return states of callbacks that find their checkpoints in another folder.

    >>> state = {"dirpath": "/a", "best_model_path": "/a/best.ckpt", "best_k_models": {}}
    >>> _moved({"ModelCheckpoint": state}, Path("/b"))["ModelCheckpoint"]["best_model_path"]
    '/b/best.ckpt'
    """

    def moved(value: Any, before: str) -> Any:
        if isinstance(value, dict):
            return {moved(key, before): moved(one, before) for key, one in value.items()}
        if isinstance(value, str) and Path(value).is_relative_to(before):
            return str(folder / Path(value).relative_to(before))
        return value

    return {
        name: moved(state, state["dirpath"]) if "dirpath" in state else state
        for name, state in callbacks.items()
    }
