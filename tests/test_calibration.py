"""Held-out scores of normal clips give the threshold and tail probabilities."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fsasd.evaluation.calibration import Calibration, require_rate
from fsasd.evaluation.thresholds import gamma_threshold


def calibration(scores, rate=0.1, domains=None):
    held_out = {f"{i}.wav": float(score) for i, score in enumerate(scores)}
    domains = ["source"] * len(scores) if domains is None else domains
    return Calibration.of(held_out, domains, [None] * len(scores), rate)


@pytest.mark.parametrize("n", [5, 26, 200])
@pytest.mark.parametrize("rate", [0.1, 0.02, 0.3])
def test_without_odd_clips_the_threshold_is_the_official_one(n, rate):
    scores = np.random.default_rng(0).gamma(4.0, 2.0, n) - 100
    result = calibration(scores, rate)
    assert result.odd == ()
    assert result.threshold == gamma_threshold(scores, 1 - rate)


def test_a_dcase_section_has_the_official_threshold():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.gamma(4.0, 1.0, 990), rng.normal(60.0, 20.0, 10)])
    result = calibration(scores, domains=["source"] * 990 + ["target"] * 10)
    assert result.odd == ()
    assert result.threshold == gamma_threshold(scores)


@pytest.mark.parametrize("far", [20.0, 689.0, 2.8e11])
def test_odd_clips_set_no_threshold_and_are_named(far):
    scores = np.random.default_rng(1).gamma(4.0, 1.0, 25)
    result = calibration([*scores[:7], far, *scores[7:]])
    assert result.odd == ("7.wav",)
    assert result.threshold == gamma_threshold(scores)
    assert result.odd_clips().startswith(
        f"1 of 26 normal training clips is odd: 7.wav (held-out score {far:.4g}, median of"
    )


def test_many_odd_clips_are_one_line():
    scores = [*np.random.default_rng(2).normal(size=95), *np.linspace(1e3, 2e3, 5)]
    median = np.median(scores[:95])
    assert calibration(scores).odd_clips() == (
        "5 of 100 normal training clips are odd: 95.wav (held-out score 1000, median of the others "
        f"{median:.4g}), 96.wav (1250), 97.wav (1500) and 2 more"
    )
    assert calibration(scores[:95]).odd_clips() == ""


def test_another_false_alarm_rate_is_that_of_a_new_calibration():
    scores = np.append(np.random.default_rng(3).gamma(4.0, 1.0, 60), 1e5)
    first = calibration(scores)
    again = first.at(0.02)
    assert again.threshold == calibration(scores, 0.02).threshold > first.threshold
    assert (again.held_out, again.odd) == (first.held_out, first.odd)
    assert again.at(0.1).threshold == first.threshold


@pytest.mark.parametrize("rate", [0, 1, -0.1, 10, "0.1", None, True, float("nan")])
def test_a_rate_is_a_share(rate):
    with pytest.raises(ValueError, match=r"false-alarm rate: expected .* in \(0, 1\), found"):
        require_rate(rate)


# Tail probabilities


@pytest.mark.parametrize("n", [10, 49, 50, 400])
def test_tail_probabilities_are_uniform_on_normal_clips(n):
    rng = np.random.default_rng(4)
    result = [calibration(rng.gamma(4, 1, n)).p_values(rng.gamma(4, 1, 50)) for _ in range(20)]
    result = np.concatenate(result)
    for level in (0.1, 0.3, 0.5, 0.8):
        assert np.mean(result <= level) == pytest.approx(level, abs=0.08)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=70),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20),
)
def test_tail_probabilities_fall_with_the_score(normal, scores):
    result = calibration(normal).p_values(sorted(scores))
    assert (np.diff(result) <= 0).all()
    assert ((result > 0) & (result <= 1)).all()


def test_with_few_clips_it_is_their_percentile():
    result = calibration([1.0, 2.0, 2.0, 3.0])
    np.testing.assert_array_equal(
        result.p_values([0.0, 1.0, 2.0, 2.5, 3.0, 1e300]), np.array([5, 5, 4, 2, 2, 1]) / 5
    )


def test_with_many_it_is_that_of_the_distribution_that_the_threshold_comes_from():
    rng = np.random.default_rng(5)
    scores = rng.gamma(4.0, 2.0, 200)
    result = calibration(scores)
    shape, location, scale = stats.gamma.fit(scores)
    asked = np.array([-1e300, location, *rng.normal(20, 20, 500), 300.0, 400.0])
    np.testing.assert_array_equal(
        result.p_values(asked), stats.gamma.sf(asked, shape, loc=location, scale=scale)
    )
    assert result.p_values([result.threshold])[0] == pytest.approx(0.1)
    assert result.p_values([1e12])[0] > 0


def test_where_no_distribution_fits_it_is_the_percentile(caplog):
    scores = -np.random.default_rng(3).exponential(size=1000)
    with caplog.at_level(logging.WARNING):
        result = calibration(scores)
    assert "no gamma distribution fits" in caplog.text
    assert result.p_values([scores.max() + 1])[0] == 1 / (1 + len(result.normal))


def test_odd_clips_do_not_count():
    scores = np.append(np.random.default_rng(6).gamma(4.0, 1.0, 25), 1e6)
    assert calibration(scores).p_values([1e5])[0] == 1 / 26


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_tail_probability_of_what_is_no_number(bad):
    with pytest.raises(ValueError, match="expected finite numbers, found"):
        calibration([1.0, 2.0, 3.0]).p_values([1.0, bad])
    with pytest.raises(ValueError, match="expected finite numbers, found"):
        calibration([1.0, 2.0, bad])


# In a file


def test_it_is_read_as_it_was_written():
    scores = np.append(np.random.default_rng(7).gamma(4.0, 1.0, 60), 1e5)
    result = calibration(scores, 0.05)
    assert result.gamma is not None
    again = Calibration.from_described(json.loads(json.dumps(result.described())))
    assert again.described() == result.described()
    np.testing.assert_array_equal(again.p_values(scores), result.p_values(scores))
    assert again.at(0.1).threshold == result.at(0.1).threshold


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": float("nan")}, "expected a finite number as 'threshold', found nan"),
        ({"threshold": None}, "expected a finite number as 'threshold', found None"),
        ({"threshold": True}, "expected a finite number as 'threshold', found True"),
        ({"false_alarm_rate": 2}, r"false-alarm rate: expected .* found 2\.0"),
        ({"held_out": [1.0, 2.0]}, r"held-out scores of 2 clips or more, found \[1\.0, 2\.0\]"),
        ({"held_out": {"a": 1.0}}, "expected held-out scores of 2 clips or more, found {'a': 1.0}"),
        ({"held_out": {"a": 1.0, "b": float("inf")}}, "expected a finite number as 'b', found inf"),
        ({"odd": ["x.wav"]}, r"expected some of the held-out clips as 'odd', found \['x\.wav'\]"),
        ({"odd": [f"{i}.wav" for i in range(5)]}, "not odd, found 5 odd of 5"),
    ],
)
def test_what_is_no_calibration_is_refused(change, message):
    about = calibration(range(5)).described() | change
    with pytest.raises(ValueError, match=message):
        Calibration.from_described(about)
