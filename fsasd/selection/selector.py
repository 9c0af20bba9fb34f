"""Choose a detector's parameters on synthetic clips (METHOD, step 5), and when not to.

The paper takes the setting of highest objective, whatever the distance to the next. How much of
that distance is the luck of the clips that were drawn, the bootstrap tells: all settings score the
same clips, so a resample of the clips gives a curve anew, and differences along it are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import ParameterGrid

from fsasd.detectors.base import Detector
from fsasd.evaluation.uncertainty import Areas, resample, resampled_areas

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]

MIN_CLIPS = 5
"""Of each label; resamples of fewer clips say little about other clips."""

WIDE_GAP = 0.75
"""AUC of synthetic against real normal clips: surely beyond it, they are other sounds."""

_EQUAL = 1e-9  # AUCs of n clips move in steps of 1 / n^2: what differs by less is equal.


OBJECTIVES: dict[str, Callable[[Areas], NDArray[np.float64]]] = {
    "mean": lambda areas: (areas.auc + areas.pauc) / 2,
    "auc": lambda areas: areas.auc,
    "pauc": lambda areas: areas.pauc,
    "official": lambda areas: areas.official,
}


@dataclass(frozen=True, eq=False)
class Curve:
    """What each setting achieves on labelled clips.

    Attributes:
        settings: What was tried.
        table: One row per setting: its parameters, ``auc``, ``pauc``, ``auc_source``,
            ``auc_target``, ``objective``, the 95 % interval of that (``low``, ``high``), and
            ``picked``, the share of resamples in which it is the best.
        resampled: (settings, resamples) objectives.
        best: Row of the best setting; of equals, that nearest the detector's own.
    """

    settings: list[dict[str, Any]]
    table: pd.DataFrame
    resampled: NDArray[np.float64]
    best: int


@dataclass(frozen=True, eq=False)
class Selection:
    """What was tried on a machine and what was chosen.

    Attributes:
        curve: ``Curve.table`` with the marks ``own`` (the detector's own setting), ``argmax`` (the
            paper's choice) and ``chosen`` (what is used), and ``reason``. Where nothing could be
            tried, the one row of the detector's own setting, without numbers.
        params: The setting that is used.
        argmax: The setting of highest objective; the own one where nothing could be tried.
        reason: Why the detector keeps its own setting; empty where it takes the highest.
        gain: Objective of ``argmax`` minus that of the own setting.
        chance: The gain that the luckiest setting has by chance, at the selector's level (see
            ``Selector``): a gain must be more than that.
        resampled: As in ``Curve``; empty where nothing could be tried.
    """

    curve: pd.DataFrame
    params: dict[str, Any]
    argmax: dict[str, Any]
    reason: str
    gain: float
    chance: float
    resampled: NDArray[np.float64]


class Selector:
    """The setting that best tells synthetic anomalies from synthetic normals, if it is better.

    ``abstain`` keeps the detector's own setting unless another's gain is more than the luckiest of
    all settings would have by chance: the bootstrap of the *largest* gain, in standard errors
    (Hansen, "A test for superior predictive ability", Journal of Business and Economic Statistics
    23(4), 2005). The interval of the one difference would not do, since it is the largest of many:
    with 56 settings that are equally good it lets another setting win in 18 % of cases, where this
    does in 4 % (``python -m benchmarks.doubt``).

    Args:
        grid: Parameter to the values to try; all combinations are tried. A list of such grids is
            tried one after the other. Without a grid nothing is chosen.
        objective: ``mean`` of AUC and pAUC, ``auc``, ``pauc`` or ``official``, the harmonic mean of
            AUC (source), AUC (target) and pAUC (of AUC and pAUC where no clip has a domain).
        baselines: Settings of the grid to report beside the chosen one.
        abstain: Keep the detector's own setting where no other is better beyond chance, where
            there are too few clips to tell, or where ``max_gap`` says so; false is the paper's
            rule.
        max_gap: AUC of synthetic against real normals beyond which (or below 1 minus which)
            nothing is chosen on them, nor where there are too few to tell
            (``choice.TELLING_CLIPS``), unless they are calibrated; with ``None``, the gap is not
            measured where that would take fits of its own.
        calibrate: Remove the gap between synthetic and real normals first (see
            ``choice.calibrated``).
        level: Of the intervals, and of how sure a gain must be.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: The objective is not known, or ``max_gap`` is no limit.

    >>> selector = Selector({"r": [0.9, 1.0, 1.1]})
    >>> scores = np.array([[1, 2, 0], [0, 1, 2], [0, 1, 2]])
    >>> selector.curve([0, 0, 1], scores).table["auc"].tolist()
    [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        grid: Grid | None = None,
        objective: str = "mean",
        baselines: Sequence[Mapping[str, Any]] = (),
        abstain: bool = True,
        max_gap: float | None = WIDE_GAP,
        calibrate: bool = False,
        level: float = 0.95,
        resamples: int = 200,
        seed: int = 0,
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

    def settings(self) -> list[dict[str, Any]]:
        """Return every combination of the grid's values."""
        # ParameterGrid sorts the parameters; they are shown as they were given.
        return [{key: s[key] for key in grid} for grid in self.grids for s in ParameterGrid(grid)]

    def own(self, detector: Detector) -> dict[str, Any]:
        """Return the detector's own setting: that of the grid, else its values of all keys."""
        params = detector.get_params()
        settings = self.settings()
        keys = dict.fromkeys(key for setting in settings for key in setting)
        row = row_of(params, settings)
        return {key: params[key] for key in keys} if row is None else settings[row]

    def candidates(self, detector: Detector) -> list[dict[str, Any]]:
        """Return the grid's settings, and at the end the detector's own if it is not among them."""
        settings, own = self.settings(), self.own(detector)
        return settings if own in settings else [*settings, own]

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
        detector: Detector | None = None,
    ) -> Curve:
        """Evaluate every setting.

        Args:
            labels: (n,) 1 for anomaly, both labels present.
            scores: (settings, n).
            domains: (n,) ``source`` or ``target``; none by default.
            groups: (n,) what a clip was made of (see ``uncertainty.resample``).
            detector: The settings are its ``candidates``, and its own breaks ties; by default they
                are the grid's, and the first of equals is the best.
        """
        labels = np.asarray(labels)
        settings = self.settings() if detector is None else self.candidates(detector)
        # A domain that is evaluated by itself must not run out of clips.
        divided = self.objective == "official" and domains is not None
        strata = (labels, np.asarray(domains)) if divided else (labels,)
        drawn = resample(*strata, n=self.resamples, seed=self.seed, groups=groups)
        objective_of = OBJECTIVES[self.objective]
        once = resampled_areas(labels, domains, scores)
        objective = objective_of(once)[:, 0]
        resampled = objective_of(resampled_areas(labels, domains, scores, drawn))
        tails = [(1 - self.level) / 2, (1 + self.level) / 2]
        low, high = np.quantile(resampled, tails, axis=1)
        distance = np.zeros(len(settings))
        if detector is not None:
            distance = _distances(settings, detector.get_params())
        # The own setting competes only where the grid has it.
        tried = slice(len(self.settings()))
        picks = _best(resampled[tried], distance[tried])
        table = _frame(settings).assign(
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

    def select(
        self,
        detector: Detector,
        labels: ArrayLike,
        scores: ArrayLike,
        domains: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        doubt: str = "",
    ) -> Selection:
        """Choose a setting; of equals, that nearest the detector's own.

        Args:
            detector: Whose own setting is kept in doubt.
            labels: (n,) of synthetic clips, 1 for anomaly, both present.
            scores: (candidates, n) of detectors fitted on real normal clips.
            domains: (n,) of the synthetic clips; none by default.
            groups: (n,) what a clip was made of.
            doubt: Why nothing is to be chosen on these clips, if so: the own setting is kept.
        """
        settings = self.candidates(detector)
        curve = self.curve(labels, scores, domains, groups=groups, detector=detector)
        own, best = settings.index(self.own(detector)), curve.best
        gains = curve.table["objective"].to_numpy() - curve.table["objective"][own]
        resampled = curve.resampled - curve.resampled[own]
        tried = slice(len(self.settings()))
        units = [_units(np.asarray(labels) == label, groups) for label in (0, 1)]
        chance = _gain_by_chance(gains[tried], resampled[tried], best, self.level, sum(units))
        reason = doubt
        if self.abstain and not doubt:
            chances = gains[best], chance, len(self.settings())
            reason = _doubt(settings[best], settings[own], units, *chances)
        chosen = own if reason else best
        rows = curve.table.index
        table = curve.table.assign(own=rows == own, argmax=rows == best, chosen=rows == chosen)
        table["reason"] = np.where(table["chosen"], reason, "")
        return Selection(
            table, settings[chosen], settings[best], reason, float(gains[best]), chance,
            curve.resampled,
        )  # fmt: skip

    def keep(self, detector: Detector, reason: str) -> Selection:
        """Keep the detector's own setting, since nothing could be tried."""
        own = self.own(detector)
        numbers = ["auc", "pauc", "auc_source", "auc_target", "objective", "low", "high", "picked"]
        table = _frame([own]).assign(**dict.fromkeys(numbers, np.nan))
        table = table.assign(own=True, argmax=True, chosen=True, reason=reason)
        return Selection(table, own, own, reason, np.nan, np.nan, np.empty((1, 0)))


def row_of(setting: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the first of the settings that is a part of ``setting``, or of which it is a part.

    >>> row_of({"k": 1, "r": 0.3, "seed": 0}, [{"r": 0.1 * 2}, {"r": 0.1 * 3}])
    1
    >>> row_of({"r": 0.3}, [{"r": 0.2, "k": 1}, {"r": 0.3, "k": 2}])
    1
    """
    for row, other in enumerate(settings):
        shared = setting.keys() & other.keys()
        if shared in (setting.keys(), other.keys()) and all(
            _same(setting[key], other[key]) for key in shared
        ):
            return row
    return None


def title(setting: Mapping[Any, Any]) -> str:
    """Write a setting as the tables do; parameters that it lacks are left out.

    Parameters of parts go by their last name where no other has it.

    >>> title({"k": 2, "representation__pool_by": "mean", "r": 0.5, "q": float("nan")})
    'k=2, pool_by=mean, r=0.5'
    """
    # NaN is not equal to itself.
    given = {str(k): v for k, v in setting.items() if v is not pd.NA and v == v}
    last = [key.rpartition("__")[2] for key in given]
    names = [
        short if last.count(short) == 1 else key for key, short in zip(given, last, strict=True)
    ]
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in zip(names, given.values(), strict=True)
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return bool(np.isclose(one, other))
    return bool(one == other)


def _frame(settings: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(settings)
    for key in dict.fromkeys(key for setting in settings for key in setting):
        # A parameter that only some settings have leaves gaps, and would turn integers to floats.
        values = [setting[key] for setting in settings if key in setting]
        if len(values) < len(settings) and all(type(value) is int for value in values):
            frame[key] = frame[key].astype("Int64")
    return frame


def _distances(settings: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> NDArray:
    total = np.zeros(len(settings))
    for key in {key for setting in settings for key in setting}:
        values = [setting.get(key, own[key]) for setting in settings]
        if all(isinstance(value, (int, float)) for value in (*values, own[key])):
            numbers = np.array(values, float)
            # In shares of what was tried, so that a count does not outweigh a fraction.
            total += np.abs(numbers - own[key]) / (np.ptp(numbers) or 1.0)
        else:
            total += [not _same(value, own[key]) for value in values]
    return total


def _best(objective: NDArray[np.float64], distance: NDArray) -> NDArray[np.int_]:
    """Row of the highest objective in each column; of equals, that of the least distance."""
    equal = objective >= objective.max(axis=0) - _EQUAL
    return np.argmin(np.where(equal, distance[:, None], np.inf), axis=0)


def _units(own: NDArray[np.bool_], groups: ArrayLike | None) -> int:
    return int(own.sum()) if groups is None else len(set(np.asarray(groups)[own].tolist()))


def _gain_by_chance(
    gains: NDArray[np.float64],
    resampled: NDArray[np.float64],
    best: int,
    level: float,
    observations: int,
) -> float:
    """Gain that ``best``, had it none, would reach by being the luckiest of all settings.

    Gains are told in their standard errors, since those of settings near the own one vary little
    and those of far ones much. Settings that are surely worse cannot be the luckiest: those whose
    loss is more than sqrt(2 log log n) standard errors, n the number of independent clips (Hansen
    2005).
    """
    excess = resampled - gains[:, None]
    error = excess.std(axis=1)
    varies = error > _EQUAL
    scale = np.where(varies, error, 1.0)
    plausible = gains >= -scale * np.sqrt(2 * np.log(np.log(max(observations, 3))))
    luck = np.max((excess / scale[:, None])[varies & plausible], axis=0, initial=0.0)
    return float(np.quantile(luck, level) * error[best])


def _doubt(
    best: Mapping[str, Any],
    own: Mapping[str, Any],
    units: list[int],
    gain: float,
    chance: float,
    tried: int,
) -> str:
    if best == own:
        return ""
    if min(units) < MIN_CLIPS:
        return (
            f"too few independent clips to tell chance from gain: {units[0]} normal and {units[1]} "
            f"anomalous, at least {MIN_CLIPS} of each are needed"
        )
    if gain <= chance + _EQUAL:
        return (
            f"{title(best)} gains {100 * gain:.1f} points over {title(own)} on synthetic clips; "
            f"the luckiest of {tried} settings gains up to {100 * chance:.1f} by chance"
        )
    return ""
