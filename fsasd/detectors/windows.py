"""Windows of spectrogram frames, and training small networks on those of one machine."""

from __future__ import annotations

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
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from fsasd.data.audio import Clips, FrontEnd
from fsasd.detectors.base import TooFewClipsError
from fsasd.memory import memory_advice

N = TypeVar("N", bound=nn.Module)


def windows(spectrogram: np.ndarray, frames: int) -> torch.Tensor:
    """Return (windows, frames, bands): every stretch of so many frames, one frame apart.

    A spectrogram with fewer frames is repeated.

    Args:
        spectrogram: (bands, n).
        frames: Of a window.

    >>> windows(np.array([[1.0, 2.0, 3.0]]), 2)[:, :, 0].tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    times = -(-frames // spectrogram.shape[1])
    long = torch.from_numpy(np.tile(spectrogram, times)).float()
    return long.unfold(1, frames, 1).permute(1, 2, 0)


class Windows(Dataset[torch.Tensor]):
    """All windows of some clips, each kept once however many windows a frame is in.

    Args:
        clips: The recordings.
        front_end: Waveform -> (bands, n).
        frames: Of a window.

    Raises:
        TooFewClipsError: There are no clips.
    """

    def __init__(self, clips: Clips, front_end: FrontEnd, frames: int) -> None:
        if not len(clips):
            raise TooFewClipsError("expected at least 1 clip, found 0")
        # The first window's frames, then the last frame of each further window.
        parts = [windows(features, frames) for features in clips.features(front_end)]
        self.frames = frames
        self._frames = torch.cat([torch.cat([part[0], part[1:, -1]]) for part in parts])
        lengths = np.array([len(part) + frames - 1 for part in parts])
        first = np.cumsum(lengths) - lengths
        starts = [start + np.arange(len(p)) for start, p in zip(first, parts, strict=True)]
        self._starts = torch.from_numpy(np.concatenate(starts))
        self._stretch = torch.arange(frames)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> torch.Tensor:
        """Return (len(indices), frames, bands)."""
        return self._frames[self._starts[list(indices)][:, None] + self._stretch]


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
    options: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": folder is not None,
        **(trainer or {}),
    }
    last = None
    if folder is not None:
        options |= {
            "default_root_dir": folder,
            "callbacks": [ModelCheckpoint(folder, save_last=True), _Redrawn(seed)],
        }
        last = folder / "last.ckpt" if (folder / "last.ckpt").is_file() else None
    data = _Examples(examples, batch_size, seed, by_epoch=folder is not None)
    with (
        isolate_rng(),
        warnings.catch_warnings(),
        memory_advice(f"detector.batch_size (now {batch_size})"),
    ):
        # To go on is what the folder is for.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        torch.manual_seed(seed)
        run = L.Trainer(max_epochs=epochs, **options)
        # Only what this program wrote is loaded here, and optimizers are more than tensors.
        run.fit(network, data, ckpt_path=last, weights_only=False)
    if run.interrupted:
        raise KeyboardInterrupt
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
