import logging
import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import BaseEstimator

from fsasd.evaluation.thresholds import gamma_threshold, held_out_scores


@pytest.mark.parametrize("loc", [0.0, -200.0, 5.0])
@pytest.mark.parametrize("quantile", [0.9, 0.95])
def test_threshold_is_the_baselines_where_the_fit_works(loc, quantile, caplog):
    scores = np.random.default_rng(0).gamma(4.0, 2.0, size=500) + loc
    shape, location, scale = stats.gamma.fit(scores)
    expected = stats.gamma.ppf(q=quantile, a=shape, loc=location, scale=scale)
    assert gamma_threshold(scores, quantile) == expected
    assert not caplog.records


def test_threshold_passes_the_share_of_fresh_normal_clips_it_promises():
    rng = np.random.default_rng(1)
    shares = [
        np.mean(rng.normal(-30, 4, 2000) > gamma_threshold(rng.normal(-30, 4, 200)))
        for _ in range(20)
    ]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.02)


def test_five_scores_are_enough():
    scores = np.random.default_rng(2).normal(0.4, 0.05, size=5)
    assert scores.mean() < gamma_threshold(scores) < scores.max() + np.ptp(scores)


@pytest.mark.parametrize(
    "scores",
    [
        np.append(np.random.default_rng(3).normal(size=999), 1e4),
        -np.random.default_rng(3).exponential(size=1000),
        np.random.default_rng(3).integers(0, 2, size=1000).astype(float),
        np.array([0.0, 1e-12, 1e-12, 1e-12]),
    ],
    ids=["outlier", "left-skewed", "two values", "nearly constant"],
)
def test_threshold_is_empirical_and_says_so_where_no_gamma_fits(scores, caplog):
    with caplog.at_level(logging.WARNING):
        assert gamma_threshold(scores) == np.quantile(scores, 0.9)
    assert "no gamma distribution fits" in caplog.text


def test_a_fit_that_fails_is_no_threshold(monkeypatch, caplog):
    def fail(scores):
        raise stats.FitError("did not converge")

    monkeypatch.setattr(stats.gamma, "fit", fail)
    assert gamma_threshold([1.0, 2.0, 3.0]) == pytest.approx(2.8)
    assert "no gamma distribution fits" in caplog.text


def test_equal_scores_are_all_normal():
    assert gamma_threshold(np.full(7, -3.25)) == -3.25


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30), st.floats(0.5, 0.99))
def test_threshold_is_never_wild(scores, quantile):
    threshold = gamma_threshold(scores, quantile)
    odds = quantile / (1 - quantile)
    low = np.mean(scores) - np.std(scores) / math.sqrt(odds)
    high = np.mean(scores) + np.std(scores) * math.sqrt(odds)
    assert min(low, *scores) <= threshold <= max(high, *scores)


@pytest.mark.parametrize(
    ("scores", "quantile", "message"),
    [
        ([1.0], 0.9, r"expected shape \(n,\) with n >= 2, found \(1,\)"),
        ([], 0.9, r"found \(0,\)"),
        ([[1.0, 2.0]], 0.9, r"found \(1, 2\)"),
        ([1.0, math.nan], 0.9, "expected finite numbers, found .*nan"),
        ([1.0, -math.inf], 0.9, "expected finite numbers, found .*-inf"),
        ([1.0, 2.0], 90, r"quantile: expected a fraction in \(0, 1\), found 90"),
        ([1.0, 2.0], 1, "quantile: expected a fraction"),
        ([1.0, 2.0], 0, "quantile: expected a fraction"),
    ],
)
def test_threshold_guards(scores, quantile, message):
    with pytest.raises(ValueError, match=message):
        gamma_threshold(scores, quantile)


class Clips(list):
    """A sequence that takes integer index arrays."""

    def __getitem__(self, index):
        return Clips(list.__getitem__(self, int(i)) for i in index)


class Nearest(BaseEstimator):
    """Distance to the nearest training clip; remembers nothing outside a clone."""

    def __init__(self, power=1):
        self.power = power

    def fit(self, clips):
        assert isinstance(clips, Clips)
        self.seen_ = list(clips)
        return self

    def score(self, clips):
        return np.array([min(abs(c - s) ** self.power for s in self.seen_) for c in clips])


def test_no_clip_is_scored_by_a_detector_that_knows_it():
    clips, detector = Clips(range(23)), Nearest(power=2)
    assert not detector.fit(clips).score(clips).any()
    del detector.seen_
    scores = held_out_scores(detector, clips)
    assert scores.shape == (23,)
    assert (scores >= 1).all()
    assert not hasattr(detector, "seen_")


def test_scores_come_in_the_order_of_the_clips():
    clips = Clips([0.0, 1.0, 5.0, 20.0])
    assert held_out_scores(Nearest(), clips, folds=10).tolist() == [1, 1, 4, 15]
    assert held_out_scores(Nearest(), clips[np.array([0, 2])], folds=2).tolist() == [5, 5]


def test_clips_of_one_recording_are_held_out_together():
    """Each clip has a copy of the same recording: not even that is fitted on."""
    clips = Clips(np.repeat(np.arange(12.0), 2))
    groups = np.repeat(np.arange(12), 2)
    assert (held_out_scores(Nearest(), clips, groups=groups) >= 1).all()
    assert (held_out_scores(Nearest(), clips) == 0).any()


def test_folds_depend_on_the_seed_alone():
    clips = Clips(np.random.default_rng(0).normal(size=40))
    first = held_out_scores(Nearest(), clips, seed=1)
    assert np.array_equal(first, held_out_scores(Nearest(), clips, seed=1))
    assert not np.array_equal(first, held_out_scores(Nearest(), clips, seed=2))


def test_folds_are_fitted_side_by_side_where_the_detector_allows_it(monkeypatch):
    class Together(Nearest):
        fits_in_threads = True
        both = threading.Barrier(2, timeout=30)

        def fit(self, clips):
            self.both.wait()
            return super().fit(clips)

    monkeypatch.setattr("fsasd.runtime.threads.cores", lambda: 2)
    clips = Clips(np.random.default_rng(0).normal(size=40))
    together = held_out_scores(Together(), clips, folds=4)
    assert np.array_equal(together, held_out_scores(Nearest(), clips, folds=4))


def test_an_error_of_a_fold_is_raised(monkeypatch):
    class Failing(Nearest):
        fits_in_threads = True

        def fit(self, clips):
            raise ValueError(f"{len(clips)} clips are too few")

    with pytest.raises(ValueError, match="3 clips are too few"):
        held_out_scores(Failing(), Clips(range(4)), folds=4)


def test_held_out_guards():
    class Scalar(Nearest):
        def score(self, clips):
            return 0.0

    with pytest.raises(ValueError, match="at least 2 to hold some out, found 1"):
        held_out_scores(Nearest(), Clips([1]))
    with pytest.raises(ValueError, match="folds: expected at least 2, found 1"):
        held_out_scores(Nearest(), Clips([1, 2]), folds=1)
    with pytest.raises(
        ValueError, match=r"Scalar\(\): expected scores of shape \(1,\), found \(\)"
    ):
        held_out_scores(Scalar(), Clips([1, 2]))
