"""Nearest neighbours: how far a clip is from the normal clips, in any representation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_is_fitted

from fsasd.data.audio import Clips
from fsasd.detectors.base import Detector, TooFewClipsError
from fsasd.detectors.domains import Domains, banks, missing, smote
from fsasd.detectors.representations import TimeStatistics, learnt_by

_CHUNK = 2**24
"""Distances held at a time."""


class KNN(Detector):
    """Distance to the k-th nearest normal clip.

    With ``density`` K, a distance to a normal clip y is divided by the mean distance from y to its
    own K nearest normal clips, so that a sparse target domain is not anomalous for being sparse:
    local density normalisation (Wilkinghoff et al., "Keeping the balance: anomaly score calculation
    for domain generalization", ICASSP 2025; its K is 1 to 16).

    Args:
        representation: What makes a vector of a clip.
        k: The neighbour whose distance is the score.
        metric: ``euclidean``, or ``cosine``: 1 - cos.
        domains: ``pooled``, or ``separate``: the k-th neighbour is looked for in each domain, and
            the nearer one counts. With k=1 it makes no difference.
        density: K of the local density normalisation, all other clips where there are fewer; 0
            does without.
        smote: Target clips for each source clip that there shall be, the missing ones made by
            SMOTE of the representations; 0 makes none, 0.2 is usual.
        smote_neighbours: SMOTE's.
        seed: SMOTE's.
    """

    only_scored: ClassVar[frozenset[str]] = frozenset({"k"})

    def __init__(
        self,
        representation: Callable[[Clips], np.ndarray] = TimeStatistics(),  # noqa: B008
        k: int = 1,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        domains: Domains = "pooled",
        density: int = 0,
        smote: float = 0.0,
        smote_neighbours: int = 2,
        seed: int = 0,
    ) -> None:
        self.representation = representation
        self.k = k
        self.metric = metric
        self.domains = domains
        self.density = density
        self.smote = smote
        self.smote_neighbours = smote_neighbours
        self.seed = seed

    def fit(self, clips: Clips) -> Self:
        """Remember the representations of normal clips.

        Raises:
            TooFewClipsError: There are too few for ``k``, ``density`` or SMOTE.
            ValueError: A setting is not known.
        """
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric '{self.metric}': expected 'euclidean' or 'cosine'")
        points, bank = self._points(clips), banks(clips, self.domains)
        if count := missing(clips.domains, self.smote):
            target = clips.domains == "target"
            made = smote(points[target], count, self.smote_neighbours, self.seed)
            points = np.concatenate([points, self._normalised(made)])
            bank = np.concatenate([bank, np.full(count, bank[target][0])])
        # Banks lie one after the other.
        order = np.argsort(bank, kind="stable")
        self.points_ = points[order]
        self.squares_ = np.sum(self.points_**2, axis=1)
        self.sizes_ = np.bincount(bank)
        self._require_neighbours()
        self.density_ = self._local_density()
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the distances to the k-th neighbours.

        Raises:
            TooFewClipsError: ``k`` was raised above the number of normal clips.
        """
        check_is_fitted(self)
        self._require_neighbours()
        points = self._points(clips)
        rows = max(1, _CHUNK // len(self.points_))
        chunks = [self._nearest(points[i : i + rows]) for i in range(0, len(points), rows)]
        return np.concatenate(chunks) if chunks else np.empty(0)

    def n_parameters(self) -> int:
        """Return how many numbers the bank holds, and an encoder beside it."""
        check_is_fitted(self)
        return self.points_.size + learnt_by(self.representation)

    def _nearest(self, points: np.ndarray) -> np.ndarray:
        # Squares have the order of distances; what all neighbours of a clip share is left out.
        roughly = points @ self.points_.T
        roughly *= -2
        roughly += self.squares_
        if self.density:
            roughly += np.sum(points**2, axis=1, keepdims=True)
            roughly /= self.density_ if self.metric == "cosine" else self.density_**2
        scores = np.full(len(points), np.inf)
        for start, stop in self._spans():
            of_bank = roughly[:, start:stop]
            neighbour = start + of_bank.argpartition(self.k - 1, axis=1)[:, self.k - 1]
            # Fast distances are differences of large numbers, which depend on the clips beside.
            distance = self._distance(points, self.points_[neighbour]) / self.density_[neighbour]
            scores = np.minimum(scores, distance)
        return scores

    def _distance(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        squared = np.sum((one - other) ** 2, axis=1)
        return squared / 2 if self.metric == "cosine" else np.sqrt(squared)

    def _local_density(self) -> np.ndarray:
        if not self.density:
            return np.ones(len(self.points_))
        count = min(self.density, len(self.points_) - 1)
        if not count:
            raise TooFewClipsError("the density around a normal clip needs 2 clips, found 1")
        density = np.empty(len(self.points_))
        rows = max(1, _CHUNK // len(self.points_))
        for start in range(0, len(density), rows):
            points = self.points_[start : start + rows]
            squared = euclidean_distances(points, self.points_, squared=True)
            squared[np.arange(len(points)), start + np.arange(len(points))] = np.inf
            nearest = squared.argpartition(count - 1, axis=1)[:, :count]
            distances = [self._distance(points, self.points_[column]) for column in nearest.T]
            density[start : start + rows] = np.mean(distances, axis=0)
        # A clip that is in the bank several times has no distance to its neighbours.
        positive = density[density > 0]
        return np.maximum(density, positive.min() if positive.size else 1.0)

    def _points(self, clips: Clips) -> np.ndarray:
        return self._normalised(self.representation(clips))

    def _normalised(self, points: np.ndarray) -> np.ndarray:
        if self.metric != "cosine":
            return points
        length = np.linalg.norm(points, axis=1, keepdims=True)
        return points / np.where(length > 0, length, 1.0)

    def _spans(self) -> list[tuple[int, int]]:
        stops = np.cumsum(self.sizes_).tolist()
        return list(zip([0, *stops[:-1]], stops, strict=True))

    def _require_neighbours(self) -> None:
        if not 1 <= self.k <= self.sizes_.min():
            where = "" if len(self.sizes_) == 1 else " in each domain"
            raise TooFewClipsError(
                f"k={self.k} neighbours need as many clips{where}, found {self.sizes_.min()}"
            )
