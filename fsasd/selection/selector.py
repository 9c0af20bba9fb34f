"""Choose a detector's parameters on synthetic clips (METHOD, step 5): curve, argmax, abstention.

The paper takes the setting of highest objective, however near the next is. Here the detector keeps
its default setting unless the gain is significant (``significance.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.detectors.base import Detector
from fsasd.evaluation.metrics import known_domains
from fsasd.evaluation.resampling import Areas, resample, resampled_areas
from fsasd.selection.combination import Combination
from fsasd.selection.evidence import Curve, ScoredClips
from fsasd.selection.rungs import rung_weights
from fsasd.selection.selection import Selection
from fsasd.selection.settings import Candidates, Grid, combinations, settings_frame
from fsasd.selection.significance import (
    NEGLIGIBLE,
    WIDE_GAP,
    critical_value,
    insignificant_gain,
    n_independent,
)
from fsasd.settings.objects import described

if TYPE_CHECKING:
    from fsasd.selection.sources.base import Source

OBJECTIVES: dict[str, Callable[[Areas], NDArray[np.float64]]] = {
    "mean": lambda areas: (areas.auc + areas.pauc) / 2,
    "auc": lambda areas: areas.auc,
    "pauc": lambda areas: areas.pauc,
    "official": lambda areas: areas.official,
}


NUMBERS = ("auc", "pauc", "auc_source", "auc_target", "objective", "low", "high", "picked")
"""Columns of a curve's table with what was measured."""


