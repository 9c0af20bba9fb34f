"""Exact contributions: of TWFR-GMM's Mahalanobis distance, and of k-NN's distance.

Both scores are quadratic forms of x - m, with x the representation of a recording and m a mean or a
neighbour. Of a time-weighted representation, x_i - m_i = sum_t w_it (X_it - m_i) over the frames of
band i, since the weights of its sorted frames sum to 1: each frame has its share of each band.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fsasd.data.log_mel import LogMel, mel_corners
from fsasd.deployment.explanation.explanation import Explanation, Neighbour
from fsasd.detectors.scoring.bank import Banks, distance, split_bands
from fsasd.detectors.scoring.densities import log_density
from fsasd.detectors.scoring.scorers import MixtureScorer, NeighbourScorer
from fsasd.detectors.scoring.time_weighting import time_weights

Array = NDArray[np.float64]


def explain_mixture(scorer: MixtureScorer, log_mel: np.ndarray) -> Explanation:
    """Decompose half the Mahalanobis distance to the component of the highest density.

    With d = x - mean and the precision L, the contribution of band i is d_i (L d)_i / 2, also below
    0 where a band makes another's deviation plausible; they sum to the score but for a constant.

    Args:
        scorer: Of the saved detector.
        log_mel: (bands, frames) of its front end.
    """
    r = scorer.representation.groups[-1][-1]
    weights = frame_weights(log_mel, r)
    x = (weights * log_mel).sum(axis=1)
    means, factors = scorer.means[0], scorer.precision_cholesky[0]
    best = int(np.argmax(log_density(x[None], means, factors)[:, 0]))
    mean, factor = means[best], factors[best]
    slope = 0.5 * (factor @ (factor.T @ (x - mean)))
    shares = slope[:, None] * weights * (log_mel - mean[:, None])
    return of_shares(scorer.representation.front_end, shares)


def explain_neighbours(
    scorer: NeighbourScorer, point: Array, files: Mapping[int, str]
) -> tuple[Array, Array, Neighbour | None]:
    """Decompose the distance to the k-th neighbour into those of the dimensions.

    Args:
        scorer: Of the saved detector.
        point: (d,) the recording's representation.
        files: Names of the training clips by their rows.

    Returns:
        (d,) contributions, which sum to the score; (d,) the neighbour's values; and the nearest
        training clip, if it is known.
    """
    banks = scorer.banks
    x = banks.normalised(point[None])[0]
    parts, others = [], []
    for number, part in enumerate(split_bands(x[None], banks.bands)):
        squares, row = _kth(banks, number, part[0], scorer.k)
        total = float(squares.sum())
        length = float(distance(np.array(total), banks.metric))
        parts.append(squares / total * length / banks.bands if total else squares)
        others.append(split_bands(banks.points[row][None], banks.bands)[number][0])
    offsets = np.square(banks.points - x).sum(axis=1) / np.atleast_2d(banks.units).mean(axis=0)
    nearest = int(np.argmin(offsets))
    row = -1 if scorer.rows is None else int(scorer.rows[nearest])
    length = float(distance(np.array(offsets[nearest]), banks.metric))
    near = Neighbour(files[row], length) if row in files else None
    return np.concatenate(parts), np.concatenate(others), near


def _kth(banks: Banks, number: int, part: Array, k: int) -> tuple[Array, int]:
    """Return the squared differences to the k-th neighbour in the nearest bank, and its row."""
    points = split_bands(banks.points, banks.bands)[number]
    units = np.atleast_2d(banks.units)[number]
    squared = np.square(points - part).sum(axis=1) / units
    best, start = (np.inf, 0), 0
    for size in banks.sizes.tolist():
        order = np.argsort(squared[start : start + size], kind="stable")
        row = start + int(order[k - 1])
        best = min(best, (squared[row], row))
        start += size
    row = best[1]
    return np.square(points[row] - part) / units[row], row


def frame_weights(log_mel: np.ndarray, r: float) -> Array:
    """Return the (bands, frames) weight of each frame in its band's representation; rows sum to 1.

    >>> frame_weights(np.array([[1.0, 3.0]]), 0.5).round(3).tolist()
    [[0.333, 0.667]]
    """
    order = np.argsort(-log_mel, axis=1, kind="stable")
    weights = np.empty(log_mel.shape)
    np.put_along_axis(weights, order, time_weights(r, log_mel.shape[1]), axis=1)
    return weights


def of_shares(front_end: LogMel, shares: Array, nearest: Neighbour | None = None) -> Explanation:
    """Return the explanation of (bands, frames) contributions."""
    moments = np.arange(shares.shape[1])[:, None] + np.array([-0.5, 0.5])
    seconds = (moments * front_end.hop / front_end.sampling_rate).clip(min=0)
    return Explanation(
        "exact", band_ranges(front_end), shares.sum(axis=1), seconds, shares.sum(axis=0), nearest
    )


def band_ranges(front_end: LogMel) -> Array:
    """Return (bands, 2): from where to where in Hz each mel band reaches, half way to the next.

    >>> band_ranges(LogMel.twfr())[-1].round().tolist()
    [7749.0, 7916.0]
    """
    corners = mel_corners(front_end).astype(float)
    edges = (corners[:-1] + corners[1:]) / 2
    return np.stack([edges[:-1], edges[1:]], axis=1)
