"""Distance to k-means centres of the source domain and to all clips of the target domain."""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.cluster import KMeans
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.detectors.representations import TimeStatistics, count_parameters
from fsasd.detectors.scoring.bank import unit
from fsasd.detectors.scoring.order import canonical_order
from fsasd.detectors.stacking import n_different
from fsasd.detectors.vector_detector import VectorDetector, VectorsOf


class Centres(VectorDetector):
    """Cosine distance to the nearest of k-means centres and target clips.

    Wilkinghoff, github.com/wilkinghoff/DCASE2023_task2: source clips are many and are averaged;
    target clips are few, and averages of them would lie far from each. Centres of unit vectors are
    shorter than 1 and stay so, as in the original.

    Args:
        representation: Clips -> (n, d), of any length.
        k: Number of centres; of fewer different source clips all are kept.
        seed: Of k-means.
    """

    def __init__(
        self,
        representation: VectorsOf = TimeStatistics(),  # noqa: B008
        k: int = 16,
        seed: int = 0,
    ) -> None:
        self.representation = representation
        self.k = k
        self.seed = seed

    def fit(self, clips: Clips) -> Self:
        """Average the source clips, and keep the target clips.

        Raises:
            TooFewClipsError: There are no clips.
            ValueError: ``k`` is less than 1.
        """
        if self.k < 1:
            raise ValueError(f"k: expected 1 or more, found {self.k}")
        points = self._fitted_to(clips)(clips)
        # k-means draws its first centres by index.
        order = canonical_order(points)
        points, domains = unit(points[order]), clips.domains[order]
        source, target = points[domains != "target"], points[domains == "target"]
        if len(source) and n_different(source) > self.k:
            kmeans = KMeans(self.k, n_init=1, random_state=self.seed)
            source = kmeans.fit(source).cluster_centers_
        self.references_ = np.concatenate([source, target])
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return 1 minus the largest product with a reference."""
        check_is_fitted(self)
        return 1 - (unit(self._vectors_of(clips)) @ self.references_.T).max(axis=1)

    def n_parameters(self) -> int:
        """Return the number of values in the references, and of the representation's parameters."""
        check_is_fitted(self)
        return self.references_.size + count_parameters(self._vectors_of)