class Selector:
    """The setting that best separates synthetic anomalies from synthetic normals, if it is better.

    ``abstain`` keeps the detector's default setting unless another's gain exceeds its critical
    value (``significance.critical_value``).

    Args:
        grid: Parameter to the values to try; all combinations are tried. A list of such grids is
            tried one after the other. Without a grid nothing is chosen.
        objective: ``mean`` of AUC and pAUC, ``auc``, ``pauc`` or ``official``, the harmonic mean of
            AUC (source), AUC (target) and pAUC (of AUC and pAUC where no clip has a domain).
        baselines: Settings of the grid to report beside the chosen one.
        abstain: Keep the detector's default setting where no gain is significant, where there are
            too few clips, or where ``max_gap`` asks for it; false is the paper's rule.
        max_gap: AUC of synthetic against real normals beyond which (or below 1 minus which)
            nothing is chosen on them, nor where there are too few to establish it
            (``significance.MIN_CLIPS_FOR_GAP``), unless they are calibrated; ``None`` for no
            limit.
        calibrate: Remove the gap between synthetic and real normals first (see
            ``crossfit.calibrated``).
        level: Of the intervals and of the critical value.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        ladder: Weight synthetic anomalies by their strength (``rungs.rung_weights``), where their
            generator makes several.
        sources: Name to a source of evidence beside or instead of the synthetic clips
            (``selection.sources``); without any, the choice is by these alone.
        combination: How the sources' estimates are combined.

    Raises:
        ValueError: The objective is not known, or ``max_gap`` is no limit.

    >>> selector = Selector({"r": [0.9, 1.0, 1.1]})
    >>> scores = np.array([[1, 2, 0], [0, 1, 2], [0, 1, 2]])
    >>> selector.curve([0, 0, 1], scores).table["auc"].tolist()
    [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        grid: Grid | Sequence[Grid] | None = None,
        objective: str = "mean",
        baselines: Sequence[Mapping[str, Any]] = (),
        abstain: bool = True,
        max_gap: float | None = WIDE_GAP,
        calibrate: bool = False,
        level: float = 0.95,
        resamples: int = 200,
        seed: int = 0,
        ladder: bool = True,
        sources: Mapping[str, Source | None] | None = None,
        combination: Combination | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"objective '{objective}': expected one of {', '.join(OBJECTIVES)}")
        if max_gap is not None and not 0.5 < max_gap < 1:
            raise ValueError(
                f"max_gap {max_gap}: expected an AUC above 0.5 and below 1, or null not to ask"
            )
        grids = [grid] if isinstance(grid, Mapping) else list(grid or [])
        # NumPy's integers, of an arange, could not be saved with the detector they are chosen for.
        self.grids = [
            {
                key: [v.item() if isinstance(v, np.generic) else v for v in values]
                for key, values in one.items()
            }
            for one in grids
        ]
        self.objective = objective
        self.baselines = [dict(setting) for setting in baselines]
        self.abstain = abstain
        self.max_gap = max_gap
        self.calibrate = calibrate
        self.level = level
        self.resamples = resamples
        self.seed = seed
        self.ladder = ladder
        self.sources = {name: one for name, one in (sources or {}).items() if one is not None}
        self.combination = combination or Combination()

    def measured(self) -> dict[str, Any]:
        """Return what determines the scores that ``choice.measure`` takes: JSON.

        >>> Selector({"k": [1, 2]}, max_gap=None).measured()
        {'grids': [{'k': [1, 2]}], 'calibrate': False, 'gap': False}
        """
        return {
            "grids": described(self.grids, "grid"),
            "calibrate": self.calibrate,
            "gap": self.max_gap is not None,
        }

    def rule(self) -> dict[str, Any]:
        """Return what else determines the choice on these scores (``choice.choose``): JSON.

        >>> Selector({"k": [1, 2]}).rule()["objective"]
        'mean'
        """
        names = (
            "objective", "abstain", "max_gap", "calibrate", "level", "resamples", "seed", "ladder",
        )  # fmt: skip
        rule = {name: getattr(self, name) for name in names}
        if self.sources:
            rule["sources"] = {name: one.described() for name, one in self.sources.items()}
            rule["combination"] = self.combination.described()
        return rule

    def settings(self) -> list[dict[str, Any]]:
        """Return every combination of the grid's values."""
        return combinations(self.grids)

    def candidates(self, detector: Detector) -> Candidates:
        """Return the grid's settings, and the detector's default setting among or after them."""
        return Candidates.of(detector, self.grids)

    def check(self, detector: Detector) -> None:
        """Raise if the detector lacks a parameter of the grid.

        Raises:
            ValueError: Names the parameter and those that the detector has.
        """
        keys = {key for grid in self.grids for key in grid}
        if unknown := keys - set(detector.get_params()):
            raise ValueError(
                f"{type(detector).__name__} has no parameter {', '.join(sorted(unknown))}: "
                f"it has {', '.join(detector.get_params())}"
            )

    def curve(
        self,
        labels: ArrayLike,
        scores: ArrayLike,
        domains: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        candidates: Candidates | None = None,
    ) -> Curve:
        """Evaluate every setting.

        Args:
            labels: (n,) 1 for anomaly, both labels present.
            scores: (settings, n).
            domains: (n,) ``source`` or ``target``; none by default.
            groups: (n,) equal for clips of one recording (see ``resampling.resample``).
            weights: (n,) of the clips; all alike by default.
            candidates: The settings; of equals that nearest the default is the best. By default
                they are the grid's, and the first of equals is the best.
        """
        labels = np.asarray(labels)
        settings = self.settings() if candidates is None else candidates.settings
        objective_of = OBJECTIVES[self.objective]
        weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=float)
        once = resampled_areas(labels, domains, scores, weights[None])
        objective = objective_of(once)[:, 0]
        drawn = self._drawn(labels, domains, groups) * weights
        resampled = objective_of(resampled_areas(labels, domains, scores, drawn))
        tails = [(1 - self.level) / 2, (1 + self.level) / 2]
        low, high = np.quantile(resampled, tails, axis=1)
        distance = np.zeros(len(settings)) if candidates is None else candidates.distances()
        # The default setting competes only where the grid has it.
        tried = slice(len(self.settings()))
        picks = _best(resampled[tried], distance[tried])
        table = settings_frame(settings).assign(
            auc=once.auc[:, 0],
            pauc=once.pauc[:, 0],
            auc_source=once.auc_source[:, 0],
            auc_target=once.auc_target[:, 0],
            objective=objective,
            low=low,
            high=high,
            picked=np.bincount(picks, minlength=len(settings)) / len(picks),
        )
        best = int(_best(objective[tried, None], distance[tried])[0])
        return Curve(settings, table, resampled, best)

    def objectives(
        self,
        clips: ScoredClips,
        *,
        groups: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        resampled: bool = True,
    ) -> NDArray[np.float64]:
        """Return the objective of every setting on scored clips.

        Args:
            clips: Of both labels.
            groups: (n,) equal for clips that are resampled together.
            weights: (n,) of the clips; those of their rungs come to them (``rung_weights``).
            resampled: Whether on resamples, too.

        Returns:
            (settings, 1 + resamples): as observed, then on each resample; or (settings, 1).
        """
        domains = known_domains(clips.domains)
        weights = np.ones(len(clips.labels)) if weights is None else np.asarray(weights)
        weights = weights * self.rung_weights(clips, weights)
        counts = weights[None]
        if resampled:
            drawn = self._drawn(clips.labels, domains, groups)
            counts = np.vstack([counts, drawn * weights])
        areas = resampled_areas(clips.labels, domains, clips.scores, counts)
        return OBJECTIVES[self.objective](areas)

    def rung_weights(
        self, clips: ScoredClips, weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return the weights of clips by their strength (``rungs.rung_weights``).

        Args:
            clips: Of both labels.
            weights: (n,) that they have beside these.
        """
        weights = np.ones(len(clips.labels)) if weights is None else weights
        if not self.ladder:
            return np.ones(len(weights))

        def auc_of(of_rung: NDArray[np.float64]) -> NDArray[np.float64]:
            counts = (of_rung * weights)[None]
            return resampled_areas(clips.labels, None, clips.scores, counts).auc[:, 0]

        # A rung none of whose clips count is none.
        strengths = np.where(weights > 0, clips.strengths, np.nan)
        return rung_weights(strengths, clips.labels, auc_of)

    def _drawn(
        self, labels: NDArray, domains: ArrayLike | None, groups: ArrayLike | None
    ) -> NDArray[np.int_]:
        # A domain that is evaluated by itself must not run out of clips.
        divided = self.objective == "official" and domains is not None
        strata = (labels, np.asarray(domains)) if divided else (labels,)
        return resample(*strata, n=self.resamples, seed=self.seed, groups=groups)

    def select(
        self,
        candidates: Candidates,
        labels: ArrayLike,
        scores: ArrayLike,
        domains: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        abstain_reason: str = "",
    ) -> Selection:
        """Choose a setting; of equals, that nearest the detector's default.

        Args:
            candidates: The settings.
            labels: (n,) of synthetic clips, 1 for anomaly, both present.
            scores: (candidates, n) of detectors fitted on real normal clips.
            domains: (n,) of the synthetic clips; none by default.
            groups: (n,) equal for clips of one recording; none by default.
            weights: (n,) of the clips; all alike by default.
            abstain_reason: Why nothing is to be chosen on these clips, if so.
        """
        curve = self.curve(
            labels, scores, domains, groups=groups, weights=weights, candidates=candidates
        )
        default, best = candidates.default, curve.best
        gains = curve.table["objective"].to_numpy() - curve.table["objective"][default]
        resampled = curve.resampled - curve.resampled[default]
        tried = slice(candidates.n_grid)
        labels = np.asarray(labels)
        groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
        independent = n_independent(groups[labels == 0]), n_independent(groups[labels == 1])
        critical = critical_value(
            gains[tried], resampled[tried], best, self.level, sum(independent)
        )
        gain, settings, reason = float(gains[best]), candidates.settings, abstain_reason
        if self.abstain and not reason:
            reason = insignificant_gain(
                settings[best], settings[default], independent, gain, critical, candidates.n_grid
            )
        chosen = default if reason else best
        rows = curve.table.index
        marks = {"default": rows == default, "argmax": rows == best, "chosen": rows == chosen}
        table = curve.table.assign(**marks)
        table["abstain_reason"] = np.where(table["chosen"], reason, "")
        return Selection(
            table, settings[chosen], settings[best], reason, gain, critical, curve.resampled
        )

    def keep_default(self, candidates: Candidates, reason: str) -> Selection:
        """Keep the detector's default setting, since nothing could be tried."""
        default = candidates.settings[candidates.default]
        table = settings_frame([default]).assign(**dict.fromkeys(NUMBERS, np.nan))
        table = table.assign(default=True, argmax=True, chosen=True, abstain_reason=reason)
        return Selection(table, default, default, reason, np.nan, np.nan, np.empty((1, 0)))


def _best(objective: NDArray[np.float64], distance: NDArray) -> NDArray[np.int_]:
    """Row of the highest objective in each column; of equals, that of the least distance."""
    equal = objective >= objective.max(axis=0) - NEGLIGIBLE
    return np.argmin(np.where(equal, distance[:, None], np.inf), axis=0)


def best_of(objective: NDArray[np.float64], candidates: Candidates) -> int:
    """Return the row of the highest objective; of equals that nearest the default setting.

    Args:
        objective: (n,) of the first of the candidates.
        candidates: The settings.
    """
    return int(_best(objective[:, None], candidates.distances()[: len(objective)])[0])
