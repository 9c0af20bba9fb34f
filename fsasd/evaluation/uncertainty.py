"""How far a score could be off by the choice of test clips: the stratified bootstrap.

Clips are drawn with replacement within each label and domain of each section, so every resample
has the test set's own numbers of normal and anomalous clips per domain, and the interval is the
percentile interval over resamples (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
It speaks of other clips of the same machines, not of other machines. A stratum of one clip never
varies, so intervals of very small test sets are too narrow.

The public evaluator's ``official score ci95`` is not this: it divides its jackknife's variance by
N (N - 1) where (N - 1) / N is due, and so is too small by a factor of about N - 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsasd.evaluation.metrics import DOMAINS, Section

Seed = int | np.random.Generator


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a metric, fractions; NaN where the metric is undefined."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class SectionIntervals:
    """Confidence intervals of one section's metrics."""

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


def bootstrap_official(
    sections: Sequence[Section], n: int = 1000, level: float = 0.95, seed: Seed = 0
) -> Interval:
    """Confidence interval of the official score.

    Args:
        sections: Every section of every machine.
        n: Resamples.
        level: Coverage, in (0, 1).
        seed: Seed, or a generator to draw from.

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
    cells = [_metrics(section, _draws(section, n, rng)) for section in sections]
    return _interval(_official(np.concatenate(cells)), level)


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
    cells = _metrics(section, _draws(section, n, np.random.default_rng(seed)))
    return SectionIntervals(*(_interval(cell, level) for cell in cells))


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
    if len(first) != len(second):
        raise ValueError(f"expected as many sections, found {len(first)} and {len(second)}")
    rng = np.random.default_rng(seed)
    drawn: tuple[list[NDArray], list[NDArray]] = ([], [])
    observed: tuple[list[NDArray], list[NDArray]] = ([], [])
    for index, pair in enumerate(zip(first, second, strict=True)):
        if not (
            np.array_equal(pair[0].labels, pair[1].labels)
            and np.array_equal(pair[0].domains, pair[1].domains)
        ):
            raise ValueError(
                f"section {index}: expected the same clips in the same order, "
                "found other labels or domains"
            )
        draws = _draws(pair[0], n, rng)
        for system, section in enumerate(pair):
            drawn[system].append(_metrics(section, draws))
            observed[system].append(_metrics(section, np.ones((1, len(section.labels)), int)))
    resampled = _official(np.concatenate(drawn[0])) - _official(np.concatenate(drawn[1]))
    actual = _official(np.concatenate(observed[0])) - _official(np.concatenate(observed[1]))
    return PairedDifference(float(actual[0]), float(resampled.mean()), _interval(resampled, level))


def _check(sections: Sequence[Section], n: int, level: float) -> None:
    if not sections:
        raise ValueError("bootstrap: expected at least one section, found none")
    if n < 1:
        raise ValueError(f"n: expected at least 1 resample, found {n}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a coverage in (0, 1), found {level}")


def _draws(section: Section, n: int, rng: np.random.Generator) -> NDArray[np.int_]:
    """How often each resample holds each clip, shape (n, clips)."""
    counts = np.zeros((n, len(section.labels)), dtype=int)
    for label in (0, 1):
        for domain in DOMAINS:
            stratum = np.flatnonzero((section.labels == label) & (section.domains == domain))
            size = len(stratum)
            if size:
                picks = rng.integers(size, size=(n, size)) + size * np.arange(n)[:, None]
                drawn = np.bincount(picks.ravel(), minlength=n * size)
                counts[:, stratum] = drawn.reshape(n, size)
    return counts


def _metrics(section: Section, counts: NDArray[np.int_]) -> NDArray[np.float64]:
    """AUC (source), AUC (target) and pAUC of each resample, shape (3, resamples)."""
    anomalous = section.labels == 1
    source, target = (~anomalous & (section.domains == domain) for domain in DOMAINS)
    return np.stack(
        [
            _areas(section.scores, counts * source, counts * anomalous, max_fpr=1.0),
            _areas(section.scores, counts * target, counts * anomalous, max_fpr=1.0),
            _areas(section.scores, counts * ~anomalous, counts * anomalous, max_fpr=0.1),
        ]
    )


def _areas(
    scores: NDArray[np.float64],
    normal: NDArray[np.int_],
    anomalous: NDArray[np.int_],
    max_fpr: float,
) -> NDArray[np.float64]:
    """McClish's partial AUC for many weightings of the same clips, shape (resamples,).

    ``normal`` and ``anomalous`` say how often each clip counts, shape (resamples, clips).
    """
    resamples = len(normal)
    if not normal[0].any() or not anomalous[0].any():
        return np.full(resamples, np.nan)
    order = np.argsort(-scores, kind="stable")
    # Clips of equal score enter the ROC curve in one step.
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)

    def rates(counts: NDArray[np.int_]) -> NDArray[np.float64]:
        passed = np.cumsum(counts[:, order], axis=1)[:, last_of_tie]
        return np.pad(passed / passed[:, -1:], ((0, 0), (1, 0)))

    fpr, tpr = rates(normal), rates(anomalous)
    start, rise, run = tpr[:, :-1], np.diff(tpr), np.diff(fpr)
    width = np.diff(np.minimum(fpr, max_fpr))
    reached = np.divide(width, run, out=np.zeros_like(run), where=run > 0)
    area = (width * (start + rise * reached / 2)).sum(axis=1)
    chance = max_fpr**2 / 2
    return (1 + (area - chance) / (max_fpr - chance)) / 2


def _official(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean over the defined cells, (cells, resamples) -> (resamples,)."""
    defined = cells[~np.isnan(cells[:, 0])]
    if not len(defined):
        return np.full(cells.shape[1], np.nan)
    with np.errstate(divide="ignore"):  # a cell of 0 makes the mean 1 / inf = 0, as it should be
        return len(defined) / (1 / defined).sum(axis=0)


def _interval(values: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)
