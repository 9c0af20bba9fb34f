"""Confidence intervals of scores, by the stratified bootstrap of the test clips.

Clips are drawn with replacement within each label and domain of each section, so every resample
has the test set's numbers of normal and anomalous clips per domain, and the interval is the
percentile interval over resamples (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
It speaks of other clips of the same machines, and of other machines only where these are drawn,
too. A stratum of one clip never varies, so intervals of very small test sets are too narrow.

The public evaluator's ``official score ci95`` is not this: it divides its jackknife's variance by
N (N - 1) where (N - 1) / N is due, and so is too small by a factor of about N - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.evaluation.metrics import Section
from fsasd.evaluation.resampling import Seed, harmonic_means, resample, resampled_areas


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a metric, fractions; NaN where the metric is undefined."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class SectionIntervals:
    """Confidence intervals of one section's metrics.

    Attributes:
        auc_source: Without domains, of the AUC of all clips.
        auc_target: Of AUC (target).
        pauc: Of pAUC.
    """

    auc_source: Interval
    auc_target: Interval
    pauc: Interval


@dataclass(frozen=True)
class PairedDifference:
    """How much better one system is than another on the same clips.

    Attributes:
        difference: Official score of the first minus that of the second, a fraction.
        mean: The same, averaged over resamples.
        interval: Its confidence interval; a difference is established when 0 lies outside.
    """

    difference: float
    mean: float
    interval: Interval


@dataclass(frozen=True, eq=False)
class OfficialResamples:
    """Official scores of S systems, fractions.

    Attributes:
        observed: On the clips themselves, (S,).
        resampled: On n resamples of them, (S, n), the same ones for all.
    """

    observed: NDArray[np.float64]
    resampled: NDArray[np.float64]


def bootstrap_official(
    sections: Sequence[Section],
    n: int = 1000,
    level: float = 0.95,
    seed: Seed = 0,
    draw_sections: bool = False,
) -> Interval:
    """Confidence interval of the official score.

    Args:
        sections: Every section of every machine.
        n: Resamples.
        level: Coverage, in (0, 1).
        seed: Seed, or a generator to draw from.
        draw_sections: Whether sections are drawn with replacement, too: then the interval speaks
            of other machines.

    Returns:
        Low and high end, fractions. Cells that are undefined are left out, as in the score itself.

    Raises:
        ValueError: No sections, or ``n`` or ``level`` out of range.

    >>> sure = Section([0, 0, 1], ["source", "target", "source"], [0.1, 0.2, 0.9])
    >>> bootstrap_official([sure], n=50)
    Interval(low=1.0, high=1.0, level=0.95)
    """
    _check(sections, n, level)
    rng = np.random.default_rng(seed)
    cells = np.stack([_cells(section, _draws(section, n, rng)) for section in sections])
    if draw_sections:
        drawn = rng.integers(len(cells), size=(len(cells), n))
        cells = np.take_along_axis(cells, drawn[:, None], axis=0)
    return percentile_interval(harmonic_means(cells.reshape(-1, n)), level)


def bootstrap_section(
    section: Section, n: int = 1000, level: float = 0.95, seed: Seed = 0
) -> SectionIntervals:
    """Confidence intervals of one section's AUC (source), AUC (target) and pAUC.

    Args:
        section: The section's clips, scored.
        n: Resamples.
        level: Coverage, in (0, 1).
        seed: Seed, or a generator to draw from.

    Raises:
        ValueError: ``n`` or ``level`` out of range.

    >>> sure = Section([0, 0, 1], ["source", "target", "source"], [0.1, 0.2, 0.9])
    >>> bootstrap_section(sure, n=50).auc_target
    Interval(low=1.0, high=1.0, level=0.95)
    """
    _check([section], n, level)
    cells = _cells(section, _draws(section, n, np.random.default_rng(seed)))
    return SectionIntervals(*(percentile_interval(cell, level) for cell in cells))


def paired_difference(
    first: Sequence[Section],
    second: Sequence[Section],
    n: int = 1000,
    level: float = 0.95,
    seed: Seed = 0,
) -> PairedDifference:
    """Compare two systems' official scores on the same clips.

    Both are evaluated on the same resamples, so what makes clips easy or hard for both cancels.

    Args:
        first: One system's sections.
        second: The other's: the same sections and clips in the same order.
        n: Resamples.
        level: Coverage, in (0, 1).
        seed: Seed, or a generator to draw from.

    Returns:
        Differences first minus second; positive when the first is better.

    Raises:
        ValueError: The sections or their clips differ, or ``n`` or ``level`` is out of range.

    >>> labels, domains = [0, 0, 1], ["source", "target", "source"]
    >>> right, wrong = Section(labels, domains, [1, 2, 3]), Section(labels, domains, [3, 2, 1])
    >>> paired_difference([right], [wrong], n=50).difference
    1.0
    """
    _check(first, n, level)
    scores = official_resamples([first, second], n, seed)
    resampled = scores.resampled[0] - scores.resampled[1]
    interval = percentile_interval(resampled, level)
    observed = float(scores.observed[0] - scores.observed[1])
    return PairedDifference(observed, float(resampled.mean()), interval)


def official_resamples(
    systems: Sequence[Sequence[Section]], n: int = 1000, seed: Seed = 0
) -> OfficialResamples:
    """Official scores of several systems on the same resamples of the same clips.

    Args:
        systems: Each one's sections: the same sections and clips in the same order.
        n: Resamples.
        seed: Seed, or a generator to draw from.

    Raises:
        ValueError: The sections or their clips differ, there are none, or ``n`` is out of range.

    >>> sure = Section([0, 0, 1], ["source", "target", "source"], [0.1, 0.2, 0.9])
    >>> official_resamples([[sure], [sure]], n=2).resampled.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    first = systems[0]
    _check(first, n, 0.95)
    for other in systems:
        if len(other) != len(first):
            raise ValueError(f"expected as many sections, found {len(first)} and {len(other)}")
    rng = np.random.default_rng(seed)
    observed, resampled = (_RunningMeans(len(systems), size) for size in (1, n))
    for index, section in enumerate(first):
        for other in systems:
            _check_same_clips(section, other[index], index)
        scores = np.stack([system[index].scores for system in systems])
        observed.add(_metrics(section, np.ones((1, len(section.labels)), int), scores))
        resampled.add(_metrics(section, _draws(section, n, rng), scores))
    return OfficialResamples(observed.harmonic[:, 0], resampled.harmonic)


