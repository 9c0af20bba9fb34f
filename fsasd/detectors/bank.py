"""Exact nearest-neighbour search in a bank of the points of normal clips, at memory bandwidth.

Squared distances to the whole bank are one matrix product in single precision, of centred points,
to keep their differences precise. Its error is bounded; the few candidates within that bound are
compared in double precision.
"""

from __future__ import annotations

import numpy as np

_CHUNK = 2**24
"""Distances held at a time."""

_ROUNDING = float(np.finfo(np.float32).eps) / 2


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Return float64 vectors of length 1; one of length 0 stays.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    embeddings = embeddings.astype(np.float64)
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(lengths > 0, lengths, 1.0)


class Bank:
    """Reference points of a nearest-neighbour search.

    Args:
        points: (n, d) float64.
        units: (n,) divisors of the squared distances to each point; 1 by default.

    >>> bank = Bank(np.array([[0.0, 0.0], [3.0, 4.0]]))
    >>> bank.nearest(np.array([[3.0, 3.0]]), k=2).tolist()
    [[1.0, 18.0]]
    """

    def __init__(self, points: np.ndarray, units: np.ndarray | None = None) -> None:
        self.points = points
        self.units = np.ones(len(points)) if units is None else units
        self._centre = points.mean(axis=0)
        self._roughly = self._offsets(points)
        self._squares = np.einsum("nd,nd->n", self._roughly, self._roughly)
        self._radius = float(np.sqrt(self._squares.max(initial=0.0)))

    def nearest(self, points: np.ndarray, k: int) -> np.ndarray:
        """Return (m, k) squared distances of (m, d) points to the nearest of the bank, ascending.

        A row depends on its point only, not on the others.
        """
        rows = max(1, _CHUNK // len(self.points))
        distances = np.empty((len(points), k))
        for start in range(0, len(points), rows):
            some = points[start : start + rows]
            for row, candidates in enumerate(self._candidates(some, k)):
                squared = np.square(self.points[candidates] - some[row]).sum(axis=1)
                squared /= self.units[candidates]
                distances[start + row] = np.sort(np.partition(squared, k - 1)[:k])
        return distances

    def _candidates(self, points: np.ndarray, k: int) -> list[np.ndarray]:
        """Return, for each point, the indices that may be among its k nearest."""
        offsets = self._offsets(points)
        squares = np.einsum("md,md->m", offsets, offsets)[:, None]
        squared = offsets @ self._roughly.T
        squared *= -2
        squared += self._squares
        squared += squares
        # Error of sums of d products in any order, and of rounding before and after them.
        reach = (np.sqrt(squares) + self._radius) ** 2
        error = ((points.shape[1] + 16) * _ROUNDING * reach).astype(np.float32)
        units = self.units.astype(np.float32)
        limit = np.partition((squared + error) / units, k - 1, axis=1)[:, k - 1 : k]
        limit *= 1 + 16 * _ROUNDING
        squared -= error
        # NaN, of points too far apart for single precision, remains a candidate.
        return [np.flatnonzero(row) for row in ~(squared > limit * units)]

    def _offsets(self, points: np.ndarray) -> np.ndarray:
        return (points - self._centre).astype(np.float32)
