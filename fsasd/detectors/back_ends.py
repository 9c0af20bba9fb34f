"""Back ends: anomaly scores of embeddings, by distances to normal clips or by densities of them.

A back end is a pair of functions. ``fit`` returns arrays, given (n, dim) embeddings of normal
clips, their (n,) domains, a number ``k`` and a seed; ``score`` returns (n,) scores, given these
arrays and embeddings. Embeddings are normalised to unit length first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf

from fsasd.detectors.bank import Bank, unit
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.densities import component_log_density
from fsasd.detectors.gaussian_mixture import fit_gaussian_mixtures

Arrays = dict[str, np.ndarray]


class BackEnd(NamedTuple):
    """A pair of functions that fits to embeddings of normal clips, and scores others."""

    fit: Callable[[np.ndarray, np.ndarray, int, int], Arrays]
    score: Callable[[Arrays, np.ndarray, int], np.ndarray]


def fit_nearest(points: np.ndarray, domains: np.ndarray, k: int, seed: int) -> Arrays:
    """Keep ``k`` k-means centres of the source domain and every clip of the target domain.

    Wilkinghoff, github.com/wilkinghoff/DCASE2023_task2: target clips are few,
    and averages of them would lie far from each. Of fewer source clips than ``k`` all are kept.
    """
    points = unit(points)
    source, target = points[domains != "target"], points[domains == "target"]
    if len(source) > k:
        source = KMeans(k, n_init=1, random_state=seed).fit(source).cluster_centers_
    return {"references": np.concatenate([source, target])}


def score_nearest(arrays: Arrays, points: np.ndarray, k: int) -> np.ndarray:
    """Return the cosine distance to the nearest of the references."""
    # Centres are not unit vectors, and the original leaves them so.
    return 1 - (unit(points) @ arrays["references"].T).max(axis=1)


def fit_knn(points: np.ndarray, domains: np.ndarray, k: int, seed: int) -> Arrays:
    """Keep every clip."""
    _require(points, k, f"k={k} neighbours need as many clips")
    return {"bank": unit(points)}


def score_knn(arrays: Arrays, points: np.ndarray, k: int) -> np.ndarray:
    """Return the cosine distances to the ``k``-th nearest clips, as ``knn.KNN`` does."""
    return Bank(arrays["bank"]).nearest(unit(points), k)[:, -1] / 2


def fit_gmm(points: np.ndarray, domains: np.ndarray, k: int, seed: int) -> Arrays:
    """Fit ``k`` Gaussians, as github.com/liuyoude/STgram-MFN does (full, 1e-3 on the diagonal).

    For unit vectors that regularisation suffices with few clips, too: no covariance is shrunk.
    """
    _require(points, k, f"k={k} components need as many clips")
    mixture = fit_gaussian_mixtures(unit(points)[None], k, tol=1e-3, reg_covar=1e-3, seed=seed)
    return {"means": mixture.means, "precision_cholesky": mixture.precision_cholesky}


def score_gmm(arrays: Arrays, points: np.ndarray, k: int) -> np.ndarray:
    """Return -max_k log N_k."""
    density = component_log_density(
        arrays["means"], arrays["precision_cholesky"], unit(points)[None]
    )
    return -density[0].max(axis=1)


def fit_mahalanobis(points: np.ndarray, domains: np.ndarray, k: int, seed: int) -> Arrays:
    """Estimate a mean per domain, and the covariance about them, shrunk (Ledoit and Wolf)."""
    _require(points, 2, "a covariance needs at least 2 clips")
    points = unit(points)
    names = np.unique(domains)
    means = np.stack([points[domains == name].mean(axis=0) for name in names])
    centred = points - means[np.searchsorted(names, domains)]
    precision = LedoitWolf(assume_centered=True).fit(centred).precision_
    return {"means": means, "precision": precision}


def score_mahalanobis(arrays: Arrays, points: np.ndarray, k: int) -> np.ndarray:
    """Return the Mahalanobis distances to the nearer domain's mean."""
    offsets = unit(points)[:, None] - arrays["means"]
    squares = np.einsum("nmd,de,nme->nm", offsets, arrays["precision"], offsets)
    return np.sqrt(squares.clip(min=0).min(axis=1))


BACK_ENDS = {
    "nearest": BackEnd(fit_nearest, score_nearest),
    "knn": BackEnd(fit_knn, score_knn),
    "gmm": BackEnd(fit_gmm, score_gmm),
    "mahalanobis": BackEnd(fit_mahalanobis, score_mahalanobis),
}


def _require(points: np.ndarray, count: int, need: str) -> None:
    if len(points) < count:
        raise TooFewClipsError(f"{need}, found {len(points)}")
