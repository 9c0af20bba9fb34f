"""Scorers: what a fitted detector computes of clips, without the libraries that fitted it.

A detector of this module's kinds scores by them, and a saved one is read as one of them alone, so
that a command which scores a recording imports neither scikit-learn nor torch, which takes longer
than to score it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.detectors.saved import Saved, read
from fsasd.detectors.scoring.bank import Banks
from fsasd.detectors.scoring.densities import component_log_density
from fsasd.detectors.scoring.time_weighting import TimeWeighting, at_points
from fsasd.settings.objects import rebuilt
from fsasd.settings.parameters import check_value


class Scorer(Protocol):
    """What scores clips: any fitted detector is one."""

    def score(self, clips: Clips) -> np.ndarray:
        """Return (n,) anomaly scores; higher is more anomalous."""


@dataclass(frozen=True, eq=False)
class MixtureScorer:
    """TWFR-GMM's score: the negated highest log density of any component.

    Attributes:
        representation: Its last time weight is that of the mixture.
        means: (1, K, d).
        precision_cholesky: (1, K, d, d), see ``densities.component_log_density``.
    """

    representation: TimeWeighting
    means: np.ndarray
    precision_cholesky: np.ndarray

    def score(self, clips: Clips) -> np.ndarray:
        """Return -max_k log N_k of each clip."""
        points = at_points(clips.pooled(self.representation), slice(-1, None))
        return mixture_scores(self.means, self.precision_cholesky, points)[0]


@dataclass(frozen=True, eq=False)
class NeighbourScorer:
    """k-NN's score: the distance to the k-th nearest normal clip.

    Attributes:
        representation: Clips -> (n, d).
        banks: Of the normal clips.
        k: The neighbour whose distance is the score.
        rows: (n,) which training clip each point of the banks is of; -1 for a synthetic point.
    """

    representation: Callable[[Clips], np.ndarray]
    banks: Banks
    k: int
    rows: np.ndarray | None = None

    def score(self, clips: Clips) -> np.ndarray:
        """Return the distances to the k-th neighbours.

        Raises:
            TooFewClipsError: ``k`` is above the number of normal clips.
            ValueError: ``k`` is less than 1.
        """
        self.banks.require(self.k)
        return self.banks.scores(self.banks.normalised(self.representation(clips)), self.k)


def mixture_scores(
    means: np.ndarray, precision_cholesky: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Return (G, m) scores of (G, m, d) clips by G mixtures (see ``component_log_density``)."""
    return -component_log_density(means, precision_cholesky, points).max(axis=-1)


def load_scorer(folder: str | Path, trust: Iterable[str] = ()) -> Scorer:
    """Read what ``Detector.save`` wrote as what scores alike, with no more imports than it needs.

    Args:
        folder: See ``detectors.base.load``, as for what is raised.
        trust: See there.

    Returns:
        A scorer of this module; of any other class the detector.
    """
    folder, trust = Path(folder), tuple(trust)
    saved = read(folder)
    scorer = _scorer(saved, trust)
    if scorer is not None:
        return scorer
    from fsasd.detectors.base import restored

    return restored(saved, folder, trust)


def _scorer(saved: Saved, trust: Iterable[str]) -> Scorer | None:
    """Return the scorer of a saved detector; ``None`` where there is none, or a file is damaged.

    To say what is wrong with it is left to the detector, which knows its settings.
    """
    known = KINDS.get(saved.settings["class"])
    if known is None or saved.detectors or set(saved.arrays) != known.arrays:
        return None
    params = dict(saved.settings["params"])
    if set(params) != {*known.hints, *known.parts}:
        return None
    try:
        for name, hint in known.hints.items():
            check_value(name, params[name], hint)
        params |= {name: rebuilt(params[name], trust) for name in known.parts}
        return known.make(params, saved.arrays)
    except (ValueError, TypeError, LookupError, OverflowError):
        return None


def _mixture_scorer(params: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> MixtureScorer:
    front_end = LogMel.twfr(params["max_seconds"], params["sampling_rate"])
    weighting = TimeWeighting(front_end, ((float(params["r"]),),))
    return MixtureScorer(weighting, arrays["means_"], arrays["precision_cholesky_"])


def _neighbour_scorer(
    params: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> NeighbourScorer:
    arrays_of = arrays["points_"], arrays["sizes_"], arrays["density_"]
    banks = Banks(*arrays_of, params["metric"], params["bands"])
    return NeighbourScorer(params["representation"], banks, params["k"], arrays["rows_"])


@dataclass(frozen=True)
class Kind:
    """A class of detectors that a scorer is known of.

    Attributes:
        hints: Types of its parameters that are plain, as its constructor has them.
        parts: Its other parameters.
        arrays: Names of its fitted arrays.
        make: Parameters and arrays -> scorer.
    """

    hints: Mapping[str, Any]
    parts: frozenset[str]
    arrays: frozenset[str]
    make: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Scorer]


KINDS = {
    "fsasd.detectors.twfr_gmm.TWFRGMM": Kind(
        {
            "r": float, "n_components": int, "covariance": Literal["auto", "full", "shrunk"],
            "reg_covar": float, "max_seconds": float, "sampling_rate": int, "seed": int,
            "smote": float, "smote_neighbours": int,
        },
        frozenset(),
        frozenset({
            "weights_", "means_", "precision_cholesky_", "converged_", "n_iter_", "lower_bound_",
            "shrunk_",
        }),
        _mixture_scorer,
    ),
    "fsasd.detectors.knn.KNN": Kind(
        {
            "k": int, "metric": Literal["euclidean", "cosine"],
            "domains": Literal["pooled", "separate"], "density": int, "bands": int, "smote": float,
            "smote_neighbours": int, "seed": int,
        },
        frozenset({"representation"}),
        frozenset({"points_", "sizes_", "density_", "rows_"}),
        _neighbour_scorer,
    ),
}  # fmt: skip
"""By the name of the class."""
