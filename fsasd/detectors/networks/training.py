"""Training of networks by Lightning: devices, checkpoints, and resuming from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fsasd.detectors.networks.shares import (
    GlobalBatches,
    SetShare,
    Share,
    require_whole_shares,
    seed_step,
    using_share,
)
from fsasd.runtime import resuming
from fsasd.runtime.memory import memory_advice, return_freed_memory
from fsasd.runtime.progress import StepProgress

N = TypeVar("N", bound=nn.Module)

SET_BY_DETECTORS = frozenset(
    {
        "max_epochs", "min_epochs", "max_steps", "min_steps", "val_check_interval",
        "check_val_every_n_epoch", "accumulate_grad_batches", "gradient_clip_val",
        "gradient_clip_algorithm",
    }
)  # fmt: skip
"""Arguments of ``lightning.Trainer`` that a detector's settings determine, such as ``epochs``."""


@dataclass(frozen=True)
class NetworkTraining:
    """Settings of the training of a network.

    Args:
        epochs: Passes over the training examples.
        batch_size: Examples in a step, in all processes together.
        learning_rate: Of the optimizer.
        seed: Of the weights, the order of the examples and all draws.
    """

    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-3
    seed: int = 0


def fit(
    module: L.LightningModule,
    data: L.LightningDataModule | None = None,
    *,
    epochs: int,
    batch_size: int,
    examples: int,
    lower: str,
    where: str,
    trainer: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    callbacks: Sequence[L.Callback] = (),
) -> None:
    """Train a module, resuming from the folder's latest checkpoint.

    Args:
        module: The module.
        data: Its training examples; by default those of ``module.train_dataloader``.
        epochs: Passes over the examples.
        batch_size: Examples of a step, in all processes together.
        examples: Number of examples.
        lower: Settings to lower if the accelerator runs out of memory, for the message.
        where: Where in the configuration ``batch_size`` is, for the message.
        trainer: Arguments of ``lightning.Trainer`` such as ``devices`` and ``max_time``. On several
            GPUs batch normalisation is synchronised, unless ``sync_batchnorm`` is false.
        folder: Of checkpoints, one after each epoch; without, nothing is written.
        callbacks: Further callbacks.

    Raises:
        KeyboardInterrupt: Training was interrupted; a checkpoint was written.
        TimeoutError: ``max_time`` was over before the last step; a checkpoint was written.
        ValueError: The accelerator is out of memory, several processes cannot divide a batch
            evenly, ``trainer`` holds arguments of ``SET_BY_DETECTORS``, or the checkpoint is
            damaged or holds more than tensors and plain values.
    """
    if names := sorted(SET_BY_DETECTORS & set(trainer or {})):
        raise ValueError(
            f"trainer: {', '.join(names)}: expected devices and limits such as max_time; settings "
            "of the detector or its representation (epochs, batch_size) determine the rest"
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
    if folder is not None:
        options["default_root_dir"] = folder
        callbacks = [*callbacks, ModelCheckpoint(folder, save_last=True)]
    run = L.Trainer(max_epochs=epochs, callbacks=[*callbacks, SetShare()], **options)
    name = f"{where}.batch_size"
    if examples < batch_size:
        name += f" ({batch_size}, for {examples} clips)"
    require_whole_shares(min(batch_size, examples), run.world_size, name)
    with memory_advice(lower), using_share(Share()):
        resuming.fit(run, module, data, folder)
    return_freed_memory()


def on_gpus(trainer: Mapping[str, Any]) -> bool:
    """Return whether arguments of ``lightning.Trainer`` select CUDA devices.

    >>> on_gpus({"accelerator": "cpu", "devices": 2}), on_gpus({"accelerator": "gpu"})
    (False, True)
    """
    kind = trainer.get("accelerator") or "auto"
    return kind in ("gpu", "cuda") or (kind == "auto" and torch.cuda.is_available())


def processes(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes by arguments of ``lightning.Trainer``, on this machine.

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
    """Return how many processes compute batch normalisation separately; 1 if it is synchronised.

    A network depends on the number of processes only through it.

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
    settings: NetworkTraining,
    *,
    trainer: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> None:
    """Train a network on the device that Lightning selects, and move it to the CPU.

    The caller's random state is kept.

    Args:
        network: The module; set to evaluation mode afterwards.
        examples: A sized dataset whose ``__getitems__`` returns whole batches.
        settings: Epochs, batches, and the seed of their order and of the network's draws.
        trainer: Arguments of ``lightning.Trainer`` such as ``devices``.
        folder: Of checkpoints, from the last of which training is resumed. Without, nothing is
            written.
    """
    size, seed = settings.batch_size, settings.seed
    data = _Examples(examples, size, seed, by_epoch=folder is not None)
    with isolate_rng():
        torch.manual_seed(seed)
        fit(
            network,
            data,
            epochs=settings.epochs,
            batch_size=size,
            examples=len(examples),  # type: ignore[arg-type]
            where="detector.training",
            trainer={"enable_progress_bar": False, **(trainer or {})},
            folder=folder,
            callbacks=[] if folder is None else [_Redrawn(seed)],
            lower=f"detector.training.batch_size (now {size})",
        )
    network.cpu().eval().requires_grad_(False)


class _Examples(L.LightningDataModule):
    """Batches in an order that the seed determines, once or for each epoch.

    Only the latter is the same in a resumed run and in any number of processes; it has whole
    batches only.
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
            order = GlobalBatches(count, self.batch_size, share, self.seed, trainer)
            size = len(order.places)
        return DataLoader(
            self.examples,
            size,
            shuffle=order is None,
            sampler=order,
            # Batch normalisation is undefined for a batch of one.
            drop_last=count % self.batch_size == 1 and count > self.batch_size,
            collate_fn=_as_it_is,
            generator=torch.Generator().manual_seed(self.seed),
        )


class _Redrawn(L.Callback):
    """Seeds each step, so that a resumed run draws the same numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        share = Share(trainer.world_size, trainer.global_rank)
        seed_step(self.seed, trainer.global_step, share)


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return a network's weights and buffers by name."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def with_arrays(make: Callable[[], N], weights: Mapping[str, np.ndarray]) -> N:
    """Return a network, in evaluation mode, with what ``arrays`` returned of an equal one.

    Args:
        make: Makes an untrained one.
        weights: By name.

    Raises:
        ValueError: They are of another network.
    """
    require_shapes(make, weights)
    # Initial weights are drawn and then replaced: the caller's random state is kept.
    with isolate_rng():
        network = make()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return network.eval().requires_grad_(False)


def require_shapes(
    make: Callable[[], nn.Module], weights: Mapping[str, np.ndarray], parts: tuple[str, ...] = ("",)
) -> None:
    """Raise if saved weights are of another network, before one takes memory.

    Settings in a file may ask for a network of any size, but weights are as large as their file.

    Args:
        make: Makes an untrained network.
        weights: By name.
        parts: How the names of arrays begin that have to be there.

    Raises:
        ValueError: An array is missing, is none of the network's, or has another shape.

    >>> require_shapes(lambda: nn.Linear(9**9, 9**9), {"weight": np.ones((1, 1))})
    Traceback (most recent call last):
    ...
    ValueError: expected the array weight of the shape (387420489, 387420489), found (1, 1)
    """
    # On this device there are shapes alone.
    with isolate_rng(), torch.device("meta"):
        state = make().state_dict()
    expected = {name: tuple(t.shape) for name, t in state.items() if name.startswith(parts)}
    for name in {**expected, **weights}:
        shape = weights[name].shape if name in weights else None
        if shape != expected.get(name):
            raise ValueError(
                f"expected the array {name} of the shape {expected.get(name)}, found {shape}"
            )


def _as_it_is(batch: Any) -> Any:
    return batch
