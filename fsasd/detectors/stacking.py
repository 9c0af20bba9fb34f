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
