"""An adapter for the outlier and density models of scikit-learn."""

from __future__ import annotations

import logging
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.representations import TimeStatistics, count_parameters
from fsasd.detectors.scoring.bank import unit
from fsasd.detectors.scoring.domains import banks
from fsasd.detectors.scoring.order import canonical_order
from fsasd.detectors.stacking import n_different
from fsasd.detectors.vector_detector import VectorDetector, VectorsOf

log = logging.getLogger(__name__)


class ComponentMixture(GaussianMixture):
    """A Gaussian mixture that scores by the highest log density of a component, without weights.

    As github.com/liuyoude/STgram-MFN does: a rare state is not more anomalous than a frequent one.

    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> one = ComponentMixture(1).fit(X)
    >>> bool(np.allclose(one.score_samples(X), GaussianMixture(1).fit(X).score_samples(X)))
    True
    """

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Return the (n,) highest log densities."""
        return self._estimate_log_prob(X).max(axis=1)


class PCAResidual(PCA):
    """A principal component analysis that scores by what its components leave of a point.

    The norm of the residual, as in process control (Jackson and Mudholkar, "Control procedures for
    residuals associated with principal component analysis", Technometrics 21, 1979); on embeddings
    of frozen encoders: arXiv 2606.19269.

    >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    >>> PCAResidual(1).fit(X).score_samples([[5.0, 3.0]]).round(6).tolist()
    [-3.0]
    """

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Return the (n,) negated norms of the residuals."""
        X = np.asarray(X)
        return -np.linalg.norm(X - self.inverse_transform(self.transform(X)), axis=1)


class Outliers(VectorDetector):
    """An outlier or density model of scikit-learn on any representation.

    The score is the negated ``score_samples`` (``GaussianMixture``, ``KernelDensity``,
    ``LocalOutlierFactor`` with ``novelty=True``, ``OneClassSVM``, ``IsolationForest``,
    ``EllipticEnvelope``), or the Mahalanobis distance (``EmpiricalCovariance`` and its shrunk
    variants); with ``domains="separate"`` that is the selective Mahalanobis distance of DCASE's
    baseline. The representations of the normal clips are saved; loading fits the model to them
    again.

    Args:
        model: An unfitted scikit-learn estimator.
        representation: Clips -> (n, d).
        standardise: Scale each dimension to zero mean and unit variance over the normal clips;
            models that depend on distances need it.
        domains: ``pooled``; ``separate``: a model for each domain; or ``centred``: one model of all
            clips, of which each domain's mean is subtracted. The lower of the domains' scores
            counts. A domain of too few clips for a covariance of its own has that of ``centred``.
        seed: For a model whose ``random_state`` is not set.
        unit: Divide each representation by its length first, as for a cosine distance.
    """

    def __init__(
        self,
        model: BaseEstimator = LedoitWolf(),  # noqa: B008
        representation: VectorsOf = TimeStatistics(),  # noqa: B008
        standardise: bool = False,
        domains: Literal["pooled", "separate", "centred"] = "pooled",
        seed: int = 0,
        unit: bool = False,
    ) -> None:
        self.model = model
        self.representation = representation
        self.standardise = standardise
        self.domains = domains
        self.seed = seed
        self.unit = unit

    def fit(self, clips: Clips) -> Self:
        """Fit the model to the representations of normal clips.

        Raises:
            TooFewClipsError: A bank has fewer than 2 different clips, or too few for the model: its
                covariance is singular, or a component of a mixture would be without a clip.
            ValueError: A parameter of the model is out of range.
            TypeError: The model has no method that scores.
        """
        if not hasattr(self.model, "score_samples") and not hasattr(self.model, "mahalanobis"):
            raise TypeError(
                f"{self.model!r} has neither score_samples nor mahalanobis: expected an outlier "
                "or density model (LocalOutlierFactor only scores others with novelty=True)"
            )
        bank = banks(clips, "separate" if self.domains == "centred" else self.domains)
        points = self._fitted_to(clips)(clips)
        # Some models draw points by index.
        order = canonical_order(points)
        order = order[np.argsort(bank[order], kind="stable")]
        self.points_ = points[order]
        self.sizes_ = np.bincount(bank, minlength=1)
        self._fit_models()
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the negated ``score_samples``, or the Mahalanobis distance."""
        check_is_fitted(self)
        points = self._scaler.transform(self._lengths(self._vectors_of(clips)))
        scores = [_score(model, points - centre) for model, centre in self._models]
        return np.min(scores, axis=0)

    def n_parameters(self) -> int:
        """Return the number of values in the bank, and of an encoder's parameters."""
        check_is_fitted(self)
        return self.points_.size + count_parameters(self._vectors_of)

    def _restored(self) -> None:
        self._fit_models()

    def _fit_models(self) -> None:
        self._scaler = StandardScaler(with_mean=self.standardise, with_std=self.standardise)
        points = self._scaler.fit_transform(self._lengths(self.points_))
        of_banks = np.split(points, np.cumsum(self.sizes_)[:-1])
        centres = [of_bank.mean(axis=0) for of_bank in of_banks]
        about_means = points - np.repeat(centres, self.sizes_, axis=0)
        if self.domains == "centred":
            model = self._fitted(about_means)
            self._models = [(model, centre) for centre in centres]
            return
        self._models = []
        for of_bank, centre in zip(of_banks, centres, strict=True):
            try:
                self._models.append((self._fitted(of_bank), 0.0))
            except TooFewClipsError as error:
                if len(of_banks) == 1 or not hasattr(self.model, "mahalanobis"):
                    raise
                log.warning(
                    "a domain has too few clips for a covariance of its own, and gets that of all "
                    "clips about their domains' means: %s", error,
                )  # fmt: skip
                self._models.append((self._fitted(about_means), centre))

    def _lengths(self, points: np.ndarray) -> np.ndarray:
        return unit(points) if self.unit else points

    def _fitted(self, points: np.ndarray) -> Any:
        model: Any = clone(self.model)
        name = type(model).__name__
        if (different := n_different(points)) < (least := _least_different(model)):
            copies = f" among {len(points)}" if different < len(points) else ""
            raise TooFewClipsError(
                f"{name} is fitted to at least {least} different clips, found {different}{copies}"
            )
        free = [
            k for k, v in model.get_params().items() if k.endswith("random_state") and v is None
        ]
        model.set_params(**dict.fromkeys(free, self.seed))
        try:
            model.fit(points)
        except InvalidParameterError:
            # More clips would not help.
            raise
        except ValueError as error:
            raise TooFewClipsError(
                f"{name} could not be fitted to {len(points)} clips of {points.shape[1]} "
                f"dimensions: {error}"
            ) from error
        _require_regular(model, points)
        if isinstance(model, LocalOutlierFactor):
            _warn_of_copies(points, model.n_neighbors_)
        return model


def _least_different(model: Any) -> int:
    # scikit-learn puts the mean of a component without a clip at 0.
    components = model.n_components if isinstance(model, GaussianMixture) else 0
    return max(2, components) if isinstance(components, int) else 2


def _require_regular(model: Any, points: np.ndarray) -> None:
    """Raise if a covariance has no inverse: distances would ignore all directions but its own."""
    if not hasattr(model, "mahalanobis"):
        return
    n, size = points.shape
    if (rank := np.linalg.matrix_rank(model.covariance_, hermitian=True)) < size:
        raise TooFewClipsError(
            f"{type(model).__name__}: the covariance of {n} clips is singular, of rank {rank} in "
            f"{size} dimensions. LedoitWolf's has an inverse, of 3 different clips or more"
        )


def _warn_of_copies(points: np.ndarray, neighbours: int) -> None:
    """Warn of infinite local densities; with ``novelty=True`` scikit-learn does not."""
    most = int(np.unique(points, axis=0, return_counts=True)[1].max())
    if most > neighbours:
        log.warning(
            "%d of %d normal clips are equal to LocalOutlierFactor, more than n_neighbors=%d, so "
            "that their density is infinite and every clip near them scores high. Remove copies "
            "(fsasd-check names them) or raise n_neighbors above %d",
            most, len(points), neighbours, most - 1,
        )  # fmt: skip


def _score(model: Any, points: np.ndarray) -> np.ndarray:
    if hasattr(model, "score_samples"):
        return -model.score_samples(points)
    return np.sqrt(model.mahalanobis(points))
