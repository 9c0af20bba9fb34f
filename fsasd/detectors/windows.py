"""Windows of spectrogram frames, and training small networks on those of one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import DataLoader, Dataset

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
) -> None:
    """Train a network where Lightning finds the fastest device, and leave it on the CPU.

    Nothing is written; the caller's random state stays as it is.

    Args:
        network: How it is trained, and with what; put into evaluation mode.
        examples: A sized dataset whose ``__getitems__`` gives whole batches.
        epochs: Passes over the examples.
        batch_size: Examples in a step.
        seed: Of their order, and of what the network draws.
        trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
    """
    options: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **(trainer or {}),
    }
    count = len(examples)  # type: ignore[arg-type]
    loader: DataLoader = DataLoader(
        examples,
        batch_size,
        shuffle=True,
        # Batch normalisation has nothing to say of a batch of one.
        drop_last=count % batch_size == 1 and count > batch_size,
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(seed),
    )
    with isolate_rng():
        torch.manual_seed(seed)
        run = L.Trainer(max_epochs=epochs, enable_checkpointing=False, **options)
        with memory_advice(f"detector.batch_size (now {batch_size})"):
            run.fit(network, loader)
    if run.interrupted:
        raise KeyboardInterrupt
    network.cpu().eval().requires_grad_(False)


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return a network's weights and buffers by name."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def with_arrays(network: N, learnt: Mapping[str, np.ndarray]) -> N:
    """Give an untrained network the weights that ``arrays`` returned; ready to score."""
    network.load_state_dict({name: torch.from_numpy(array) for name, array in learnt.items()})
    return network.eval().requires_grad_(False)


def _as_it_is(batch: Any) -> Any:
    return batch
