import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.base import load
from fsasd.detectors.knn import KNN
from fsasd.detectors.one_of import OneOf
from fsasd.detectors.representations import TimeStatistics
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.metrics import harmonic_mean, section_metrics
from fsasd.selection.selector import Selector
from fsasd.selection.settings import Candidates, title
from fsasd.selection.significance import critical_value, insignificant_gain

LABELS = np.repeat([0, 1], 20)


def paper(grid, *options, **more):
    """A selector with the paper's rule: the highest objective, significant or not."""
    return Selector(grid, *options, abstain=False, **more)


def select(selector, detector, *measured, **more):
    return selector.select(selector.candidates(detector), *measured, **more)


def separated(*shifts, seed=0):
    """Scores of settings, each of which separates anomalies by another shift."""
    noise = np.random.default_rng(seed).standard_normal(len(LABELS))
    return np.stack([noise + shift * LABELS for shift in shifts])


def test_the_setting_that_separates_anomalies_best_is_chosen():
    selection = select(paper({"r": [0.0, 0.5, 1.0]}), TWFRGMM(), LABELS, separated(0, 2, 1))
    assert selection.setting == {"r": 0.5}
    assert selection.curve["chosen"].tolist() == [False, True, False]
    assert selection.curve["param.r"].tolist() == [0.0, 0.5, 1.0]


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, (5, 12), elements=st.floats(-100, 100)))
def test_nothing_beats_the_chosen_setting(scores):
    labels = np.arange(12) % 2
    selection = select(
        paper({"r": [0.0, 0.3, 0.6, 0.9, 1.0]}, resamples=5), TWFRGMM(), labels, scores
    )
    curve = selection.curve
    assert curve["chosen"].sum() == 1
    chosen = curve.loc[curve["chosen"]].iloc[0]
    assert chosen["objective"] >= curve["objective"].max() - 1e-9
    assert chosen["param.r"] == selection.setting["r"]


@pytest.mark.parametrize(
    ("default", "chosen"), [(1.0, 0.9), (0.0, 0.2), (0.6, 0.5), (0.85, 0.9), (0.2, 0.2), (5.0, 0.9)]
)
def test_of_equals_the_one_nearest_the_detectors_default_is_chosen(default, chosen):
    selector = paper({"r": [0.0, 0.2, 0.5, 0.9, 1.1]})
    # The default setting is tried beside the grid, and can be kept but not chosen.
    outside = len(selector.candidates(TWFRGMM(r=default)).settings) - 5
    scores = separated(*(0, 3, 3, 3, 0), *[4] * outside)
    assert select(selector, TWFRGMM(r=default), LABELS, scores).setting == {"r": chosen}


def test_settings_that_differ_by_rounding_are_equal():
    labels = np.repeat([0, 1], 12)
    scores = np.array(
        [
            [10, 5, 15, 23, 11, 20, 12, 17, 18, 21, 22, 14, 13, 7, 9, 6, 1, 2, 19, 8, 4, 0, 16, 3],
            [13, 21, 9, 8, 18, 19, 16, 15, 14, 23, 10, 22, 6, 3, 12, 0, 20, 1, 7, 5, 2, 11, 17, 4],
        ]
    )
    selection = select(paper({"r": [0.0, 1.0]}), TWFRGMM(r=1.0), labels, scores)
    farther, nearer = selection.curve["objective"]
    assert 0 < farther - nearer < 1e-12
    assert selection.setting == {"r": 1.0}


def test_a_better_setting_wins_over_a_nearer_one():
    selector = paper({"r": [0.0, 1.0]})
    scores = separated(1, 1)
    scores[0, LABELS == 1] += 0.5
    assert select(selector, TWFRGMM(r=1.0), LABELS, scores).setting == {"r": 0.0}


def test_of_equals_that_are_words_the_detectors_default_is_chosen():
    selector = paper({"representation__pool_by": ["mean", "max", "mean+std"], "k": [1, 2]})
    scores = np.tile(separated(1), (6, 1))
    chosen = select(selector, KNN(TimeStatistics(pool_by="max"), k=2), LABELS, scores).setting
    assert chosen == {"representation__pool_by": "max", "k": 2}


