"""Nearest neighbours of pooled log-mels: a small detector without a time weight."""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted

from fsasd.data.audio import Clips, LogMel
from fsasd.detectors.base import Detector, TooFewClipsError, stack


class KNN(Detector):
    """Distance to the k-th nearest normal clip, in the space of pooled log-mels.

    Args:
        k: The neighbour whose distance is the score.
        pool: ``mean``, ``max`` or ``mean+std`` of each mel bin over time.
        max_seconds: What lies behind is not heard.
    """

    def __init__(self, k: int = 1, pool: str = "mean+std", max_seconds: float = 10.0) -> None:
        self.k = k
        self.pool = pool
        self.max_seconds = max_seconds

    def fit(self, clips: Clips) -> Self:
        """Remember the pooled log-mels of normal clips.

        Raises:
            ValueError: There are fewer clips than ``k``, or the pooling is not known.
        """
        if len(clips) < self.k:
            raise TooFewClipsError(f"k={self.k} neighbours need as many clips, found {len(clips)}")
        self.bank_ = self._pooled(clips)
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the Euclidean distances to the k-th neighbours."""
        check_is_fitted(self)
        neighbours = NearestNeighbors(n_neighbors=self.k).fit(self.bank_)
        return neighbours.kneighbors(self._pooled(clips))[0][:, -1]

    def _pooled(self, clips: Clips) -> np.ndarray:
        if self.pool not in _POOLS:
            raise ValueError(f"pool '{self.pool}': expected one of {', '.join(_POOLS)}")
        front_end = LogMel.twfr(self.max_seconds)
        return stack(_POOLS[self.pool](log_mel) for log_mel in clips.features(front_end))


_POOLS = {
    "mean": lambda log_mel: log_mel.mean(axis=1),
    "max": lambda log_mel: log_mel.max(axis=1),
    "mean+std": lambda log_mel: np.concatenate([log_mel.mean(axis=1), log_mel.std(axis=1)]),
}
