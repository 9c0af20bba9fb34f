"""Log densities of Gaussians, of which a mixture's score follows: in NumPy alone.

Scoring with a saved mixture needs no more than this, and not the libraries that fit one.
"""

import contextlib
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.runtime.threads import one_blas_thread, thread_pool

Array = NDArray[np.float64]

# Columns of a triangular factor per product: with fewer, calls cost more than skipped zeros save.
_BLOCK = 32


def component_log_density(means: Array, precision_cholesky: Array, X: ArrayLike) -> Array:
    """Log density of every clip under every component, without the mixture weights.

    TWFR-GMM's anomaly score is ``-component_log_density(...).max(axis=-1)``.

    Args:
        means: (G, K, d), of K components at each of G grid points.
        precision_cholesky: (G, K, d, d), upper triangular P with P Pᵀ the inverse covariance.
        X: (G, m, d), m clips for each grid point.

    Returns:
        (G, m, K), natural logarithm.

    Raises:
        ValueError: if the grid or the dimension is not the fitted one, or X is not finite.

    >>> density = component_log_density(np.zeros((1, 1, 2)), np.eye(2)[None, None], [[[0.0, 0.0]]])
    >>> density.round(3).tolist()
    [[[-1.838]]]
    """
    X = require_grid(X)
    n_points, _, n_bins = means.shape
    if (len(X), X.shape[2]) != (n_points, n_bins):
        raise ValueError(
            f"expected X of shape ({n_points}, clips, {n_bins}) as fitted, got {X.shape}"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_blas_thread())
        each: Callable[..., Iterable[Array]] = map
        if n_points > 1:
            each = stack.enter_context(thread_pool("gmm")).map
        densities = each(log_density, X, means, precision_cholesky)
        return np.stack([density.T for density in densities])


def log_density(x: Array, means: Array, factors: Array) -> Array:
    """Return (K, n) of x (n, d), means (K, d), Cholesky factors of the precisions (K, d, d)."""
    n_bins = x.shape[1]
    density = np.empty((len(means), len(x)))
    whitened = np.empty_like(x)
    for k, (mean, factor) in enumerate(zip(means, factors, strict=True)):
        # The factor is upper triangular: its columns up to stop are 0 below row stop.
        for start in range(0, n_bins, _BLOCK):
            stop = min(start + _BLOCK, n_bins)
            columns = factor[:stop, start:stop]
            np.matmul(x[:, :stop], columns, out=whitened[:, start:stop])
        whitened -= mean @ factor
        density[k] = -0.5 * np.einsum("nd,nd->n", whitened, whitened)
        density[k] += np.log(factor.diagonal()).sum() - 0.5 * n_bins * math.log(2 * math.pi)
    return density


def require_grid(X: ArrayLike) -> Array:
    """Return float64 (grid, clips, bins), checked.

    Raises:
        ValueError: X has another shape, is empty or is not finite.
    """
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 3 or 0 in X.shape:
        raise ValueError(f"expected a non-empty X of shape (grid, clips, bins), got {X.shape}")
    # A sum is as good a test, and faster by far: any value that is not finite makes it so.
    with np.errstate(over="ignore", invalid="ignore"):
        total = X.sum()
    if not np.isfinite(total) and not (finite := np.isfinite(X).all(axis=2)).all():
        point, clip = np.argwhere(~finite)[0]
        raise ValueError(
            f"X is not finite at grid point {point}, clip {clip} ({(~finite).sum()} such rows)"
        )
    return X
