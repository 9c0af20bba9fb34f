"""Full-covariance Gaussian mixtures, one per point of a grid, such as TWFR-GMM's grid of r.

The model is scikit-learn's ``GaussianMixture(covariance_type="full")``: same start, same EM, same
stopping rule; only the cost differs. The grid points are independent and run on threads with one
BLAS thread each; and since in 128 mel bins nearly every clip belongs to one component, a covariance
is summed only over clips whose responsibility is not negligible.
"""

import math
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dtrtri
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from fsasd.detectors.scoring.densities import (
    Array,
    component_log_density,
    log_density,
    require_grid,
)
from fsasd.runtime.threads import one_blas_thread, thread_pool

Covariance = Literal["full", "shrunk"]

CLIPS_PER_BIN = 2
"""Clips per mel bin, in every component, that ``suitable_covariance`` needs for ``full``.

Measured (docs/explanation/architecture.md): with fewer, held-out clips score far above training
clips and spread several times as widely as with a shrunk covariance, and AUC is lost.
"""

# scikit-learn's guard against 0 / 0: an emptied component gets mean 0 and covariance reg_covar.
_EMPTY = 10 * np.finfo(np.float64).eps
# Responsibilities below this change no sum in float64, not even beside _EMPTY.
_NEGLIGIBLE = math.exp(-80)


@dataclass(frozen=True, eq=False)
class GaussianMixtures:
    """Gaussian mixtures of K components in d dimensions, fitted on G grid points.

    Indexing keeps the grid axis: ``mixtures[3]`` is a grid of one point, ``mixtures[::2]`` of half.

    Attributes:
        weights: (G, K), sum to 1.
        means: (G, K, d).
        precision_cholesky: (G, K, d, d), upper triangular P with P Pᵀ the inverse covariance;
            scikit-learn's ``precisions_cholesky_``.
        converged: (G,), whether EM stopped by ``tol``.
        n_iter: (G,), number of EM iterations.
        lower_bound: (G,), mean log-likelihood of a training clip in the last iteration's E-step.
        shrunk: (G,), whether the covariances are shrunk.

    >>> X = np.random.default_rng(0).normal(size=(1, 300, 128))
    >>> fit_gaussian_mixtures(X, 2).n_parameters
    33026
    """

    weights: Array
    means: Array
    precision_cholesky: Array
    converged: NDArray[np.bool_]
    n_iter: NDArray[np.int64]
    lower_bound: Array
    shrunk: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int | slice | NDArray[np.int64]) -> "GaussianMixtures":
        points = np.atleast_1d(np.arange(len(self))[index])
        return GaussianMixtures(*(getattr(self, field.name)[points] for field in fields(self)))

    @property
    def n_parameters(self) -> int:
        """Parameters of one mixture as the paper counts them: K (d² + d + 1), shrunk or not."""
        _, n_components, n_bins = self.means.shape
        return n_components * (n_bins**2 + n_bins + 1)

    def component_log_density(self, X: ArrayLike) -> Array:
        """Return (G, m, K) of X (G, m, d): see ``densities.component_log_density``."""
        return component_log_density(self.means, self.precision_cholesky, X)


def suitable_covariance(labels: NDArray[np.integer], n_bins: int) -> Covariance:
    """Return ``"full"`` if every component has enough clips for it, else ``"shrunk"``.

    Args:
        labels: (n,) component of each clip in the partition that EM starts from. It is one for all
            grid points, so that the covariance is the same along the grid.
        n_bins: d.

    >>> labels = np.repeat([0, 1], [700, 300])
    >>> suitable_covariance(labels, 128), suitable_covariance(labels, 256)
    ('full', 'shrunk')
    """
    return "full" if np.bincount(labels).min() >= CLIPS_PER_BIN * n_bins else "shrunk"


