"""Weights of synthetic clips by their strength: a curve shows something only where clips are hard.

Where every anomaly is obvious, or none can be heard, all settings are alike. Which rung of a
ladder of strengths is neither differs from detector to detector: it is where the AUC of its
settings together lies in the middle.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MIDDLE, WIDTH = 0.75, 0.12
"""AUC at which a rung tells most, and the distance from it by which its weight falls to 1/e: from
0.6 to 0.9 a rung counts for a fifth at least."""


def rung_weights(
    strengths: NDArray[np.float64],
    labels: NDArray[np.int_],
    auc_of: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Weight clips so that each rung counts by how much differences can show on it.

    No setting is favoured: a rung's weight depends on the median AUC of all settings.

    Args:
        strengths: (n,) rung of each clip; NaN where it has none.
        labels: (n,) 1 for anomaly.
        auc_of: (n,) weights of clips -> (settings,) AUC.

    Returns:
        (n,) weights: 1 for normal clips and clips without a rung; those of the rungs' clips have
        the mean 1. All are 1 where there are not several rungs.

    >>> weights = rung_weights(np.array([np.nan, 1, 2]), np.array([0, 1, 1]),
    ...                        lambda w: np.array([0.75 if w[1] else 1.0]))
    >>> weights.round(2).tolist()
    [1.0, 1.97, 0.03]
    """
    weights = np.ones(len(labels))
    on_ladder = (labels == 1) & ~np.isnan(strengths)
    rungs = np.unique(strengths[on_ladder])
    if len(rungs) < 2:
        return weights
    for rung in rungs:
        of_rung = on_ladder & (strengths == rung)
        middle = np.median(auc_of(np.where(labels == 0, 1.0, of_rung)))
        weights[of_rung] = np.exp(-(((middle - MIDDLE) / WIDTH) ** 2))
    # All rungs may be far from the middle: then their weights are small alike.
    weights[on_ladder] /= max(weights[on_ladder].mean(), 1e-12)
    return weights
