"""Odd clips are detected whatever the distribution, and normal ones are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsasd.evaluation.oddness import odd_scores
from fsasd.evaluation.thresholds import gamma_threshold

pytestmark = pytest.mark.slow

NORMAL = {
    "normal": lambda rng, n: rng.normal(-30, 4, n),
    "gamma": lambda rng, n: rng.gamma(4.0, 2.0, n),
    "lognormal": lambda rng, n: rng.lognormal(0.0, 0.4, n),
}


def odd(scores):
    return odd_scores(scores, ["source"] * len(scores), [None] * len(scores))


def height(scores):
    return gamma_threshold(scores, warn=False) - np.median(scores)


def with_outliers(name, n, k, far, seed):
    """Of n scores k lie `far` robust standard deviations above (below, if negative) the median."""
    rng = np.random.default_rng(seed)
    scores = NORMAL[name](rng, n - k)
    median = np.median(scores)
    spread = 1.4826 * np.median(abs(scores - median))
    outliers = median + far * spread * (1 + 0.1 * rng.random(k))
    return np.append(scores, outliers), np.repeat([False, True], [n - k, k])


@pytest.mark.parametrize("name", NORMAL)
@pytest.mark.parametrize(("n", "k"), [(8, 1), (16, 1), (26, 2), (50, 2), (50, 4), (100, 5)])
@pytest.mark.parametrize("far", [1e3, 1e9, -1e3])
def test_far_outliers_are_odd(name, n, k, far):
    scores, outlier = with_outliers(name, n, k, far, seed=1)
    marked = odd(scores)
    assert marked[outlier].all()
    # Of a heavy tail, the highest of all may be odd, too.
    assert marked[~outlier].sum() <= (0 if name == "normal" else 2)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NORMAL)
@pytest.mark.parametrize(("n", "k"), [(16, 1), (50, 2), (100, 5)])
@pytest.mark.parametrize("far", [4.0, 6.0, 8.0, 12.0, 1e3, 1e9])
def test_thresholds_withstand_outliers(name, n, k, far):
    """In most samples: of 15 scores, the official fit itself moves as far with any one more."""
    within = []
    for seed in range(10):
        scores, outlier = with_outliers(name, n, k, far, seed)
        clean = scores[~outlier]
        ratio = height(scores[~odd(scores)]) / height(clean)
        within.append(1 / 1.5 < ratio < 1.5)
    assert np.mean(within) >= (0.8 if n == 16 and far < 10 else 0.9)


@pytest.mark.parametrize("name", NORMAL)
@pytest.mark.parametrize(("n", "allowed"), [(16, 0.2), (50, 0.15), (200, 0.1)])
def test_clean_samples_are_left_alone(name, n, allowed):
    marked = [odd(NORMAL[name](np.random.default_rng(seed), n)).any() for seed in range(40)]
    assert np.mean(marked) <= allowed


@pytest.mark.parametrize("states", ["known", "unknown"])
def test_a_dcase_section_has_no_odd_clips(states):
    """Ten target clips score far above 990 source clips, and differ more from one another."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scores = np.concatenate([rng.gamma(4.0, 1.0, 990), rng.normal(60.0, 20.0, 10)])
        state = rng.integers(0, 6, 1000) if states == "known" else np.zeros(1000)
        marked = odd_scores(scores, ["source"] * 990 + ["target"] * 10, state.tolist())
        assert not marked.any()


def test_a_rare_domain_is_not_odd():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(10, 1, 22), rng.normal(80, 8, 4)])
    assert not odd_scores(scores, ["source"] * 22 + ["target"] * 4, [None] * 26).any()
    # Were they of one domain, they would be too many to be odd.
    assert not odd(scores).any()


def test_a_silent_clip_of_a_small_domain_is_odd():
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(10, 1, 20), rng.normal(14, 1, 5), [1200.0]])
    marked = odd_scores(scores, ["source"] * 20 + ["target"] * 6, list(range(26)))
    assert marked.nonzero()[0].tolist() == [25]


def test_each_state_is_compared_with_clips_of_the_same_state():
    """What is odd at low speed is usual at high speed."""
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(10, 1, 20), [60.0], rng.normal(60, 1, 20)])
    states = ["slow"] * 21 + ["fast"] * 20
    assert not odd(scores).any()
    assert odd_scores(scores, ["source"] * 41, states).nonzero()[0].tolist() in ([], [20])
    scores[20] = 600.0
    assert odd_scores(scores, ["source"] * 41, states).nonzero()[0].tolist() == [20]


def test_states_of_few_clips_are_judged_together():
    rng = np.random.default_rng(3)
    scores = np.append(rng.normal(10, 1, 23), 1e3)
    marked = odd_scores(scores, ["source"] * 24, [i // 2 for i in range(24)])
    assert marked.nonzero()[0].tolist() == [23]


def test_from_twelve_clips_on_the_gap_is_compared_with_those_down_to_the_median():
    """In fewer, one gap among all is no evidence where others are as wide."""
    scores = np.array([100.0, 6, 5, 4, 3, 2, 1, -10, -20, -30, -40, -50])
    assert odd(scores).nonzero()[0].tolist() == [0]
    assert not odd(np.delete(scores, 6)).any()


def test_one_of_each_group_is_found_however_far_another_lies():
    rng = np.random.default_rng(4)
    scores = np.concatenate([rng.normal(10, 1, 20), [1e3], rng.normal(10, 1, 20), [1e9]])
    marked = odd_scores(scores, ["source"] * 21 + ["target"] * 21, [None] * 42)
    assert marked.nonzero()[0].tolist() == [20, 41]


def test_one_clip_of_a_thousand_that_does_no_harm_stays():
    scores = np.append(np.random.default_rng(5).normal(size=999), 8.0)
    assert not odd(scores).any()
    scores[-1] = 1e4
    assert odd(scores).nonzero()[0].tolist() == [999]


def test_scores_that_no_gamma_distribution_fits_are_judged_without_a_message(caplog):
    scores = np.append(-np.random.default_rng(3).exponential(size=999), 3.0)
    assert not odd(scores).any()
    assert not caplog.messages
    gamma_threshold(scores)
    assert "no gamma distribution fits" in caplog.text


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_too_few_scores_are_not_judged(n):
    assert not odd(np.append(np.zeros(n - 1), 1e9)[:n] if n else np.zeros(0)).any()


def test_equal_scores_are_not_odd():
    assert not odd(np.full(30, 2.5)).any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.floats(1e-3, 1e3))
def test_few_are_odd_and_units_do_not_matter(scores, unit):
    scores = np.round(scores, 3)
    marked = odd(scores)
    assert marked.sum() <= max(len(scores) // 12, 1)
    assert marked.sum() <= 1 or len(scores) >= 24
    if len(set(scores)) == len(scores) and len(scores) < 12:
        np.testing.assert_array_equal(odd(scores * unit), marked)


@pytest.mark.parametrize(
    ("scores", "domains", "message"),
    [
        ([1.0, np.nan], ["source"] * 2, "expected finite numbers, found .*nan"),
        ([1.0, 2.0], ["source"], r"found \(2,\), 1 and 2"),
    ],
)
def test_guards(scores, domains, message):
    with pytest.raises(ValueError, match=message):
        odd_scores(scores, domains, [None] * 2)
