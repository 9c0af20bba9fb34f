"""Anomaly scores to decisions: a threshold from normal training clips alone.

A clip is called anomalous when its score is *above* the threshold, ``score > threshold``.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.evaluation.folds import Split, split_folds
from fsasd.evaluation.gamma import Gamma
from fsasd.runtime.threads import one_blas_thread, thread_pool

logger = logging.getLogger(__name__)


class Rows(Protocol):
    """A sequence of which an array of indices gives some: clips, or an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[np.int_], /) -> Any: ...


Clips = TypeVar("Clips", bound=Rows, contravariant=True)


class Detector(Protocol[Clips]):
    """What ``held_out_scores`` asks of a detector."""

    def fit(self, clips: Clips) -> object:
        """Learn from normal clips."""

    def score(self, clips: Clips) -> NDArray[np.float64]:
        """Anomaly scores, shape (n,)."""


def gamma_threshold(scores: ArrayLike, quantile: float = 0.9, *, warn: bool = True) -> float:
    """Quantile of a gamma distribution fitted to the anomaly scores of normal clips.

    As the DCASE 2023 baseline does (``dcase2023_task2_baseline_ae``, ``networks/base_model.py``):
    maximum likelihood with free shape, location and scale, so scores may be negative. With a free
    location the likelihood has no maximum for some samples (few, discrete or left-skewed scores, a
    far outlier), and the fit may leave half of its own scores above its 90th percentile, or none
    by many orders of magnitude. So the fit is believed only while

    * the share of scores at or below the threshold is one that q = ``quantile`` allows, neither
      tail of the binomial distribution being under 1 %, and
    * the threshold is between mean - sqrt((1 - q) / q) and mean + sqrt(q / (1 - q)) standard
      deviations of the scores, as every distribution's quantile is (Cantelli's inequality).

    Otherwise the threshold is the empirical quantile, and a log message says so. Where all scores
    are the same the threshold is that score: its clips are normal, whatever lies above is not.

    Args:
        scores: Held-out anomaly scores of normal clips (see ``held_out_scores``), shape (n,),
            n at least 2.
        quantile: Share of normal clips to leave below the threshold, in (0, 1).
        warn: Whether to log that no gamma distribution fits.

    Raises:
        ValueError: Fewer than 2 scores, a score that is not finite, or ``quantile`` out of range.

    >>> scores = np.random.default_rng(0).gamma(3.0, 2.0, size=2000) - 50
    >>> threshold = gamma_threshold(scores)
    >>> bool(abs(np.mean(scores > threshold) - 0.1) < 0.01)
    True
    >>> gamma_threshold([3.0, 3.0, 3.0])
    3.0
    """
    scores = np.asarray(scores, dtype=float)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile: expected a fraction in (0, 1), found {quantile}")
    fitted = fitted_gamma(scores, quantile)
    if fitted is not None:
        from scipy import stats

        return float(stats.gamma.ppf(quantile, *fitted))
    empirical = float(np.quantile(scores, quantile))
    if warn and scores.min() < scores.max():
        logger.warning(
            "no gamma distribution fits the %d scores; the threshold is their empirical %g "
            "quantile %g", len(scores), quantile, empirical,
        )  # fmt: skip
    return empirical


