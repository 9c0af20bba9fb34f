"""An ensemble of detectors, by their standardised scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.oddness import odd_scores
from fsasd.evaluation.thresholds import held_out_scores


def _weighted_mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ scores / weights.sum()


_COMBINE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": _weighted_mean,
    "max": lambda scores, weights: scores[weights > 0].max(axis=0),
    "min": lambda scores, weights: scores[weights > 0].min(axis=0),
    "rank": _weighted_mean,
}
"""Scores that are combined are standardised, for ``rank`` they are ranks among normal clips."""


class Ensemble(Detector):
    """Detectors whose scores are standardised on held-out normal training clips, then combined.

    A detector's scores are standardised to mean 0 and standard deviation 1 on training clips that
    it was not fitted on (``held_out_scores``), since scores of fitted clips are lower. Odd clips
    (``odd_scores``) are left out. Networks of ``prepare`` were trained on these clips, too. The
    lowest of standardised scores (``min``) is the fusion of arXiv 2606.19269.

    ``rank`` takes the mean of ranks instead, the share of the held-out scores that is lower, so
    that no detector outweighs the others by its scale; beyond the highest, 1 and the standardised
    distance to it.

    Args:
        detectors: Name to detector.
        combine: ``mean`` (weighted), ``max``, ``min`` or ``rank`` (weighted).
        weights: Name to weight, 0 or more; 1 by default. Detectors of weight 0 are left out of
            ``max`` and ``min``, too.
        folds: Of the held-out scores; each takes a fit of every detector.
        seed: Of the folds.
    """

    score_params: ClassVar[frozenset[str]] = frozenset({"combine", "weights"})

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        combine: str = "mean",
        weights: Mapping[str, float] | None = None,
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.detectors = detectors
        self.combine = combine
        self.weights = weights
        self.folds = folds
        self.seed = seed

    def fit(self, clips: Clips) -> Self:
        """Fit every detector, once for each fold and once to all clips.

        Raises:
            ValueError: There are no detectors, fewer than 2 clips, or an unknown ``combine`` or
                weight.
        """
        self._weights()
        # Folds are drawn by index: clips are sorted by path, so that their order does not matter.
        clips = clips[sorted(range(len(clips)), key=lambda i: str(clips[i].path))]
        self.members_ = {name: clone(d).fit(clips) for name, d in self.detectors.items()}
        mean, spread, ordered = {}, {}, {}
        groups = recording_groups(clips.recordings)
        for name, member in self.members_.items():
            held_out = held_out_scores(member.resolved(), clips, self.folds, self.seed, groups)
            normal = held_out[~odd_scores(held_out, clips.domains.tolist(), clips.states)]
            mean[name], spread[name] = normal.mean(), normal.std()
            ordered[name] = np.sort(normal)
        self.mean_, self.normal_ = mean, ordered
        # Scores that are constant on normal clips are not scaled.
        self.spread_ = {name: value or np.float64(1.0) for name, value in spread.items()}
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the combined standardised scores, or ranks."""
        check_is_fitted(self)
        weights = self._weights()
        comparable = self._rank if self.combine == "rank" else self._standardised
        scores = [comparable(name, member.score(clips)) for name, member in self.members_.items()]
        return _COMBINE[self.combine](np.stack(scores), weights)

    def resolved_params(self) -> dict[str, Any]:
        """Return the resolved parameters of its detectors, ``<name>__<parameter>``."""
        return {
            f"{name}__{key}": value
            for name, member in self.members_.items()
            for key, value in member.resolved_params().items()
        }

    def n_parameters(self) -> int:
        """Return the sum of the detectors' numbers of parameters."""
        check_is_fitted(self)
        return sum(member.n_parameters() for member in self.members_.values())

    def _standardised(self, name: str, scores: np.ndarray) -> np.ndarray:
        return (scores - self.mean_[name]) / self.spread_[name]

    def _rank(self, name: str, scores: np.ndarray) -> np.ndarray:
        normal = self.normal_[name]
        share = np.interp(scores, normal, np.linspace(0, 1, len(normal)))
        return share + np.maximum(scores - normal[-1], 0) / self.spread_[name]

    def _weights(self) -> np.ndarray:
        if self.combine not in _COMBINE:
            raise ValueError(f"combine '{self.combine}': expected one of {', '.join(_COMBINE)}")
        given = dict(self.weights or {})
        if unknown := set(given) - set(self.detectors):
            raise ValueError(
                f"weights of {', '.join(sorted(unknown))}: expected some of "
                f"{', '.join(self.detectors) or '(no detectors)'}"
            )
        weights = np.array([given.get(name, 1.0) for name in self.detectors], dtype=float)
        if not np.all(weights >= 0) or not weights.sum() > 0:
            raise ValueError(
                f"weights: expected numbers of 0 or more, at least one above, found {given} for "
                f"detectors {', '.join(self.detectors) or '(none)'}"
            )
        return weights