def fit_gaussian_mixtures(
    X: ArrayLike,
    n_components: int,
    *,
    start: ArrayLike | None = None,
    after: Sequence[int | None] | None = None,
    tol: float = 1e-6,
    reg_covar: float = 1e-6,
    max_iter: int = 100,
    covariance: Covariance = "full",
    seed: int = 0,
) -> GaussianMixtures:
    """Fit one Gaussian mixture per grid point by expectation-maximisation.

    With ``covariance="full"`` every grid point equals
    ``sklearn.mixture.GaussianMixture(n_components, tol=tol, reg_covar=reg_covar,
    max_iter=max_iter, random_state=seed)`` fitted on it, iterations included.

    With ``covariance="shrunk"`` each M-step shrinks every component's covariance (``_shrink``): for
    components with fewer clips than there are mel bins. EM then no longer climbs the likelihood in
    every step; the stopping rule is the same.

    Args:
        X: (G, n, d), the n training clips as represented at each of the G grid points.
        n_components: K.
        start: labels in 0..K-1 of the first M-step, (n,) for all grid points or (G, n);
            by default k-means at each grid point, as in scikit-learn.
        after: for each grid point an earlier one, from whose last responsibilities EM starts
            instead; ``None`` where it starts from ``start``.
        tol: stop when the mean log-likelihood of a clip changes by less than this.
        reg_covar: added to the covariances' diagonals.
        max_iter: EM iterations at most; a grid point that needs more is reported in a
            ``ConvergenceWarning`` and by ``converged``.
        covariance: ``"full"`` or ``"shrunk"``.
        seed: of the k-means starts; the same at every grid point.

    Raises:
        ValueError: if an argument is out of range or of the wrong shape, X is not finite, there
            are fewer clips than components, or a covariance is not positive definite.

    >>> X = np.random.default_rng(0).normal(size=(3, 50, 2))
    >>> mixtures = fit_gaussian_mixtures(X, 1)
    >>> np.allclose(mixtures.means[:, 0], X.mean(axis=1))
    True
    """
    X = require_grid(X)
    if n_components < 1 or X.shape[1] < n_components:
        raise ValueError(
            f"expected 1 <= n_components <= clips, got n_components={n_components} "
            f"and {X.shape[1]} clips"
        )
    if max_iter < 1:
        raise ValueError(f"expected max_iter >= 1, got {max_iter}")
    if covariance not in ("full", "shrunk"):
        raise ValueError(f"expected covariance 'full' or 'shrunk', got {covariance!r}")
    starts = None if start is None else _starts(start, X.shape[:2], n_components)
    after = [None] * len(X) if after is None else list(after)
    if len(after) != len(X) or any(p is not None and not 0 <= p < i for i, p in enumerate(after)):
        raise ValueError(f"expected after to name an earlier grid point or None, got {after}")

    def begin(point: int) -> Array:
        if (earlier := after[point]) is not None:
            # It was submitted earlier, so that waiting for it ends.
            return fits[earlier].result()[-1]
        if starts is None:
            kmeans = KMeans(n_components, n_init=1, random_state=seed)
            labels = kmeans.fit(X[point]).labels_
        else:
            labels = starts[point]
        return (labels == np.arange(n_components)[:, None]).astype(np.float64)

    def fit(point: int) -> _Fit:
        responsibility = begin(point)
        try:
            return _expectation_maximisation(
                X[point], responsibility, tol, reg_covar, max_iter, covariance
            )
        except _NotPositiveDefiniteError as error:
            raise ValueError(
                f"grid point {point}: {error}; raise reg_covar (now {reg_covar:g}), lower "
                "n_components or use covariance='shrunk'"
            ) from error

    fits: list[Future[_Fit]] = []
    # Many small problems are faster with one BLAS thread each than one by one with all threads.
    with one_blas_thread(), thread_pool("gmm") as threads:
        for point in range(len(X)):
            fits.append(threads.submit(fit, point))
    *arrays, _ = zip(*(future.result() for future in fits), strict=True)
    shrunk = np.full(len(X), covariance == "shrunk")
    mixtures = GaussianMixtures(*[*map(np.array, arrays), shrunk])
    if len(late := np.flatnonzero(~mixtures.converged)):
        warnings.warn(
            f"{len(late)} of {len(X)} grid points did not converge in {max_iter} iterations "
            f"(first: {late[0]}); raise max_iter or tol",
            ConvergenceWarning,
            stacklevel=2,
        )
    return mixtures


