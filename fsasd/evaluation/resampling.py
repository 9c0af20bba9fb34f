"""Resamples of test clips, and the areas under ROC curves of many settings on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.evaluation.metrics import DOMAINS

Seed = int | np.random.Generator


@dataclass(frozen=True, eq=False)
class Areas:
    """Areas under the ROC curves of S settings on B resamples of the same clips, each (S, B).

    Attributes:
        auc: Of both domains together.
        pauc: Partial, up to a false-positive rate of 0.1, of both domains together.
        auc_source: Normal clips of the source domain against all anomalous ones; NaN where it has
            no normal clip, or no clip has a domain.
        auc_target: The same for the target domain.
    """

    auc: NDArray[np.float64]
    pauc: NDArray[np.float64]
    auc_source: NDArray[np.float64]
    auc_target: NDArray[np.float64]

    @property
    def official(self) -> NDArray[np.float64]:
        """Harmonic mean of AUC (source), AUC (target) and pAUC; without domains of AUC and pAUC."""
        divided = ~(np.isnan(self.auc_source).all() and np.isnan(self.auc_target).all())
        first = self.auc_source if divided else self.auc
        return harmonic_means(np.stack([first, self.auc_target, self.pauc]))


def resample(
    *strata: ArrayLike, n: int, seed: Seed = 0, groups: ArrayLike | None = None
) -> NDArray[np.int_]:
    """Draw clips with replacement, within each stratum, and count them.

    Args:
        strata: One or several arrays (clips,): clips with the same values in all are a stratum.
        n: Resamples.
        seed: Seed, or a generator to draw from.
        groups: (clips,) equal for clips of one recording or pair, which are not independent: they
            are drawn together or not at all. In several strata, too, if these have the same
            groups; as nearly as their sizes allow, if they have some in common.

    Returns:
        (n, clips), how often each resample holds each clip.

    >>> counts = resample([0, 0, 1], n=50)
    >>> counts.shape, set(counts[:, :2].sum(axis=1)), set(counts[:, 2])
    ((50, 3), {np.int64(2)}, {np.int64(1)})
    """
    rng = np.random.default_rng(seed)
    keys = [np.unique(np.asarray(values), return_inverse=True)[1] for values in strata]
    _, stratum = np.unique(np.stack(keys), axis=1, return_inverse=True)
    given = np.arange(len(stratum)) if groups is None else np.asarray(groups)
    _, group = np.unique(given, return_inverse=True)
    holds = np.zeros((stratum.max() + 1, group.max() + 1), dtype=bool)
    holds[stratum, group] = True
    counts = np.zeros((n, len(stratum)), dtype=int)
    for strata_in_common in _sharing_groups(holds):
        units = np.flatnonzero(holds[strata_in_common].any(axis=0))
        drawn = _draw_groups(holds[strata_in_common][:, units], n, rng)
        for number, of_stratum in zip(strata_in_common, drawn, strict=True):
            members = np.flatnonzero(stratum == number)
            counts[:, members] = of_stratum[:, np.searchsorted(units, group[members])]
    return counts


def resampled_areas(
    labels: ArrayLike,
    domains: ArrayLike | None,
    scores: ArrayLike,
    counts: ArrayLike | None = None,
) -> Areas:
    """Areas under the ROC curves of many settings on many resamples of the same clips.

    Each equals scikit-learn's ``roc_auc_score`` of the clips repeated as often as they were drawn,
    McClish's standardisation of the partial area included. A setting costs one matrix product:
    for each normal clip, the anomalous ones that rank above it.

    Args:
        labels: (clips,) 0 normal, 1 anomalous, both present.
        domains: (clips,) ``source`` or ``target``; None without domains.
        scores: (S, clips), one row per setting.
        counts: (B, clips) from ``resample``; by default each clip once.

    >>> areas = resampled_areas([0, 0, 1], ["source"] * 3, [[0.1, 0.4, 0.3], [0.1, 0.2, 0.3]])
    >>> areas.auc.tolist()
    [[0.5], [1.0]]
    """
    labels = np.asarray(labels)
    # Without domains no clip is in either.
    domains = np.full(len(labels), "") if domains is None else np.asarray(domains)
    drawn = np.ones((1, len(labels))) if counts is None else np.asarray(counts, dtype=float)
    normal, anomalous = drawn[:, labels == 0], drawn[:, labels == 1]
    of_domain = [domains[labels == 0] == domain for domain in DOMAINS]
    areas = np.empty((4, len(np.asarray(scores)), len(drawn)))
    for i, row in enumerate(np.asarray(scores, dtype=float)):
        order = np.argsort(-row[labels == 0], kind="stable")
        weights = normal[:, order]
        above, tied = _outranked(row[labels == 0][order], row[labels == 1], anomalous)
        wins = above + tied / 2
        areas[0, i] = _mean(weights, wins)
        areas[1, i] = _partial(row[labels == 0][order], weights, above, tied)
        for j, inside in enumerate(of_domain, start=2):
            areas[j, i] = _mean(weights * inside[order], wins)
    return Areas(*areas)


def harmonic_means(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means over the first axis of the cells that are defined, as the official score is.

    >>> harmonic_means(np.array([[0.5, 0.0], [1.0, 1.0], [np.nan, np.nan]])).round(3).tolist()
    [0.667, 0.0]
    """
    # A cell of 0 makes the mean 1 / inf = 0, as it should be; no cell at all NaN.
    with np.errstate(divide="ignore", invalid="ignore"):
        return (~np.isnan(cells)).sum(axis=0) / np.nansum(1 / cells, axis=0)


