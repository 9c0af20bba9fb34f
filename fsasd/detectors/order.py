"""An order of observations that is theirs alone, whatever order they were given in."""

from __future__ import annotations

import numpy as np


def canonical_order(points: np.ndarray) -> np.ndarray:
    """Return the indices that put points in falling order of their first numbers that differ.

    What draws points by their number (a k-means start, SMOTE, the samples of a forest) does so in
    this order, so that scores do not depend on the order of the training clips. Values are compared
    and not computed with: sums would differ in their last bits with the order given.

    Args:
        points: (n, ...).

    >>> canonical_order(np.array([[1.0, 2.0], [3.0, 0.0], [1.0, 5.0]])).tolist()
    [1, 2, 0]
    """
    rows = points.reshape(len(points), -1)
    # A list is compared up to the first number that differs.
    order = sorted(range(len(rows)), key=lambda row: rows[row].tolist(), reverse=True)
    return np.array(order, dtype=np.int64)
