"""TWFR-GMM: time-weighted frequency-domain representation, scored by a Gaussian mixture.

Guan et al., "Time-weighted frequency domain audio representation with GMM estimator for anomalous
sound detection" (ICASSP 2023), github.com/liuyoude/TWFR-GMM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.base import Detector, Params, TooFewClipsError
from fsasd.detectors.scoring.domains import with_mixed_target_clips
from fsasd.detectors.scoring.gaussian_mixture import (
    GaussianMixtures,
    fit_gaussian_mixtures,
    suitable_covariance,
)
from fsasd.detectors.scoring.order import canonical_order
from fsasd.detectors.scoring.scorers import MixtureScorer, mixture_scores
from fsasd.detectors.scoring.time_weighting import TimeWeighting, at_points
from fsasd.detectors.stacking import n_different

STEP = 0.05
"""Step along r from one mixture to the next, which starts from its responsibilities."""


class TWFRGMM(Detector):
    """Negative log-likelihood, under a Gaussian mixture, of a clip's time-weighted log-mel.

    The score is that of the original: the negated highest log density of any component, without
    mixture weights. At r=1 EM starts from k-means, as in the original; from there mixtures are
    fitted along r in steps of 0.05, each starting from the responsibilities of the last, and any
    other r starts from the nearest step. With a separate k-means for each r, the curve over r jumps
    between optima, most of them worse, and the choice of r depends on the seed.

    Args:
        r: Time weight.
        n_components: Number of Gaussians; 2 have 33,026 parameters.
        covariance: ``full`` (the paper's), ``shrunk``, or ``auto``: full if every component of the
            k-means partition has at least two clips per mel bin, else shrunk. With fewer clips than
            bins and a full covariance, training clips score about -600 and all others about 1e8.
        reg_covar: Added to the covariances' diagonals.
        max_seconds: Clips are decoded up to here.
        sampling_rate: At which recordings are read, in Hz; mel bands reach up to half of it.
        seed: Of k-means and of SMOTE.
        smote: Target clips per source clip to reach by SMOTE of waveforms (0.2 in
            SMOTE-TWFR-GMM); 0 adds none.
        smote_neighbours: Neighbours of SMOTE.
    """

    fits_in_threads: ClassVar[bool] = True

    def __init__(
        self,
        r: float = 1.0,
        n_components: int = 2,
        covariance: Literal["auto", "full", "shrunk"] = "auto",
        reg_covar: float = 1e-6,
        max_seconds: float = 10.0,
        sampling_rate: int = SAMPLE_RATE,
        seed: int = 0,
        smote: float = 0.0,
        smote_neighbours: int = 3,
    ) -> None:
        self.r = r
        self.n_components = n_components
        self.covariance = covariance
        self.reg_covar = reg_covar
        self.max_seconds = max_seconds
        self.sampling_rate = sampling_rate
        self.seed = seed
        self.smote = smote
        self.smote_neighbours = smote_neighbours

    def fit(self, clips: Clips) -> Self:
        """Fit the mixture.

        Raises:
            TooFewClipsError: There are fewer clips, without copies, than components.
            ValueError: ``r`` is negative, or ``covariance`` is unknown.
        """
        mixture = self._mixtures(clips, [self.r])
        for field in fields(mixture):
            setattr(self, f"{field.name}_", getattr(mixture, field.name))
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return -max_k log N_k of each clip."""
        mixture = self.mixture
        return MixtureScorer(
            self._representation([self.r]), mixture.means, mixture.precision_cholesky
        ).score(clips)

    def resolved_params(self) -> dict[str, Any]:
        """Return the covariance that ``auto`` chose."""
        if self.covariance != "auto":
            return {}
        return {"covariance": "shrunk" if self.mixture.shrunk[0] else "full"}

    @property
    def mixture(self) -> GaussianMixtures:
        """The fitted mixture, a grid of one point.

        Raises:
            NotFittedError: The detector is not fitted.
        """
        check_is_fitted(self)
        names = [field.name for field in fields(GaussianMixtures)]
        return GaussianMixtures(**{name: getattr(self, f"{name}_") for name in names})

    def n_parameters(self) -> int:
        """Return K (d² + d + 1), as in the paper."""
        return self.mixture.n_parameters

    def score_path(
        self, grid: Sequence[Params], fit_clips: Clips, score_clips: Clips
    ) -> np.ndarray:
        """Score a grid of time weights at little more than the cost of one.

        Each clip's frames are sorted once, all r are one matrix product, and the mixtures of all r
        are fitted together.
        """
        rows: dict[int, np.ndarray] = {}
        for others, members in _group_by_r(grid):
            detector = clone(self).set_params(**others)
            r = [float(grid[i].get("r", self.r)) for i in members]
            mixtures = detector._mixtures(fit_clips, r)
            pooled = score_clips.pooled(detector._representation(r))
            scores = _scores(mixtures, at_points(pooled, slice(-len(r), None)))
            rows |= dict(zip(members, scores, strict=True))
        return np.stack([rows[i] for i in range(len(grid))])

    def _representation(self, r: Sequence[float], to_fit: bool = False) -> TimeWeighting:
        """Return what represents each clip: by the path along r first, by r last.

        For one value of r there are both, so that a clip that is held out of one fold and fitted in
        the others is represented once. Of a grid, which is long, there is only what is asked for.
        """
        path, values = tuple(_path(r)[0]), tuple(map(float, r))
        groups = (path, values) if len(r) == 1 else (path if to_fit else values,)
        front_end = LogMel.twfr(self.max_seconds, self.sampling_rate)
        return TimeWeighting(front_end, tuple(dict.fromkeys(groups)))

    def _mixtures(self, clips: Clips, r: Sequence[float]) -> GaussianMixtures:
        if min(r) < 0:
            raise ValueError(f"r: expected 0 or more, found {min(r)}")
        if self.covariance not in ("auto", "full", "shrunk"):
            raise ValueError(f"covariance '{self.covariance}': expected 'auto', 'full' or 'shrunk'")
        if len(clips) < self.n_components:
            raise TooFewClipsError(
                f"{self.n_components} components need as many clips, found {len(clips)}"
            )
        points, after = _path(r)
        mixed = with_mixed_target_clips(
            clips, self.smote, self.smote_neighbours, self.seed, self.sampling_rate
        )
        representation = self._representation(r, to_fit=True)
        pooled = clips.pooled(representation) + mixed[len(clips) :].pooled(representation)
        order = canonical_order(np.stack([rows[0] for rows in pooled]))
        represented = at_points([pooled[clip] for clip in order], slice(len(points)))
        if (different := n_different(represented[0])) < self.n_components:
            # A component without a clip would have its mean at 0 dB.
            raise TooFewClipsError(
                f"{self.n_components} components need as many different clips, found {different} "
                f"among {len(clips)}"
            )
        start = KMeans(self.n_components, n_init=1, random_state=self.seed).fit(represented[0])
        covariance = self.covariance
        if covariance == "auto":
            covariance = suitable_covariance(start.labels_, represented.shape[2])
        mixtures = fit_gaussian_mixtures(
            represented,
            self.n_components,
            start=start.labels_,
            after=after,
            covariance=covariance,
            reg_covar=self.reg_covar,
        )
        return mixtures[np.array([points.index(value) for value in r])]


def _path(r: Sequence[float]) -> tuple[list[float], list[int | None]]:
    """Return the values of r to fit, 1 first, and for each the index of that it starts from.

    >>> _path([0.93, 1.0])
    ([1.0, 0.95, 0.93], [None, 0, 1])
    """
    depth: dict[float, int] = {}
    for value in r:
        way = [value]
        while way[-1] != 1.0:
            way.append(_before(way[-1]))
        depth |= {point: i for i, point in enumerate(reversed(way))}
    # Starting points come first, so that threads need not wait for one another.
    points = sorted(depth, key=lambda point: (depth[point], _nearest_step(point) != point))
    return points, [None if r == 1.0 else points.index(_before(r)) for r in points]


def _before(r: float) -> float:
    """Return the value before r on the path from 1: the nearest step, or the one before it."""
    step = _nearest_step(r)
    return step if step != r else _nearest_step(r + STEP if r < 1 else r - STEP)


def _nearest_step(r: float) -> float:
    return round(1 + STEP * round((r - 1) / STEP), 10)


def _scores(mixtures: GaussianMixtures, representations: np.ndarray) -> np.ndarray:
    return mixture_scores(mixtures.means, mixtures.precision_cholesky, representations)


def _group_by_r(grid: Sequence[Params]) -> list[tuple[dict[str, Any], list[int]]]:
    groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for i, params in enumerate(grid):
        others = {key: value for key, value in params.items() if key != "r"}
        groups.setdefault(repr(sorted(others.items())), (others, []))[1].append(i)
    return list(groups.values())
