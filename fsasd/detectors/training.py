"""Training by Lightning: where a network runs, what it leaves, how it goes on when it was cut."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fsasd.detectors.shares import (
    GlobalBatches,
    KnowShare,
    Share,
    require_whole_shares,
    seed_step,
    shared,
)
from fsasd.runtime.memory import give_back_memory, memory_advice
from fsasd.runtime.progress import StepProgress
from fsasd.runtime.resuming import interruptible, read_checkpoint

log = logging.getLogger(__name__)

N = TypeVar("N", bound=nn.Module)

SET_BY_DETECTORS = frozenset(
    {
        "max_epochs", "min_epochs", "max_steps", "min_steps", "val_check_interval",
        "check_val_every_n_epoch", "accumulate_grad_batches", "gradient_clip_val",
        "gradient_clip_algorithm",
    }
)  # fmt: skip
"""Arguments of ``lightning.Trainer`` that detectors' networks are not trained by: how long, and by
what, a detector's own settings say."""


def fit(
    module: L.LightningModule,
    data: L.LightningDataModule | None = None,
    *,
    epochs: int,
    batch_size: int,
    examples: int,
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
        batch_size: Examples of a step, in all processes together.
        examples: How many there are.
        lower: Settings to lower where the accelerator's memory does not suffice.
        trainer: Where to train, and what ends it early: arguments of ``lightning.Trainer`` such as
            ``devices`` and ``max_time``. On several GPUs batch normalisation is that of the whole
            batch, unless they say ``sync_batchnorm: false``.
        folder: Gets checkpoints, ``last.ckpt`` among them; without, nothing is written.
        callbacks: Lightning's.

    Raises:
        KeyboardInterrupt: Training was interrupted.
        ValueError: The accelerator is out of memory, several processes cannot divide a batch
            evenly, ``trainer`` says what a detector's own settings do, or the checkpoint is damaged
            or holds more than tensors and plain values.
    """
    if own := sorted(SET_BY_DETECTORS & set(trainer or {})):
        raise ValueError(
            f"trainer: {', '.join(own)}: expected where to train, such as devices, and limits such "
            "as max_time; how long and by what a detector's network is trained, its own settings "
            "say (epochs, batch_size)"
        )
    options: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_model_summary": False,
        "enable_checkpointing": folder is not None,
        "sync_batchnorm": on_gpus(trainer or {}),
        **(trainer or {}),
    }
    if options.get("enable_progress_bar", True):
        callbacks = [*callbacks, StepProgress()]
    last = None
    if folder is not None:
        options["default_root_dir"] = folder
        callbacks = [*callbacks, ModelCheckpoint(folder, save_last=True)]
        last = folder / "last.ckpt" if (folder / "last.ckpt").exists() else None
        if last:
            read_checkpoint(last)
    run = L.Trainer(max_epochs=epochs, callbacks=[*callbacks, KnowShare()], **options)
    name = "detector.batch_size"
    if examples < batch_size:
        name += f" ({batch_size}, of which {examples} clips are there)"
    require_whole_shares(min(batch_size, examples), run.world_size, name)
    with warnings.catch_warnings(), memory_advice(lower), interruptible(run), shared(Share()):
        # To go on is what the folder is for.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        run.fit(module, data, ckpt_path=last, weights_only=True)
    if run.current_epoch < epochs:
        log.warning(
            "a network's training ended after %d steps, in epoch %d of %d, since trainer says so "
            "(max_time, fast_dev_run)", run.global_step, run.current_epoch + 1, epochs,
        )  # fmt: skip
    give_back_memory()


def on_gpus(trainer: Mapping[str, Any]) -> bool:
    """Say whether arguments of ``lightning.Trainer`` put a training on CUDA devices.

    >>> on_gpus({"accelerator": "cpu", "devices": 2}), on_gpus({"accelerator": "gpu"})
    (False, True)
    """
    kind = trainer.get("accelerator") or "auto"
    return kind in ("gpu", "cuda") or (kind == "auto" and torch.cuda.is_available())


def processes(trainer: Mapping[str, Any]) -> int:
    """Return how many processes arguments of ``lightning.Trainer`` ask for, on this machine.

    >>> processes({"accelerator": "cpu", "devices": 2, "num_nodes": 3})
    6
    """
    devices = trainer.get("devices", "auto")
    if isinstance(devices, str) and "," in devices:
        devices = [device for device in devices.split(",") if device.strip()]
    count = len(devices) if isinstance(devices, list) else devices
    if isinstance(count, str) and count.lstrip("-").isdecimal():
        count = int(count)
    if not isinstance(count, int) or count < 1:
        count = torch.cuda.device_count() if on_gpus(trainer) else 1
    return max(count, 1) * (trainer.get("num_nodes") or 1)


def batch_norm_groups(trainer: Mapping[str, Any]) -> int:
    """Return how many processes have a batch normalisation of their own.

    Only then does a network depend on the number of processes that it is trained by.

    >>> batch_norm_groups({"accelerator": "cpu", "devices": 2})
    2
    >>> batch_norm_groups({"accelerator": "gpu", "devices": 8})
    1
    """
    synchronised = trainer.get("sync_batchnorm", on_gpus(trainer))
    return 1 if synchronised else processes(trainer)


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
        batch_size: Examples in a step, in all processes together.
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
            batch_size=batch_size,
            examples=len(examples),  # type: ignore[arg-type]
            trainer={"enable_progress_bar": False, **(trainer or {})},
            folder=folder,
            callbacks=[] if folder is None else [_Redrawn(seed)],
            lower=f"detector.batch_size (now {batch_size})",
        )
    network.cpu().eval().requires_grad_(False)


class _Examples(L.LightningDataModule):
    """Batches in an order that the seed fixes: once, or anew by the epoch's number.

    The latter a run that was resumed has, too, and any number of processes can share it; it has
    whole batches only.
    """

    def __init__(self, examples: Dataset, batch_size: int, seed: int, by_epoch: bool) -> None:
        super().__init__()
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.by_epoch = by_epoch

    def train_dataloader(self) -> DataLoader:
        count = len(self.examples)  # type: ignore[arg-type]
        trainer, size = self.trainer, self.batch_size
        order: GlobalBatches | None = None
        if self.by_epoch and trainer is not None:
            share = Share(trainer.world_size, trainer.global_rank)
            order = GlobalBatches(count, self.batch_size, share, self.seed)
            # Lightning does so, too, but after the first epoch of a resumed run has begun.
            order.set_epoch(trainer.current_epoch)
            size = len(order.places)
        return DataLoader(
            self.examples,
            size,
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
        share = Share(trainer.world_size, trainer.global_rank)
        seed_step(self.seed, trainer.global_step, share)


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return a network's weights and buffers by name."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def with_arrays(network: N, learnt: Mapping[str, np.ndarray]) -> N:
    """Give an untrained network the weights that ``arrays`` returned; ready to score."""
    network.load_state_dict({name: torch.from_numpy(array) for name, array in learnt.items()})
    return network.eval().requires_grad_(False)


def _as_it_is(batch: Any) -> Any:
    return batch