def test_every_combination_has_a_row():
    selector = paper({"r": [0.0, 1.0], "n_components": [1, 2, 4]})
    scores = separated(0, 0, 0, 0, 3, 0)
    selection = select(selector, TWFRGMM(), LABELS, scores)
    assert len(selector.settings()) == len(selection.curve) == 6
    assert selection.setting == selector.settings()[4]
    assert isinstance(selection.setting["n_components"], int)


def rank_one_low():
    """Settings of which one has the better AUC and the other the better pAUC."""
    labels = np.array([0] * 10 + [1] * 10)
    # Every anomaly above all normal clips but one.
    high_auc = np.r_[np.arange(9), 50, np.arange(20, 30)].astype(float)
    # Six anomalies above all normal clips, four below all of them.
    high_pauc = np.r_[np.arange(10), np.arange(20, 26), -np.arange(1, 5)].astype(float)
    return labels, np.stack([high_auc, high_pauc])


@pytest.mark.parametrize(("objective", "row"), [("auc", 0), ("pauc", 1)])
def test_the_objective_decides(objective, row):
    labels, scores = rank_one_low()
    selection = select(paper({"r": [0.0, 1.0]}, objective), TWFRGMM(), labels, scores)
    assert selection.setting == {"r": float(row)}
    np.testing.assert_array_equal(selection.curve["objective"], selection.curve[objective])


def test_the_mean_objective_is_the_mean_of_both():
    labels, scores = rank_one_low()
    curve = paper({"r": [0.0, 1.0]}).curve(labels, scores).table
    np.testing.assert_allclose(curve["objective"], (curve["auc"] + curve["pauc"]) / 2)
    np.testing.assert_allclose(curve["auc"], [0.9, 0.6])


def test_an_unknown_objective_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"objective 'f1': expected one of mean, auc, pauc, off"):
        paper({"r": [1.0]}, "f1")


@pytest.mark.parametrize("limit", [0.3, 0.5, 1, 75])
def test_a_limit_of_the_gap_is_an_auc_above_one_half(limit):
    """Below 0.5 every gap would be beyond it, from 1 on none."""
    Selector({"r": [1.0]}, max_gap=0.6)
    Selector({"r": [1.0]}, max_gap=None)
    with pytest.raises(ValueError, match=rf"max_gap {limit}: expected an AUC above 0\.5 and below"):
        Selector({"r": [1.0]}, max_gap=limit)


def test_a_parameter_that_the_detector_lacks_is_an_error_that_lists_those_it_has():
    with pytest.raises(
        ValueError, match=r"TWFRGMM has no parameter k, pool: it has covariance, .*\br\b"
    ):
        paper({"r": [1.0], "pool": ["max"], "k": [1]}).check(TWFRGMM())


def test_without_a_grid_there_is_nothing_to_try():
    selector = Selector()
    selector.check(TWFRGMM())
    assert selector.settings() == []


def test_a_numpy_grid_chooses_values_that_can_be_saved(factory_clips, tmp_path):
    selector = paper({"k": np.arange(1, 3)})
    chosen = select(selector, KNN(), LABELS, separated(0, 2)).setting
    train = factory_clips.where(machine="bearing", split="train")
    KNN(**chosen).fit(train).save(tmp_path)
    assert load(tmp_path).k == 2


def test_the_official_objective_is_the_harmonic_mean_over_domains():
    labels, domains = np.array([0, 0, 0, 0, 1, 1]), np.array(["source", "target"] * 3)
    scores = np.array([[1, 2, 3, 6, 5, 4], [1, 7, 3, 6, 5, 4]], float)
    table = paper({"r": [0.0, 1.0]}, "official").curve(labels, scores, domains).table
    for i in range(2):
        metrics = section_metrics(labels, domains, scores[i])
        cells = [metrics.auc_source, metrics.auc_target, metrics.pauc]
        np.testing.assert_allclose(table["objective"][i], harmonic_mean(cells))
    # Without target clips that cell is undefined, and left out.
    table = paper({"r": [0.0]}, "official").curve(labels, scores[:1]).table
    metrics = section_metrics(labels, ["source"] * 6, scores[0])
    expected = harmonic_mean([metrics.auc_source, metrics.pauc])
    np.testing.assert_allclose(table["objective"], [expected])