def percentile_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Interval between the percentiles of a bootstrap distribution; NaN if any value is.

    >>> percentile_interval([0, 1, 2], level=0.5)
    Interval(low=0.5, high=1.5, level=0.5)
    """
    low, high = np.quantile(np.asarray(values, float), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def _check(sections: Sequence[Section], n: int, level: float) -> None:
    if not sections:
        raise ValueError("bootstrap: expected at least one section, found none")
    if n < 1:
        raise ValueError(f"n: expected at least 1 resample, found {n}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a coverage in (0, 1), found {level}")


def _draws(section: Section, n: int, rng: np.random.Generator) -> NDArray[np.int_]:
    strata = [section.labels] if section.domains is None else [section.labels, section.domains]
    return resample(*strata, n=n, seed=rng, groups=section.groups)


def _cells(section: Section, counts: NDArray[np.int_]) -> NDArray[np.float64]:
    """AUC (source), AUC (target) and pAUC of each resample, shape (3, resamples)."""
    return _metrics(section, counts, section.scores[None])[:, 0]


def _metrics(
    section: Section, counts: NDArray[np.int_], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUC (source), AUC (target) and pAUC of each row of scores on each resample, (3, S, B).

    Without domains AUC, NaN and pAUC.
    """
    if len(set(section.labels.tolist())) < 2:
        return np.full((3, len(scores), len(counts)), np.nan)
    areas = resampled_areas(section.labels, section.domains, scores, counts)
    first = areas.auc if section.domains is None else areas.auc_source
    return np.stack([first, areas.auc_target, areas.pauc])


def _check_same_clips(first: Section, second: Section, index: int) -> None:
    if not (
        np.array_equal(first.labels, second.labels)
        and np.array_equal(
            np.asarray(first.domains, object),
            np.asarray(second.domains, object),
        )
    ):
        raise ValueError(
            f"section {index}: expected the same clips in the same order, "
            "found other labels or domains"
        )


class _RunningMeans:
    """Harmonic means of cells that come one section after the other."""

    def __init__(self, *shape: int) -> None:
        self._defined, self._reciprocals = np.zeros(shape), np.zeros(shape)

    def add(self, cells: NDArray[np.float64]) -> None:
        self._defined += (~np.isnan(cells)).sum(axis=0)
        with np.errstate(divide="ignore"):
            self._reciprocals += np.nansum(1 / cells, axis=0)

    @property
    def harmonic(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return self._defined / self._reciprocals
