"""In what synthetic clips differ from real ones: known differences are named, others are not."""

import numpy as np
import pandas as pd
import pytest

from fsasd.generation.band_differences import _studentised, differences, in_words
from fsasd.generation.bands import BANDS


def machine(count, seed=0):
    """(count, 2, BANDS) of clips whose level varies as a whole and, neighbours alike, by band."""
    rng = np.random.default_rng(seed)
    shape = np.cumsum(rng.standard_normal((count, BANDS)), axis=1) / 2
    level = 2 * rng.standard_t(4, (count, 1)) + shape - np.linspace(40, 70, BANDS)
    unsteady = 6 * np.exp(0.2 * rng.standard_normal((count, 1)) + 0.1 * shape)
    return np.stack([level, unsteady], axis=1)


def compared(real, synthetic, groups=None):
    bands = np.concatenate([real, synthetic])
    labels = np.repeat([0, 1], [len(real), len(synthetic)])
    return differences(bands, labels, np.arange(len(bands)) if groups is None else groups)


def changed(bands, aspect=0, where=slice(None), by=0.0):
    bands = bands.copy()
    bands[:, aspect, where] += by
    return bands


@pytest.mark.parametrize("count", [15, 60])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"by": 12}, "dB louder over all bands"),
        ({"by": -12}, "dB quieter over all bands"),
        ({"where": slice(13, 16), "by": -12}, "dB quieter above 4.7 kHz"),
        ({"where": slice(0, 2), "by": 12}, "dB louder below 260 Hz"),
        ({"aspect": 1, "by": -5}, "steadier (range over time"),
        ({"aspect": 1, "where": slice(8, 11), "by": 5}, "less steady (range over time"),
    ],
)
def test_a_known_difference_is_named(count, change, words):
    table = compared(machine(count, 3), changed(machine(count, 4), **change))
    assert words in in_words(table)
    aspect = ("level", "unsteadiness")[change.get("aspect", 0)]
    sure = table[table["sure"]]
    assert set(sure["aspect"]) == {aspect}
    assert (np.sign(sure["difference"]) == np.sign(change["by"])).all()
    assert (sure["low"] * sure["high"] > 0).all()
    largest = sure.loc[sure["difference"].abs().idxmax()]
    assert largest["difference"] == pytest.approx(change["by"], rel=0.4)


def test_a_louder_clip_differs_in_one_row_and_a_band_beyond_it_in_another():
    both = changed(changed(machine(60, 2), by=9), where=slice(13, 16), by=-12)
    words = in_words(compared(machine(60, 1), both))
    assert "louder over all bands; " in words
    assert "quieter above 4.7 kHz, relative to that" in words


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("count", [15, 60])
def test_nothing_is_named_of_equal_sets_in_95_percent_of_draws(count):
    named = [
        bool(in_words(compared(machine(count, 2 * seed), machine(count, 2 * seed + 1))))
        for seed in range(200)
    ]
    # 5 % on average: 18 of 200 or more have a probability below 1.5 %.
    assert sum(named) < 18


def test_rounding_is_sure_but_not_named():
    real = machine(20)
    table = compared(real, real + 0.01, np.tile(np.arange(20), 2))
    overall = table.iloc[0]
    assert overall["low"] > 0
    assert not table["sure"].any()


def test_a_pair_of_a_clip_and_its_source_is_compared_as_one():
    """What ten sources differ by among themselves says nothing about what was changed in each."""
    real = machine(10)
    synthetic = changed(real, where=slice(13, 16), by=-1.5)
    synthetic += 0.01 * (machine(10, 3) - machine(10, 3).mean(axis=0))
    assert in_words(compared(real, synthetic)) == ""
    assert "quieter above 4.7 kHz" in in_words(compared(real, synthetic, np.tile(np.arange(10), 2)))


def test_errors_are_those_of_what_independent_groups_contribute():
    rng = np.random.default_rng(0)
    groups = np.array([0, 1, 2, 2, 3, 4, 5, 5, 4, 6, 6, 7])
    labels = np.repeat([0, 1], 6)
    values = rng.standard_normal((12, 3))
    (difference,), (error,) = _studentised(values, labels[None], groups)
    means = [values[labels == kind].mean(axis=0) for kind in (0, 1)]
    np.testing.assert_allclose(difference, means[1] - means[0])
    signed = np.where(labels == 1, 1, -1)[:, None] * (values - np.stack(means)[labels]) / 6
    squares = [signed[groups == group].sum(axis=0) ** 2 for group in range(8)]
    np.testing.assert_allclose(error, np.sqrt(np.sum(squares, axis=0) * 8 / 7))


def test_neighbouring_bands_are_one_range_and_the_largest_come_first():
    corners = [(0, 100), (100, 200), (200, 1234), (1234, 8000)]
    rows = [
        {"aspect": "level", "low_hz": 0, "high_hz": 8000, "difference": 0, "effect": 0,
         "sure": False},
        *({"aspect": "level", "low_hz": low, "high_hz": high, "difference": difference,
           "effect": difference, "sure": sure}
          for (low, high), difference, sure in zip(
              corners, [1, 2, -9, 4], [True, True, True, False], strict=True)),
    ]  # fmt: skip
    expected = "9.0 dB quieter from 200 Hz to 1.2 kHz; 1.5 dB louder below 200 Hz"
    assert in_words(pd.DataFrame(rows)) == expected
    assert in_words(pd.DataFrame(rows), at_most=1) == expected.split(";")[0]


@pytest.mark.parametrize(("real", "synthetic"), [(1, 1), (1, 20), (20, 1), (2, 2)])
def test_of_hardly_any_clips_nothing_is_sure(real, synthetic):
    table = compared(machine(real, 1), changed(machine(synthetic, 2), by=40))
    if min(real, synthetic) < 3 and max(real, synthetic) < 20:
        assert not table["sure"].any()
    assert np.isfinite(table["difference"]).all()


def test_identical_clips_do_not_differ_and_constant_ones_by_what_they_differ():
    one = np.repeat(machine(1), 20, axis=0)
    assert not compared(one, one)["sure"].any()
    assert in_words(compared(one, changed(one, by=-6))) == "6.0 dB quieter over all bands"
