"""The gap between synthetic and real normal clips: known differences are found, others are not."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hash
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.encoder_space import RealClips
from fsasd.generation.gap import (
    BANDS,
    Gap,
    _studentised,
    band_edges,
    band_statistics,
    differences,
    energy_distance,
    gap_tables,
    held_out_auc,
    in_words,
    measure_gap,
    permuted,
)


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


# In what they differ


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
    assert "quieter above 4.7 kHz, beyond that" in words


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


# Is there any difference


def points(count, seed, shift=0.0):
    return np.random.default_rng(seed).standard_normal((count, 8)) + shift


def energy(x, y):
    labels = np.repeat([0, 1], [len(x), len(y)])
    return energy_distance(np.vstack([x, y]), labels, np.arange(len(labels)))


def test_energy_distance_is_the_sum_over_pairs():
    x, y = points(4, 1), points(6, 2, 1)
    both = np.vstack([x, y]) / np.vstack([x, y]).std(axis=0)
    apart = np.linalg.norm(both[:, None] - both, axis=-1)
    across = apart[:4, 4:].mean()
    within = [apart[s, s].sum() / (n * (n - 1)) for s, n in ((slice(4), 4), (slice(4, 10), 6))]
    expected = (2 * across - sum(within)) / (2 * across)
    assert energy(x, y)[0] == pytest.approx(expected)


def test_energy_distance_is_unbiased_for_few_clips_and_its_p_values_hold():
    results = np.array([energy(points(15, s), points(15, s + 1000)) for s in range(200)])
    distances, p_values = results.T
    assert abs(distances.mean()) < 3 * distances.std() / np.sqrt(200)
    assert (p_values <= 0.05).sum() < 18
    assert energy(points(15, 0), points(15, 1, 1.0))[1] <= 0.01


def test_energy_distance_of_one_clip_is_unknown_and_of_equal_ones_none():
    assert np.isnan(energy(points(1, 0), points(9, 1))).all()
    assert energy(np.zeros((5, 2)), np.zeros((5, 2))) == (0.0, 1.0)


def test_permutations_keep_groups_and_numbers():
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    groups = np.array([0, 0, 1, 2, 3, 4, 4, 4])
    drawn = permuted(labels, groups)
    assert (drawn[0] == labels).all()
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 5:].sum(axis=1) == 2).all()
    assert len(np.unique(drawn, axis=0)) > 10


# Would a detector take synthesis for a fault


def auc(x, y, groups=None):
    labels = np.repeat([0, 1], [len(x), len(y)])
    groups = np.arange(len(labels)) if groups is None else groups
    return held_out_auc(np.vstack([x, y]), labels, groups)


@pytest.mark.parametrize("count", [15, 60])
def test_auc_of_equal_sets_is_one_half_though_dimensions_outnumber_clips(count):
    rng = np.random.default_rng(0)
    results = np.array([auc(*rng.standard_normal((2, count, 128))) for _ in range(50)])
    assert results[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    assert (results[:, 1] > 0.75).sum() == 0


def test_auc_tells_far_from_more_normal_than_real():
    x, y = points(40, 1), points(40, 2)
    assert auc(x, y + 3)[1] > 0.9
    assert auc(x, 0.1 * y)[2] < 0.1


def test_copies_of_real_clips_are_as_normal_as_these():
    x = points(30, 1)
    value, low, high = auc(x, x, np.tile(np.arange(30), 2))
    assert value == pytest.approx(0.5)
    assert low < 0.5 < high


def test_one_real_clip_leaves_the_auc_unknown():
    assert np.isnan(auc(points(1, 1), points(9, 2))).all()
    assert not Gap(np.nan, np.nan, np.nan, 9, 1).exceeds(0.75)


# Of recordings


def test_bands_have_the_level_and_the_range_of_their_sound():
    edges = band_edges()
    assert edges[0] == 0
    assert edges[-1] == pytest.approx(8000)
    swing = 6 * np.sign(np.sin(np.arange(400)))
    log_mel = np.full((128, 400), -50.0)
    log_mel[64:] += swing
    levels, unsteadiness = band_statistics(log_mel)
    np.testing.assert_allclose(levels, -50, atol=0.1)
    np.testing.assert_allclose(unsteadiness, np.repeat([0, 12], 8), atol=1e-6)


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Forty recordings of a machine, each a little louder or quieter than another."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(0)
    clips = []
    for number in range(40):
        noise = rng.uniform(0.04, 0.06) * rng.standard_normal(SAMPLE_RATE)
        soundfile.write(folder / f"{number}.wav", noise, SAMPLE_RATE, subtype="FLOAT")
        clips.append(Clip(folder / f"{number}.wav", "fan", split="train", label="normal"))
    return Clips(clips, FeatureCache())


def low_passed(clip, folder):
    spectrum = np.fft.rfft(soundfile.read(clip.path)[0])
    spectrum[np.fft.rfftfreq(SAMPLE_RATE, 1 / SAMPLE_RATE) > 5000] *= 0.25
    path = folder / clip.path.name
    soundfile.write(path, np.fft.irfft(spectrum), SAMPLE_RATE, subtype="FLOAT")
    return replace(clip, path=path, split=None, synthetic=True)


def test_recordings_that_lack_high_frequencies_are_distinguished_by_these(noises, tmp_path):
    synthetic = Clips([low_passed(clip, tmp_path) for clip in noises[20:]])
    gap, table = measure_gap(noises[:20], synthetic)
    assert gap.exceeds(0.75)
    assert (gap.synthetic, gap.real) == (20, 20)
    assert gap.p_value == pytest.approx(0.002)
    assert 0.1 < gap.energy < 1
    assert re.fullmatch(r"\d+.\d dB quieter above 4.7 kHz", gap.words.split("; ")[0])
    assert "over all bands" not in gap.words
    assert str(gap).endswith(f"0.5: not distinguished; {gap.words})")
    assert len(table) == 2 * (1 + BANDS)


def test_recordings_of_the_same_machine_are_not_distinguished(noises):
    gap, _ = measure_gap(noises[:20], noises[20:])
    assert gap.low < 0.5 < gap.high
    assert gap.p_value > 0.05
    assert gap.words == ""


def test_copies_that_name_their_source_leave_no_gap(noises):
    copies = [replace(clip, source=content_hash(clip.path)) for clip in noises]
    gap, table = measure_gap(noises, Clips(copies, noises.cache))
    assert (gap.auc, gap.words) == (pytest.approx(0.5), "")
    assert not table["difference"].any()
    assert gap.p_value == 1


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_clips_leave_what_they_cannot_tell_unknown(noises, count):
    gap, table = measure_gap(noises[:count], noises[:20])
    assert np.isnan([gap.auc, gap.low, gap.high]).all()
    assert gap.real == count
    assert table.empty == (count == 0)


def test_tables_have_the_kept_normal_clips_of_each_section(noises, tmp_path):
    clips = [low_passed(clip, tmp_path) for clip in noises[20:32]]
    manifest = pd.DataFrame(
        {
            "wav": [clip.path.name for clip in clips],
            "machine": "fan", "section": "", "domain": "", "attributes": "{}", "raw_label": "",
            "strength": "", "donor": "", "pair": "", "source_sha256": "", "derived": False,
            "label": ["anomaly"] * 2 + ["normal"] * 10,
            "kept": [True] * 10 + [False] * 2,
        }
    )  # fmt: skip
    real = RealClips(noises[:20], ["a normal fan"] * 20)
    (row,) = (gap := gap_tables(manifest, tmp_path, real))[0].to_dict("records")
    assert (row["machine"], row["section"], row["synthetic"], row["real"]) == ("fan", "00", 8, 20)
    assert gap[1][["machine", "section"]].drop_duplicates().to_numpy().tolist() == [["fan", "00"]]
    nothing, without = gap_tables(manifest.assign(kept=False), tmp_path, real)
    assert nothing["synthetic"].tolist() == [0]
    assert without.empty
    assert Path(tmp_path / clips[0].path.name).is_file()
