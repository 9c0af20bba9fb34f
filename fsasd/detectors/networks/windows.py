"""Windows of spectrogram frames, the training examples of networks of one machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from fsasd.data.clips import Clips
from fsasd.data.front_ends import FrontEnd
from fsasd.detectors.base import TooFewClipsError


def windows(spectrogram: np.ndarray, frames: int) -> torch.Tensor:
    """Return (windows, frames, bands): all windows of consecutive frames, with a hop of 1.

    A spectrogram with fewer frames is repeated.

    Args:
        spectrogram: (bands, n).
        frames: Of a window.

    >>> windows(np.array([[1.0, 2.0, 3.0]]), 2)[:, :, 0].tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    long = torch.from_numpy(_repeated(spectrogram, frames)).float()
    return long.unfold(1, frames, 1).permute(1, 2, 0)


class Windows(Dataset[torch.Tensor]):
    """All windows of some clips; each frame is stored once.

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
        self.frames = frames
        stored = np.empty((0, 0), np.float32)
        starts: list[np.ndarray] = []
        count = 0
        for spectrogram in clips.features(front_end):
            rows = _repeated(spectrogram, frames).T
            starts.append(np.arange(count, count + len(rows) - frames + 1))
            count += len(rows)
            if count > len(stored):
                # Space for all clips, if the rest are as long as those so far.
                room = -(-count * len(clips) // len(starts))
                stored.resize((room, rows.shape[1]), refcheck=False)
            stored[count - len(rows) : count] = rows
        stored.resize((count, stored.shape[1]), refcheck=False)
        self._frames = torch.from_numpy(stored)
        self._starts = torch.from_numpy(np.concatenate(starts))
        self._stretch = torch.arange(frames)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> torch.Tensor:
        """Return (len(indices), frames, bands)."""
        return self._frames[self._starts[list(indices)][:, None] + self._stretch]


def _repeated(spectrogram: np.ndarray, frames: int) -> np.ndarray:
    # (bands, frames or more)
    return np.tile(spectrogram, -(-frames // spectrogram.shape[1]))
