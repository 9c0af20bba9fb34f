"""An adapter for the outlier and density models of scikit-learn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector, TooFewClipsError
from fsasd.detectors.domains import Domains, banks
from fsasd.detectors.order import canonical_order
from fsasd.detectors.representations import TimeStatistics, count_parameters

log = logging.getLogger(__name__)


class Outliers(Detector):
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
        domains: ``pooled``, or ``separate``: a model for each domain, and the lower score counts.
        seed: For a model whose ``random_state`` is not set.
    """

    def __init__(
        self,
        model: BaseEstimator = LedoitWolf(),  # noqa: B008
        representation: Callable[[Clips], np.ndarray] = TimeStatistics(),  # noqa: B008
        standardise: bool = False,
        domains: Domains = "pooled",
        seed: int = 0,
    ) -> None:
        self.model = model
        self.representation = representation
        self.standardise = standardise
        self.domains = domains
        self.seed = seed

    def fit(self, clips: Clips) -> Self:
        """Fit the model to the representations of normal clips.

        Raises:
            TooFewClipsError: A bank has fewer than 2 clips, or too few for the model.
            ValueError: A parameter of the model is out of range.
            TypeError: The model has no method that scores.
        """
        if not hasattr(self.model, "score_samples") and not hasattr(self.model, "mahalanobis"):
            raise TypeError(
                f"{self.model!r} has neither score_samples nor mahalanobis: expected an outlier "
                "or density model (LocalOutlierFactor only scores others with novelty=True)"
            )
        bank = banks(clips, self.domains)
        points = self.representation(clips)
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
        points = self._scaler.transform(self.representation(clips))
        return np.min([_score(model, points) for model in self._models], axis=0)

    def n_parameters(self) -> int:
        """Return the number of values in the bank, and of an encoder's parameters."""
        check_is_fitted(self)
        return self.points_.size + count_parameters(self.representation)

    def _restored(self) -> None:
        self._fit_models()

    def _fit_models(self) -> None:
        self._scaler = StandardScaler(with_mean=self.standardise, with_std=self.standardise)
        points = self._scaler.fit_transform(self.points_)
        of_banks = np.split(points, np.cumsum(self.sizes_)[:-1])
        self._models = [self._fitted(of_bank) for of_bank in of_banks]

    def _fitted(self, points: np.ndarray) -> Any:
        model: Any = clone(self.model)
        name = type(model).__name__
        if len(points) < 2:
            raise TooFewClipsError(f"{name} is fitted to at least 2 clips, found {len(points)}")
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
        if isinstance(model, LocalOutlierFactor):
            _warn_of_copies(points, model.n_neighbors_)
        return model


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
