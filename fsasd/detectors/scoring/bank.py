"""Exact nearest-neighbour search in a bank of the points of normal clips, at memory bandwidth.

Squared distances to the whole bank are one matrix product in single precision, of centred points,
to keep their differences precise. Its error is bounded; the few candidates within that bound are
compared in double precision.
"""

from __future__ import annotations

import numpy as np

from fsasd.detectors.stacking import TooFewClipsError

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


class Banks:
    """The normal clips of a k-NN detector, in one bank or in one per domain.

    Args:
        points: (n, d) float64, those of one bank contiguous.
        sizes: Number of points of each bank.
        density: (n,) or (bands, n) divisors of the distances to each point.
        metric: ``euclidean``, or ``cosine``: of unit vectors.
        bands: Equal parts of the vectors, each of which has its own neighbours.

    Attributes:
        of_bands: For each band, its part of the points: a ``Bank`` of each.

    >>> banks = Banks(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([1, 1]), np.ones(2), "euclidean")
    >>> banks.scores(np.array([[3.0, 3.0]]), k=1).tolist()
    [1.0]
    """

    def __init__(
        self,
        points: np.ndarray,
        sizes: np.ndarray,
        density: np.ndarray,
        metric: str,
        bands: int = 1,
    ) -> None:
        self.points, self.sizes, self.metric, self.bands = points, sizes, metric, bands
        self.units = units = density if metric == "cosine" else density**2
        stops = np.cumsum(sizes)[:-1]
        self.of_bands = [
            [Bank(*one) for one in zip(np.split(part, stops), np.split(of, stops), strict=True)]
            for part, of in zip(split_bands(points, bands), np.atleast_2d(units), strict=True)
        ]

    def require(self, k: int) -> None:
        """Raise if there is no k-th neighbour.

        Raises:
            TooFewClipsError: ``k`` is above the number of normal clips.
            ValueError: ``k`` is less than 1.
        """
        require_k(k)
        require_neighbours(k, self.sizes)

    def normalised(self, points: np.ndarray) -> np.ndarray:
        """Return points as those of the banks are."""
        return normalised(points, self.metric, self.bands)

    def scores(self, points: np.ndarray, k: int) -> np.ndarray:
        """Return the distances of (m, d) points to the k-th neighbour, in the nearest bank.

        Of several bands, the mean of their distances.
        """
        # The k-th neighbour of each bank, by distances that are normalised by its local density.
        squared = [
            np.min([bank.nearest(part, k)[:, -1] for bank in banks], axis=0)
            for part, banks in zip(split_bands(points, self.bands), self.of_bands, strict=True)
        ]
        return distance(np.array(squared), self.metric).mean(axis=0)


def distance(squared: np.ndarray, metric: str) -> np.ndarray:
    """Return distances, given squared Euclidean ones."""
    # For unit vectors, 1 - cos is half of the squared distance.
    return squared / 2 if metric == "cosine" else np.sqrt(squared)


def normalised(points: np.ndarray, metric: str, bands: int = 1) -> np.ndarray:
    """Return points whose Euclidean distances, in each band, are those of the metric."""
    if metric != "cosine":
        return points
    return np.concatenate([unit(part) for part in split_bands(points, bands)], axis=1)


def split_bands(points: np.ndarray, bands: int) -> list[np.ndarray]:
    """Return the equal parts of (n, d) vectors, each (n, d / bands).

    Raises:
        ValueError: ``bands`` is less than 1, or does not divide d.

    >>> [part.tolist() for part in split_bands(np.array([[1, 2, 3, 4]]), 2)]
    [[[1, 2]], [[3, 4]]]
    """
    if bands < 1 or points.shape[1] % bands:
        raise ValueError(
            f"bands={bands}: expected a divisor of the {points.shape[1]} dimensions of the "
            "representation, such as its number of frequency bands"
        )
    return np.split(points, bands, axis=1)


def require_k(k: int) -> None:
    """Raise a ``ValueError`` if ``k`` is less than 1."""
    if k < 1:
        raise ValueError(f"k: expected 1 or more, found {k}")


def require_neighbours(k: int, sizes: np.ndarray) -> None:
    """Raise a ``TooFewClipsError`` if a bank has fewer than ``k`` points."""
    if k > sizes.min():
        where = "" if len(sizes) == 1 else " in each domain"
        raise TooFewClipsError(f"k={k} neighbours need as many clips{where}, found {sizes.min()}")
