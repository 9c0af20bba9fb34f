"""Features of clips as one array, and the error of too few of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class TooFewClipsError(ValueError):
    """There are too few clips to fit a detector with its settings."""


def stack(features: Iterable[np.ndarray]) -> np.ndarray:
    """Return float64 (n, ...) of equally shaped features.

    Raises:
        TooFewClipsError: There are none.
    """
    rows = list(features)
    if not rows:
        raise TooFewClipsError("expected at least 1 clip, found 0")
    return np.stack(rows).astype(np.float64)


def n_different(points: np.ndarray) -> int:
    """Return how many of (n, d) points differ from one another.

    What is fitted to copies of one clip has no extent: a component or a covariance of equal points
    is 0, and every other clip as near to it, or as far, as any.

    >>> n_different(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]]))
    2
    """
    return len(np.unique(points, axis=0))