# GaussianMixtures' fields at one grid point, without ``shrunk``, and the responsibilities (K, n).
_Fit = tuple[Array, Array, Array, bool, int, float, Array]


class _NotPositiveDefiniteError(ValueError):
    pass


def _expectation_maximisation(
    x: Array,
    responsibility: Array,
    tol: float,
    reg_covar: float,
    max_iter: int,
    covariance: Covariance,
) -> _Fit:
    weights, means, factors = _m_step(x, responsibility, reg_covar, covariance)
    lower_bound = -math.inf
    for n_iter in range(1, max_iter + 1):
        previous = lower_bound
        joint = log_density(x, means, factors) + np.log(weights)[:, None]
        peak = joint.max(axis=0)
        responsibility = np.exp(joint - peak)
        total = responsibility.sum(axis=0)
        responsibility /= total
        lower_bound = float(np.mean(peak + np.log(total)))
        weights, means, factors = _m_step(x, responsibility, reg_covar, covariance)
        if abs(lower_bound - previous) < tol:
            return weights, means, factors, True, n_iter, lower_bound, responsibility
    return weights, means, factors, False, max_iter, lower_bound, responsibility


def _m_step(
    x: Array, responsibility: Array, reg_covar: float, covariance: Covariance
) -> tuple[Array, Array, Array]:
    n_bins = x.shape[1]
    counts = responsibility.sum(axis=1) + _EMPTY
    means = responsibility @ x / counts[:, None]
    factors = np.empty((len(counts), n_bins, n_bins))
    for k, count in enumerate(counts):
        rows = np.flatnonzero(responsibility[k] > _NEGLIGIBLE)
        scaled = x[rows]
        scaled -= means[k]
        scaled *= np.sqrt(responsibility[k, rows])[:, None]
        # NumPy hands A.T @ A to BLAS's symmetric product, half the work of a general one.
        scatter = scaled.T @ scaled / count
        if covariance == "shrunk":
            scatter = _shrink(scatter, count)
        scatter.flat[:: n_bins + 1] += reg_covar
        try:
            cholesky = np.linalg.cholesky(scatter)
        except np.linalg.LinAlgError as error:
            raise _NotPositiveDefiniteError(
                f"the covariance of component {k} is not positive definite "
                f"({count:.4g} clips, {n_bins} mel bins)"
            ) from error
        factors[k], _ = dtrtri(cholesky.T)
    return counts / counts.sum(), means, factors


def _shrink(covariance: Array, count: float) -> Array:
    """Shrink a covariance S of that many clips towards (tr S / d) I.

    By the oracle-approximating amount of Chen, Wiesel, Eldar and Hero, "Shrinkage algorithms for
    MMSE covariance estimation" (IEEE TSP 58(10), 2010), eq. 23, without its 2/d terms as in
    ``sklearn.covariance.oas``. This estimator assumes Gaussian data, as the mixture does, and needs
    only the statistics of an M-step.
    """
    n_bins = len(covariance)
    scale = np.trace(covariance) / n_bins
    power = np.mean(covariance**2)
    spread = (count + 1) * (power - scale**2 / n_bins)
    amount = 1.0 if spread == 0 else min((power + scale**2) / spread, 1.0)
    return (1 - amount) * covariance + amount * scale * np.eye(n_bins)


def _starts(start: ArrayLike, shape: tuple[int, ...], n_components: int) -> NDArray[np.int64]:
    labels = np.asarray(start)
    if labels.shape not in (shape, shape[1:]):
        raise ValueError(f"expected start of shape {shape[1:]} or {shape}, got {labels.shape}")
    if not np.isin(labels, np.arange(n_components)).all():
        raise ValueError(
            f"expected start labels in 0..{n_components - 1}, "
            f"got {np.setdiff1d(labels, np.arange(n_components))[:5].tolist()}"
        )
    return np.broadcast_to(labels, shape)
