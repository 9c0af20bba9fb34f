"""k-nearest neighbours: distance to the normal clips, in any representation."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.representations import TimeStatistics, count_parameters
from fsasd.detectors.scoring.bank import (
    Bank,
    Banks,
    distance,
    normalised,
    require_k,
    require_neighbours,
    split_bands,
)
from fsasd.detectors.scoring.domains import Domains, banks, n_missing_target_clips, smote
from fsasd.detectors.scoring.scorers import NeighbourScorer
from fsasd.detectors.vector_detector import VectorDetector, VectorsOf


class KNN(VectorDetector):
    """Distance to the k-th nearest normal clip.

    With ``density`` K, a distance to a normal clip y is divided by the mean distance from y to the
    K normal clips nearest to it, so that clips of a sparse target domain do not all score high:
    local density normalisation (Wilkinghoff et al., "Keeping the balance: anomaly score calculation
    for domain generalization", ICASSP 2025; its K is 1 to 16).

    With ``bands``, each frequency band has its own nearest clips, and the mean of their distances
    is the score, so that neither one clip has to match in all bands nor bands of much energy
    outweigh the others (Saengthong and Shinozaki, "Sub-band spectral matching with localized score
    aggregation", arXiv 2603.13749).

    Args:
        representation: Clips -> (n, d).
        k: The neighbour whose distance is the score.
        metric: ``euclidean``, or ``cosine``: 1 - cos.
        domains: ``pooled``, or ``separate``: the k-th neighbour is searched in each domain, and the
            nearer one counts. With k=1 it makes no difference.
        density: K of the local density normalisation, at most the number of other clips; 0 for
            none.
        smote: Target clips per source clip to reach by SMOTE of the representations; 0 adds none,
            0.2 is usual.
        smote_neighbours: Neighbours of SMOTE.
        seed: Of SMOTE.
        bands: Equal parts of the representation that are matched apart, such as the bands of a
            patch encoder (BEATs 8, AST 12) or of ``Patches``.
    """

    score_params: ClassVar[frozenset[str]] = frozenset({"k"})

    def __init__(
        self,
        representation: VectorsOf = TimeStatistics(),  # noqa: B008
        k: int = 1,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        domains: Domains = "pooled",
        density: int = 0,
        smote: float = 0.0,
        smote_neighbours: int = 2,
        seed: int = 0,
        bands: int = 1,
    ) -> None:
        self.representation = representation
        self.k = k
        self.metric = metric
        self.domains = domains
        self.density = density
        self.smote = smote
        self.smote_neighbours = smote_neighbours
        self.seed = seed
        self.bands = bands

    def fit(self, clips: Clips) -> Self:
        """Store the representations of normal clips.

        Raises:
            TooFewClipsError: There are too few for ``k``, ``density`` or SMOTE.
            ValueError: A parameter is out of range.
        """
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric '{self.metric}': expected 'euclidean' or 'cosine'")
        if self.density < 0:
            raise ValueError(f"density: expected 0 or more, found {self.density}")
        require_k(self.k)
        points = self._normalised(self._fitted_to(clips)(clips))
        bank = banks(clips, self.domains)
        if count := n_missing_target_clips(clips.domains, self.smote):
            target = clips.domains == "target"
            synthetic = smote(points[target], count, self.smote_neighbours, self.seed)
            points = np.concatenate([points, self._normalised(synthetic)])
            bank = np.concatenate([bank, np.full(count, bank[target][0])])
        # Points of one bank are contiguous.
        order = np.argsort(bank, kind="stable")
        self.points_ = points[order]
        self.rows_ = np.where(order < len(clips), order, -1)
        self.sizes_ = np.bincount(bank)
        require_neighbours(self.k, self.sizes_)
        self.density_ = self._local_density()
        self._restored()
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the distances to the k-th neighbours.

        Raises:
            TooFewClipsError: ``k`` was raised above the number of normal clips.
            ValueError: ``k`` was set to less than 1.
        """
        check_is_fitted(self)
        return NeighbourScorer(self._vectors_of, self._banks, self.k).score(clips)

    def n_parameters(self) -> int:
        """Return the number of values in the bank, and of the parameters of an encoder."""
        check_is_fitted(self)
        return self.points_.size + count_parameters(self._vectors_of)

    def _local_density(self) -> np.ndarray:
        of_bands = [self._density(part) for part in split_bands(self.points_, self.bands)]
        return of_bands[0] if self.bands == 1 else np.stack(of_bands)

    def _density(self, points: np.ndarray) -> np.ndarray:
        if not self.density:
            return np.ones(len(points))
        count = min(self.density, len(points) - 1)
        if not count:
            raise TooFewClipsError("the density around a normal clip needs 2 clips, found 1")
        # The nearest is the clip itself, or a copy of it.
        squared = Bank(points).nearest(points, count + 1)[:, 1:]
        density = distance(squared, self.metric).mean(axis=1)
        # Copies of a clip have distance 0 to their neighbours.
        positive = density[density > 0]
        return np.maximum(density, positive.min() if positive.size else 1.0)

    def _restored(self) -> None:
        self._banks = Banks(self.points_, self.sizes_, self.density_, self.metric, self.bands)

    def _normalised(self, points: np.ndarray) -> np.ndarray:
        return normalised(points, self.metric, self.bands)
