"""A canonical order of observations, independent of the order in which they are given."""

from __future__ import annotations

import numpy as np


def canonical_order(points: np.ndarray) -> np.ndarray:
    """Return the indices that sort points lexicographically, in descending order.

    Algorithms that draw points by index (k-means, SMOTE, forests) use this order, so that scores do
    not depend on the order of the training clips. Values are only compared: sums would differ in
    their last bits with the given order.

    Args:
        points: (n, ...).

    >>> canonical_order(np.array([[1.0, 2.0], [3.0, 0.0], [1.0, 5.0]])).tolist()
    [1, 2, 0]
    """
    rows = points.reshape(len(points), -1)
    order = np.argsort(rows[:, 0])[::-1]
    if (np.diff(rows[order, 0]) < 0).all():
        return order.astype(np.int64)
    # Lists are compared up to the first value that differs.
    in_full = sorted(range(len(rows)), key=lambda row: rows[row].tolist(), reverse=True)
    return np.array(in_full, dtype=np.int64)
