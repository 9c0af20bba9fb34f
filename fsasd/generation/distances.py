"""How far apart synthetic and real clips lie, as points: for a detector, and for any difference.

Clips of one recording, or made of one, are not independent: ``groups`` has them stay together
wherever clips are held out, resampled or permuted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fsasd.evaluation.folds import split_folds
from fsasd.evaluation.permutation import permuted
from fsasd.evaluation.resampling import resample, resampled_areas
from fsasd.evaluation.uncertainty import percentile_interval

FOLDS = 5
NEIGHBOURS = 3

Floats = NDArray[np.float64]
Groups = NDArray[np.int_]


def held_out_auc(points: Floats, labels: NDArray[np.int_], groups: Groups) -> tuple[float, ...]:
    """Return the AUC of synthetic against real clips by distance to the nearest real ones.

    Real clips are held out in folds; a synthetic clip is in the fold of the recording that it was
    made of. Dimensions are in units of the other folds' standard deviation.

    Args:
        points: (n, dim).
        labels: (n,) 0 real, 1 synthetic.
        groups: (n,) equal for clips that are not independent.

    Returns:
        The AUC and the ends of its interval; NaN of fewer than two real clips.

    >>> rng = np.random.default_rng(0)
    >>> points, labels = rng.standard_normal((40, 3)), np.repeat([0, 1], 20)
    >>> held_out_auc(points + 9 * labels[:, None], labels, np.arange(40))
    (1.0, 1.0, 1.0)
    """
    real = np.flatnonzero(labels == 0)
    if len(real) < 2:
        return np.nan, np.nan, np.nan
    scores = np.empty(len(points))
    splits = split_folds(len(real), FOLDS, 0, groups[real])
    synthetic = np.flatnonzero(labels == 1)
    place = np.arange(len(synthetic)) % len(splits)
    for number, (_, fold) in enumerate(splits):
        place[np.isin(groups[synthetic], groups[real[fold]])] = number
    for number, (rest, fold) in enumerate(splits):
        members = np.concatenate([real[fold], synthetic[place == number]])
        scores[members] = _distances(points[real[rest]], points[members])
    counts = resample(labels, n=200, groups=groups)
    auc = resampled_areas(labels, None, scores[None]).auc[0, 0]
    interval = percentile_interval(resampled_areas(labels, None, scores[None], counts).auc[0])
    return float(auc), interval.low, interval.high


def energy_distance(
    points: Floats, labels: NDArray[np.int_], groups: Groups
) -> tuple[float, float]:
    """Return the energy distance of two sets of points, and its permutation p-value.

    ``(2 E|x - y| - E|x - x'| - E|y - y'|) / (2 E|x - y|)`` over pairs of independent clips: 0 on
    average for sets from one distribution, whatever their sizes, so that it can be negative; 1
    where each set is a single point (Szekely and Rizzo, Journal of Statistical Planning and
    Inference 143(8), 2013). Dimensions are in units of their standard deviation over both sets.

    Args:
        points: (n, dim).
        labels: (n,) 0 real, 1 synthetic.
        groups: (n,) equal for clips that are not independent.

    Returns:
        NaN where there are not two independent clips of either kind.

    >>> points, labels = np.repeat([[0.0], [1.0]], 9, axis=0), np.repeat([0, 1], 9)
    >>> energy_distance(points, labels, np.arange(18))
    (1.0, 0.002)
    """
    scaled = points / _scale(points)
    independent = (groups[:, None] != groups).astype(float)
    synthetic = permuted(labels, groups).astype(float)
    totals = _pair_sums(cdist(scaled, scaled) * independent, synthetic)
    pairs = _pair_sums(independent, synthetic)
    means = np.divide(totals, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)
    across, within = 2 * means[0], means[1] + means[2]
    # Where all points are one, there is no distance.
    distance = np.divide(across - within, across, out=across - within, where=across > 0)
    if np.isnan(distance[0]):
        return np.nan, np.nan
    larger = distance >= distance[0] - 1e-12
    return float(distance[0]), float(np.mean(larger | np.isnan(distance)))


def _scale(points: Floats) -> Floats:
    spread = points.std(axis=0)
    # A dimension in which few clips happen to agree must not outweigh all others.
    scale = np.maximum(spread, 0.1 * spread.mean())
    return np.where(scale > 0, scale, 1.0)


def _distances(known: Floats, points: Floats) -> Floats:
    """Mean distance to the nearest known points."""
    scale = _scale(known)
    distances = np.sort(cdist(points / scale, known / scale), axis=1)
    return distances[:, :NEIGHBOURS].mean(axis=1)


def _pair_sums(matrix: Floats, synthetic: Floats) -> Floats:
    """(3, n) Sums of a symmetric matrix over pairs of both kinds, of synthetic, of real ones."""
    within = np.sum((synthetic @ matrix) * synthetic, axis=1)
    across = synthetic @ matrix.sum(axis=1) - within
    return np.stack([across, within, matrix.sum() - within - 2 * across])
