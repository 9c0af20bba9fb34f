"""Training by Lightning: where a network runs, what it leaves, how it goes on when it was cut."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors.numpy import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from fsasd.memory import give_back_memory, memory_advice
from fsasd.resuming import interruptible, read_checkpoint

N = TypeVar("N", bound=nn.Module)


def fit(
    module: L.LightningModule,
    data: L.LightningDataModule | None = None,
    *,
    epochs: int,
    lower: str,
    trainer: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    callbacks: Sequence[L.Callback] = (),
) -> None:
    """Train a module; goes on from the last checkpoint that the folder holds.

    Args:
        module: What is trained, and how.
        data: With what; by default the module says so itself.
        epochs: Passes over the examples.
        lower: Settings to lower where the accelerator's memory does not suffice.
        trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
        folder: Gets checkpoints, ``last.ckpt`` among them; without, nothing is written.
        callbacks: Lightning's.

    Raises:
        KeyboardInterrupt: Training was interrupted.
        ValueError: The accelerator is out of memory, or the checkpoint is damaged or holds more
            than tensors and plain values.
    """
    options: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_model_summary": False,
        "enable_checkpointing": folder is not None,
        **(trainer or {}),
    }
    last = None
    if folder is not None:
        options["default_root_dir"] = folder
        callbacks = [*callbacks, ModelCheckpoint(folder, save_last=True)]
        last = folder / "last.ckpt" if (folder / "last.ckpt").exists() else None
        if last:
            read_checkpoint(last)
    run = L.Trainer(max_epochs=epochs, callbacks=list(callbacks), **options)
    with warnings.catch_warnings(), memory_advice(lower), interruptible(run):
        # To go on is what the folder is for.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        run.fit(module, data, ckpt_path=last, weights_only=True)
    give_back_memory()


def keep_network(learnt: Mapping[str, np.ndarray], path: Path) -> None:
    """Write what was learnt, whole or not at all, and drop the ``checkpoints`` beside it."""
    partial = path.with_suffix(".partial")
    save_file(dict(learnt), partial)
    partial.rename(path)
    # Three times the size of what is kept, and of no further use.
    shutil.rmtree(path.parent / "checkpoints")


def require_trained_as(recipe: Mapping[str, Any], path: Path, chosen: bool = False) -> None:
    """Check that the networks beside a file are those of a recipe.

    Args:
        recipe: What the networks of a detector as it is now depend on.
        path: JSON; what those that are there were trained with is its ``recipe``.
        chosen: The detector was prepared with them, and its settings were changed since.

    Raises:
        ValueError: They were trained otherwise.
    """
    found = json.loads(path.read_text())["recipe"]
    differ = sorted(k for k in {*found, *recipe} if found.get(k) != recipe.get(k))
    if differ:
        what = ", ".join(f"{k}={found.get(k)!r} instead of {recipe.get(k)!r}" for k in differ)
        advice = "use another folder"
        if chosen:
            advice = (
                "what networks are trained with cannot be chosen once a detector is prepared. "
                "Leave it out of the grid, or prepare the detector again, in another folder"
            )
        raise ValueError(f"{path.parent}: its networks were trained with {what}: {advice}")


def train(
    network: L.LightningModule,
    examples: Dataset,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    trainer: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> None:
    """Train a network where Lightning finds the fastest device, and leave it on the CPU.

    The caller's random state stays as it is.

    Args:
        network: How it is trained, and with what; put into evaluation mode.
        examples: A sized dataset whose ``__getitems__`` gives whole batches.
        epochs: Passes over the examples.
        batch_size: Examples in a step.
        seed: Of their order, and of what the network draws.
        trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
        folder: Gets checkpoints; training goes on from the last that it holds. Without, nothing is
            written.
    """
    data = _Examples(examples, batch_size, seed, by_epoch=folder is not None)
    with isolate_rng():
        torch.manual_seed(seed)
        fit(
            network,
            data,
            epochs=epochs,
            trainer={"enable_progress_bar": False, **(trainer or {})},
            folder=folder,
            callbacks=[] if folder is None else [_Redrawn(seed)],
            lower=f"detector.batch_size (now {batch_size})",
        )
    network.cpu().eval().requires_grad_(False)


class _Examples(L.LightningDataModule):
    """Whole batches in an order that the seed fixes: once, or anew by the epoch's number.

    The latter a run that was resumed has, too, and any number of processes can share it.
    """

    def __init__(self, examples: Dataset, batch_size: int, seed: int, by_epoch: bool) -> None:
        super().__init__()
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.by_epoch = by_epoch

    def train_dataloader(self) -> DataLoader:
        count = len(self.examples)  # type: ignore[arg-type]
        trainer = self.trainer
        order: DistributedSampler | None = None
        if self.by_epoch and trainer is not None:
            ranks, rank = trainer.world_size, trainer.global_rank
            order = DistributedSampler(self.examples, ranks, rank, seed=self.seed)
            # Lightning does so, too, but after the first epoch of a resumed run has begun.
            order.set_epoch(trainer.current_epoch)
            count = order.num_samples
        return DataLoader(
            self.examples,
            self.batch_size,
            shuffle=order is None,
            sampler=order,
            # Batch normalisation has nothing to say of a batch of one.
            drop_last=count % self.batch_size == 1 and count > self.batch_size,
            collate_fn=_as_it_is,
            generator=torch.Generator().manual_seed(self.seed),
        )


class _Redrawn(L.Callback):
    """Lets a resumed run draw what one that was not cut would."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        torch.manual_seed(step_seed(self.seed, trainer.global_step, trainer.global_rank))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of what one process draws in one step.

    >>> step_seed(0, 0, rank=0) == step_seed(0, 0, rank=1)
    False
    """
    return seed + 1_000_003 * (step + 1) + 7919 * rank


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return a network's weights and buffers by name."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def with_arrays(network: N, learnt: Mapping[str, np.ndarray]) -> N:
    """Give an untrained network the weights that ``arrays`` returned; ready to score."""
    network.load_state_dict({name: torch.from_numpy(array) for name, array in learnt.items()})
    return network.eval().requires_grad_(False)


def _as_it_is(batch: Any) -> Any:
    return batch
