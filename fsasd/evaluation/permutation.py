"""Permutation of two sets' labels: which clips might as well be of the other set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 499


def permuted(labels: NDArray[np.int_], groups: NDArray[np.int_], seed: int = 0) -> NDArray[np.int_]:
    """Return (1 + PERMUTATIONS, n) labels as they might as well be, the given ones first.

    Groups of one label exchange it with one another, all of their clips together; in those of
    both, clips exchange theirs.

    >>> drawn = permuted(np.array([0, 0, 1, 1, 0]), np.array([0, 0, 1, 2, 2]))
    >>> set(drawn[:, 0] - drawn[:, 1]), set(drawn[:, 3] + drawn[:, 4])
    ({np.int64(0)}, {np.int64(1)})
    """
    rng = np.random.default_rng(seed)
    units = np.unique(groups, return_inverse=True)[1]
    count = np.bincount(units)
    ones = np.bincount(units, weights=labels)
    mixed = (ones > 0) & (ones < count)
    pure = np.flatnonzero(~mixed)
    drawn = np.tile(labels, (1 + PERMUTATIONS, 1))
    of_pure = ~mixed[units]
    members = [np.flatnonzero(units == unit) for unit in np.flatnonzero(mixed)]
    for row in drawn[1:]:
        of_unit = (ones > 0).astype(int)
        of_unit[pure] = rng.permutation(of_unit[pure])
        row[of_pure] = of_unit[units[of_pure]]
        for rows in members:
            row[rows] = rng.permutation(row[rows])
    return drawn