def _sharing_groups(holds: NDArray[np.bool_]) -> Iterator[list[int]]:
    """Divide strata (rows) by the groups (columns) that they share, also through others."""
    left = list(range(len(holds)))
    while left:
        sharing = [left.pop(0)]
        for stratum in sharing:
            more = [other for other in left if (holds[stratum] & holds[other]).any()]
            sharing += more
            left = [other for other in left if other not in more]
        yield sharing


def _draw_groups(
    holds: NDArray[np.bool_], n: int, rng: np.random.Generator
) -> list[NDArray[np.int_]]:
    """Draw as many groups as a stratum holds, with replacement; how often each, (n, groups)."""
    # All strata take from the same picks, each the first of its groups.
    size, wanted = holds.shape[1], holds.sum(axis=1)
    picks = rng.integers(size, size=(n, size))
    while any(held[picks].sum(axis=1).min() < k for held, k in zip(holds, wanted, strict=True)):
        picks = np.hstack([picks, rng.integers(size, size=(n, size))])
    places = picks + size * np.arange(n)[:, None]
    drawn = []
    for held, k in zip(holds, wanted, strict=True):
        inside = held[picks]
        first = places[inside & (inside.cumsum(axis=1) <= k)]
        drawn.append(np.bincount(first, minlength=n * size).reshape(n, size))
    return drawn


def _outranked(
    normal: NDArray[np.float64], anomalous: NDArray[np.float64], drawn: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each resample's anomalous clips above, and level with, each normal clip, (B, n)."""
    above = drawn @ (anomalous[:, None] > normal).astype(float)
    ties = anomalous[:, None] == normal
    tied = drawn @ ties.astype(float) if ties.any() else np.zeros_like(above)
    total = drawn.sum(axis=1, keepdims=True)
    return above / total, tied / total


def _mean(weights: NDArray[np.float64], wins: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights.sum(axis=1)
    area = np.einsum("bn,bn->b", weights, wins)
    return np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0)


def _partial(
    normal: NDArray[np.float64],
    weights: NDArray[np.float64],
    above: NDArray[np.float64],
    tied: NDArray[np.float64],
    max_fpr: float = 0.1,
) -> NDArray[np.float64]:
    """McClish's partial AUC; ``normal`` falls, ``weights`` is how often each counts."""
    if tied.any():
        # Clips of equal score enter the ROC curve in one step.
        first = np.flatnonzero(np.append(True, np.diff(normal) != 0))
        weights = np.add.reduceat(weights, first, axis=1)
        above, tied = above[:, first], tied[:, first]
    reach = max_fpr * weights.sum(axis=1, keepdims=True)
    inside = np.clip(reach - (np.cumsum(weights, axis=1) - weights), 0, weights)
    share = np.divide(inside, weights, out=np.zeros_like(inside), where=weights > 0)
    area = max_fpr * _mean(inside, above + tied * share / 2)
    chance = max_fpr**2 / 2
    return (1 + (area - chance) / (max_fpr - chance)) / 2
