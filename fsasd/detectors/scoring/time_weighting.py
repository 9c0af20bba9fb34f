"""TWFR: log-mels whose frames are sorted in each band and weighted, in NumPy alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsasd.data.log_mel import LogMel


def time_weights(r: float | Sequence[float], frames: int) -> np.ndarray:
    """Return the (len(r), frames) weights r^(n-1) / sum_k r^(k-1) of frames in descending order.

    0^0 is 1: r=0 is max pooling, r=1 average pooling, r>1 gives the quiet frames more weight.

    >>> time_weights([0.0, 1.0], 4)
    array([[1.  , 0.  , 0.  , 0.  ],
           [0.25, 0.25, 0.25, 0.25]])
    """
    return _time_weights(tuple(np.atleast_1d(r).astype(float).tolist()), frames).copy()


def twfr(log_mel: np.ndarray, r: float | Sequence[float]) -> np.ndarray:
    """Return the (len(r), n_mels) representations sort(X) . w(r) of a (n_mels, frames) log-mel.

    >>> twfr(np.array([[1.0, 3.0, 2.0]]), [0.0, 1.0])
    array([[3.],
           [2.]])
    """
    return TimeWeighting(LogMel.twfr(), (tuple(np.atleast_1d(r).tolist()),)).pool(log_mel)


@dataclass(frozen=True)
class TimeWeighting:
    """Log-mels pooled by several time weights (``clips.Pooled``), of which frames are sorted once.

    Args:
        front_end: Waveform -> (n_mels, frames).
        groups: Values of r; those of a group are one matrix product, on whose size last bits
            depend.
    """

    front_end: LogMel
    groups: tuple[tuple[float, ...], ...]

    def pool(self, log_mel: np.ndarray) -> np.ndarray:
        """Return the representations of all groups, one after the other: (r, n_mels)."""
        descending = np.sort(log_mel, axis=1)[:, ::-1].astype(np.float64)
        frames = log_mel.shape[1]
        return np.concatenate([_time_weights(r, frames) @ descending.T for r in self.groups])


@functools.lru_cache(maxsize=64)
def _time_weights(r: tuple[float, ...], frames: int) -> np.ndarray:
    powers = np.power(np.array(r)[:, None], np.arange(frames, dtype=np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def at_points(pooled: Sequence[np.ndarray], points: slice) -> np.ndarray:
    """Return (points, n, n_mels) of the representations of n clips."""
    return np.stack([rows[points] for rows in pooled], axis=1) if pooled else np.empty((0, 0, 0))