def test_clips_count_by_their_weights():
    scores = separated(0, 2, 1)
    # Clips that count twice are there twice; those that do not count are not there.
    weights = np.tile([2.0, 1.0, 1.0, 0.0], 10)
    rows = np.repeat(np.arange(40), weights.astype(int))
    selector = paper({"r": [0.0, 0.5, 1.0]})
    weighted = select(selector, TWFRGMM(), LABELS, scores, weights=weights)
    plain = select(selector, TWFRGMM(), LABELS[rows], scores[:, rows])
    for name in ("auc", "pauc", "objective"):
        np.testing.assert_allclose(weighted.curve[name], plain.curve[name])


def test_a_gain_of_the_critical_value_is_no_reason_to_leave_the_default_setting():
    settings = {"r": 0.5}, {"r": 1.0}
    reason = insignificant_gain(*settings, (20, 20), gain=0.05, critical=0.05, n_tried=3)
    assert reason.startswith("r=0.5 gains 5.0 points over r=1 on synthetic clips, no more than ")
    assert insignificant_gain(*settings, (20, 20), gain=0.051, critical=0.05, n_tried=3) == ""


def test_a_setting_without_a_parameter_has_its_default_value():
    candidates = Candidates([{"k": 1}, {"k": 5}, {"r": 0.5}], 3, {"k": 5, "r": 1.0})
    assert candidates.distances().tolist() == [1, 0, 1]


def test_several_grids_are_tried_one_after_the_other():
    """As ``detector=auto`` has them: settings that lack one another's parameters."""
    either = OneOf({"gmm": TWFRGMM(), "knn": KNN()}, use="gmm")
    selector = paper(
        [
            {"use": ["gmm"], "gmm__r": [0.0, 1.0]},
            {"use": ["knn"], "knn__k": [1, 2], "knn__representation__pool_by": ["max"]},
        ],
        baselines=[{"use": "knn", "knn__k": 2}],
    )
    selector.check(either)
    candidates = selector.candidates(either)
    assert candidates.settings == selector.settings()
    default = candidates.settings[candidates.default]
    assert default == {"use": "gmm", "gmm__r": 1.0}
    selection = select(selector, either, LABELS, separated(0, 1, 0, 3))
    assert selection.setting == {"use": "knn", "knn__k": 2, "knn__representation__pool_by": "max"}
    table = selection.curve
    assert table["param.knn__k"].tolist()[2:] == [1, 2]
    assert table["param.knn__k"].isna().tolist() == [True, True, False, False]
    shown = table[["param.use", "param.gmm__r", "param.knn__k"]]
    shown = shown.rename(columns=lambda name: name.removeprefix("param."))
    written = pd.read_csv(io.StringIO(shown.to_csv(index=False)))
    assert [title(row) for row in written.to_dict("records")] == [
        "use=gmm, r=0", "use=gmm, r=1", "use=knn, k=1", "use=knn, k=2",
    ]  # fmt: skip
    # Of equals, the detector's default setting.
    assert select(selector, either, LABELS, separated(1, 1, 1, 1)).setting == default
    with pytest.raises(ValueError, match="OneOf has no parameter knn__r"):
        Selector([{"gmm__r": [1.0]}, {"knn__r": [1.0]}]).check(either)


def test_the_interval_is_of_the_spread_of_fresh_clips():
    selector = Selector({"r": [0.0, 1.0]}, "auc", resamples=300)
    fresh = [selector.curve(LABELS, separated(1, 2, seed=seed)).table for seed in range(60)]
    for row in range(2):
        spread = np.std([table["auc"][row] for table in fresh])
        widths = [table["high"][row] - table["low"][row] for table in fresh]
        np.testing.assert_allclose(np.mean(widths), 2 * 1.96 * spread, rtol=0.2)
    assert all((t["low"] <= t["objective"]).all() and (t["objective"] <= t["high"]).all()
               for t in fresh)  # fmt: skip


def test_what_each_resample_would_pick_is_counted():
    curve = paper({"r": [0.0, 0.5, 1.0]}).curve(LABELS, separated(0, 3, 0))
    assert curve.table["picked"].tolist() == [0, 1, 0]
    # Equal settings share nothing: the nearest to the detector's default takes all.
    selector = paper({"r": [0.0, 0.5, 1.0]})
    candidates = selector.candidates(TWFRGMM())
    curve = selector.curve(LABELS, separated(2, 2, 2), candidates=candidates)
    assert curve.table["picked"].tolist() == [0, 0, 1]


# When the detector keeps its default setting