def fitted_gamma(scores: ArrayLike, quantile: float = 0.9) -> Gamma | None:
    """Gamma distribution of anomaly scores, by the official maximum-likelihood fit.

    Args:
        scores: Shape (n,), n at least 2.
        quantile: Where the fit has to agree with the scores (see ``gamma_threshold``).

    Returns:
        The distribution; ``None`` where the fit is not to be believed, or all scores are the same.

    Raises:
        ValueError: Fewer than 2 scores, or a score that is not finite.

    >>> scores = np.random.default_rng(0).gamma(3.0, 2.0, size=2000)
    >>> fitted = fitted_gamma(scores)
    >>> round(fitted.location + fitted.shape * fitted.scale)
    6
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 1 or len(scores) < 2:
        raise ValueError(f"scores: expected shape (n,) with n >= 2, found {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite numbers, found {scores[~np.isfinite(scores)]}")
    if scores.min() == scores.max():
        return None
    # Its import takes a second of a command that may only score.
    from scipy import stats

    try:
        # Degenerate samples make scipy divide by 0 on its way; the result is judged afterwards.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            fitted = Gamma(*map(float, stats.gamma.fit(scores)))
            threshold = float(stats.gamma.ppf(quantile, *fitted))
    except (stats.FitError, ValueError, ArithmeticError):
        return None
    return fitted if _plausible(scores, threshold, quantile) else None


def held_out_scores(
    detector: Detector[Clips],
    clips: Clips,
    folds: int = 5,
    seed: int = 0,
    groups: NDArray[np.int_] | None = None,
) -> NDArray[np.float64]:
    """Score each training clip with a detector that was fitted without it.

    A detector is fitted on its training clips (a nearest neighbour is the clip itself), so their
    scores set thresholds too low. Clips are shuffled into folds, and each fold is scored by a
    ``sklearn.base.clone`` of the detector fitted on the others; ``detector`` itself stays as it is.
    Where it says ``fits_in_threads``, several folds are fitted at a time.

    Args:
        detector: Has ``fit(clips)`` and ``score(clips) -> (n,)``.
        clips: Normal training clips: has a length, and ``clips[[0, 3]]`` is a sub-sequence.
        folds: At most so many; one clip per fold where there are fewer clips.
        seed: Seed of the shuffle.
        groups: Equal for clips of one recording, shape (n,), which are held out together (see
            ``folds.split_folds``); by default each clip is one of its own.

    Returns:
        Anomaly scores in the order of ``clips``, shape (n,).

    Raises:
        ValueError: Fewer than 2 clips or folds, or the detector returned another shape.

    >>> from sklearn.base import BaseEstimator
    >>> class FromMean(BaseEstimator):
    ...     def fit(self, clips):
    ...         self.mean_ = clips.mean()
    ...         return self
    ...     def score(self, clips):
    ...         return abs(clips - self.mean_)
    >>> held_out_scores(FromMean(), np.array([0.0, 1.0, 5.0])).tolist()
    [3.0, 1.5, 4.5]
    """
    from sklearn.base import clone

    if len(clips) < 2:
        raise ValueError(f"clips: expected at least 2 to hold some out, found {len(clips)}")
    if folds < 2:
        raise ValueError(f"folds: expected at least 2, found {folds}")
    splits = split_folds(len(clips), folds, seed, groups)

    def scored(split: Split) -> NDArray[np.float64]:
        rest, fold = split
        fitted = clone(detector)
        fitted.fit(clips[rest])
        scores = np.asarray(fitted.score(clips[fold]))
        if scores.shape != fold.shape:
            raise ValueError(
                f"{detector}: expected scores of shape {fold.shape}, found {scores.shape}"
            )
        return scores

    held_out = np.empty(len(clips))
    with contextlib.ExitStack() as stack:
        each: Callable[..., Iterable[NDArray[np.float64]]] = map
        if getattr(detector, "fits_in_threads", False):
            stack.enter_context(one_blas_thread())
            each = stack.enter_context(thread_pool("folds")).map
        for (_, fold), scores in zip(splits, each(scored, splits), strict=True):
            held_out[fold] = scores
    return held_out


def _plausible(scores: NDArray[np.float64], threshold: float, quantile: float) -> bool:
    from scipy import stats

    mean, odds = scores.mean(), quantile / (1 - quantile)
    low, high = mean - scores.std() / np.sqrt(odds), mean + scores.std() * np.sqrt(odds)
    if not low <= threshold <= high:  # also when it is NaN
        return False
    below = int((scores <= threshold).sum())
    binomial = stats.binom(len(scores), quantile)
    return bool(min(binomial.cdf(below), binomial.sf(below - 1)) >= 0.01)
