"""An ensemble of the networks of one representation: their scores, pooled."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.data.front_ends import compute_together
from fsasd.detectors.base import Detector
from fsasd.detectors.learned import LearnedRepresentation
from fsasd.detectors.vector_detector import VectorDetector

_POOLS: dict[str, Callable[..., np.ndarray]] = {"max": np.max, "mean": np.mean}


class Pooled(Detector):
    """The mean or the highest score of a detector on each network of its representation.

    A detector by itself sees the embeddings of all networks as one vector. A clip is decoded once
    for all networks.

    Args:
        each: The detector of a network, with a learned representation.
        pool: ``mean`` or ``max``.

    >>> from fsasd.detectors.systems.fkie import FKIE
    >>> from fsasd.detectors.knn import KNN
    >>> Pooled(KNN(FKIE(networks=2))).set_params(each__k=2).each.k
    2
    """

    score_params: ClassVar[frozenset[str]] = frozenset({"pool"})

    def __init__(self, each: VectorDetector, pool: Literal["mean", "max"] = "mean") -> None:
        self.each = each
        self.pool = pool

    def fit(self, clips: Clips) -> Self:
        """Fit a copy of the detector to the embeddings of each network.

        Raises:
            ValueError: ``pool`` is unknown, or the detector's representation is not learned.
        """
        if self.pool not in _POOLS:
            raise ValueError(f"pool '{self.pool}': expected one of {', '.join(_POOLS)}")
        representation = getattr(self.each, "representation", None)
        if not isinstance(representation, LearnedRepresentation):
            raise ValueError(
                f"each: expected a detector on a learned representation, found {self.each!r}"
            )
        self.detectors_ = {
            str(number): clone(self.each)
            .set_params(representation=representation.alone(number))
            .fit(clips)
            for number in representation.network_numbers()
        }
        self._restored()
        return self

    def _restored(self) -> None:
        # Each detector has its network by itself.
        fitted = (detector.representation_ for detector in self.detectors_.values())
        compute_together(network for one in fitted for network in one.front_ends())

    def score(self, clips: Clips) -> np.ndarray:
        """Return the pooled scores."""
        check_is_fitted(self)
        scores = [detector.score(clips) for detector in self.detectors_.values()]
        return _POOLS[self.pool](scores, axis=0)

    def n_parameters(self) -> int:
        """Return the sum of the numbers of parameters."""
        check_is_fitted(self)
        return sum(detector.n_parameters() for detector in self.detectors_.values())