def noisy(*shifts, clips=40, seed=0):
    """Settings whose scores have half of their noise in common."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], clips)
    shared = rng.standard_normal(2 * clips)
    rows = [shared + rng.standard_normal(2 * clips) + shift * labels for shift in shifts]
    return labels, np.stack(rows)


GRID = {"r": [0.0, 0.5, 0.9, 1.0]}


def test_a_gain_beyond_chance_is_taken():
    selection = select(Selector(GRID), TWFRGMM(), *noisy(0, 4, 0, 1))
    assert selection.setting == selection.argmax == {"r": 0.5}
    assert selection.abstain_reason == ""
    assert selection.gain > selection.critical_value > 0
    assert (selection.curve["abstain_reason"] == "").all()


def test_a_flat_curve_keeps_the_detectors_default_setting_and_says_so():
    labels, scores = noisy(1, 1.2, 1, 1)
    selection = select(Selector(GRID), TWFRGMM(), labels, scores)
    assert selection.setting == {"r": 1.0}
    assert 0 < selection.gain < selection.critical_value
    assert selection.argmax != selection.setting
    gained = f"r={selection.argmax['r']:g} gains {100 * selection.gain:.1f} points over r=1"
    assert gained in selection.abstain_reason
    limit = f"no more than the critical value of {100 * selection.critical_value:.1f} points"
    assert limit in selection.abstain_reason
    assert (
        selection.curve.loc[selection.curve["chosen"], "abstain_reason"].item()
        == selection.abstain_reason
    )
    assert selection.curve.loc[selection.curve["argmax"], "param.r"].item() == selection.argmax["r"]
    assert select(paper(GRID), TWFRGMM(), labels, scores).setting == selection.argmax


@pytest.mark.slow
def test_of_equally_good_settings_another_than_the_default_is_rarely_chosen():
    """The interval of the one difference lets another setting win three times as often."""
    grid = {"r": np.linspace(0, 1, 21).round(2).tolist()}
    taken, naive = 0, 0
    for seed in range(120):
        labels, scores = noisy(*[1] * 21, seed=seed)
        selection = select(Selector(grid), TWFRGMM(), labels, scores)
        taken += not selection.abstain_reason
        best = int(selection.curve["argmax"].to_numpy().argmax())
        difference = selection.resampled[best] - selection.resampled[-1]
        naive += np.quantile(difference, 0.025) > 0
    assert taken <= 12
    assert naive >= 2 * taken


def test_settings_that_are_hopeless_do_not_hide_a_small_sure_gain():
    """A near setting differs little from the default, and so surely; far ones vary and are poor."""
    rng = np.random.default_rng(0)
    default = rng.standard_normal(40) + LABELS
    near = default + 0.35 * LABELS
    hopeless = rng.standard_normal((30, 40)) - LABELS
    grid = {"r": [*np.linspace(0, 0.5, 30).round(3).tolist(), 0.9, 1.0]}
    selection = select(Selector(grid), TWFRGMM(), LABELS, np.stack([*hopeless, near, default]))
    assert selection.setting == {"r": 0.9}
    wild = selection.resampled[:30] - selection.resampled[-1]
    largest = np.max(wild - wild.mean(axis=1, keepdims=True), axis=0)
    assert selection.critical_value < selection.gain < np.quantile(largest, 0.95)


def test_few_clips_are_no_evidence_however_good_they_look():
    scores = separated(0, 100, 0, 0)
    for count, expected in ((4, {"r": 1.0}), (5, {"r": 0.5})):
        few = np.r_[:count, 20 : 20 + count]
        selection = select(Selector(GRID), TWFRGMM(), LABELS[few], scores[:, few])
        assert selection.setting == expected
    few = np.r_[:20, 20:24]
    selection = select(Selector(GRID), TWFRGMM(), LABELS[few], scores[:, few])
    assert selection.abstain_reason == (
        "too few independent clips to test a gain: 20 normal and 4 anomalous, at least "
        "5 of each are needed"
    )
    assert select(paper(GRID), TWFRGMM(), LABELS[few], scores[:, few]).setting == {"r": 0.5}


def test_clips_of_few_recordings_are_few_clips():
    groups = np.tile(np.arange(4).repeat(5), 2)
    selection = select(Selector(GRID), TWFRGMM(), LABELS, separated(0, 100, 0, 0), groups=groups)
    assert "4 normal and 4 anomalous" in selection.abstain_reason


def test_clips_of_common_recordings_are_less_evidence():
    labels, scores = noisy(1, 2.6, 1, 1, clips=10)
    alone = select(Selector(GRID), TWFRGMM(), labels, scores)
    copies = select(
        Selector(GRID),
        TWFRGMM(),
        labels.repeat(4),
        scores.repeat(4, axis=1),
        groups=np.arange(20).repeat(4),
    )
    np.testing.assert_allclose(copies.gain, alone.gain)
    np.testing.assert_allclose(copies.critical_value, alone.critical_value, rtol=0.25)
    taken_for_new = select(Selector(GRID), TWFRGMM(), labels.repeat(4), scores.repeat(4, axis=1))
    assert taken_for_new.critical_value < 0.7 * copies.critical_value


def test_a_default_setting_outside_the_grid_is_kept_by_abstention_but_never_the_papers_choice():
    labels, scores = noisy(1, 1, 1, 1, 9)
    detector = TWFRGMM(r=0.97)
    selection = select(Selector(GRID), detector, labels, scores)
    assert selection.setting == {"r": 0.97}
    assert selection.argmax["r"] in GRID["r"]
    assert selection.curve["default"].tolist() == [False] * 4 + [True]
    assert selection.curve["picked"].iloc[-1] == 0
    assert select(paper(GRID), detector, labels, scores).setting["r"] in GRID["r"]


def test_without_anything_to_try_the_reason_is_all_there_is():
    selector = Selector(GRID)
    selection = selector.keep_default(selector.candidates(TWFRGMM()), "no clips")
    assert selection.setting == selection.argmax == {"r": 1.0}
    (row,) = selection.curve.to_dict("records")
    assert (row["param.r"], row["abstain_reason"]) == (1.0, "no clips")
    assert (row["default"], row["argmax"], row["chosen"]) == (True, True, True)
    assert np.isnan([row["objective"], selection.gain, selection.critical_value]).all()
    assert selection.resampled.shape == (1, 0)


def burst(rng, gain):
    """A hum that often fades, which moves its mean; an anomaly raises its loudest frames."""
    hum = 0.05 * rng.standard_normal(16_000)
    hum[rng.integers(4000, 14_000) :] *= 10 ** rng.uniform(-2, -1)
    hum[1000:2500] *= gain
    return hum


def dropout(rng, gain):
    """A hum that often swells, which moves its mean; an anomaly lowers its quietest frames."""
    hum = 0.01 * rng.standard_normal(16_000)
    hum[rng.integers(4000, 12_000) :] *= 10 ** rng.uniform(0, 1)
    hum[1000:4000] *= gain
    return hum


@pytest.mark.parametrize(("sound", "gain", "expected"), [(burst, 3.0, 0.0), (dropout, 0.1, 1.1)])
def test_the_time_weight_that_reacts_to_the_anomaly_is_chosen(make_wav, sound, gain, expected):
    """Max pooling reacts to bursts, and weights beyond one to the quiet frames."""
    rng = np.random.default_rng(0)

    def record(name, label, count, gain=1.0):
        return Clips(
            [
                Clip(make_wav(f"{name}{i}.wav", sound(rng, gain)), "fan", label=label)
                for i in range(count)
            ]
        )

    train = record("train", "normal", 24)
    synthetic = Clips([*record("n", "normal", 12), *record("a", "anomaly", 12, gain)])
    detector = TWFRGMM(n_components=1, covariance="shrunk", r=0.9)
    selector = paper({"r": [0.0, 0.9, 1.0, 1.1]})
    scores = detector.score_path(selector.settings(), train, synthetic)
    selection = select(selector, detector, synthetic.labels, scores)
    assert selection.setting == {"r": expected}


def test_which_settings_count_depends_on_the_clips_and_not_on_the_resamples():
    # Of 20 clips a setting that is 1.6 standard errors worse is out, of 2000 it is not: Hansen's
    # limit is sqrt(2 log log n) = 1.48 and 2.01.
    resampled = np.random.default_rng(0).standard_normal((3, 4000)) * [[0.0], [1.0], [1.0]]
    gains = np.array([0.0, 0.5, -1.6])
    resampled += gains[:, None]
    few, many = (critical_value(gains, resampled, 1, 0.95, n) for n in (20, 2000))
    assert few == pytest.approx(1.645, abs=0.1)
    assert many == pytest.approx(1.95, abs=0.1)
