import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsasd.data.audio import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.base import load
from fsasd.detectors.knn import KNN
from fsasd.detectors.representations import TimeStatistics
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.selection import Selector

LABELS = np.repeat([0, 1], 20)


def separated(*shifts, seed=0):
    """Scores of settings, of which each tells anomalies apart by its own shift."""
    noise = np.random.default_rng(seed).standard_normal(len(LABELS))
    return np.stack([noise + shift * LABELS for shift in shifts])


def test_the_setting_that_tells_anomalies_best_is_chosen():
    selection = Selector({"r": [0.0, 0.5, 1.0]}).select(TWFRGMM(), LABELS, separated(0, 2, 1))
    assert selection.params == {"r": 0.5}
    assert selection.curve["chosen"].tolist() == [False, True, False]
    assert selection.curve["r"].tolist() == [0.0, 0.5, 1.0]


@given(arrays(np.float64, (5, 12), elements=st.floats(-100, 100)))
def test_nothing_beats_the_chosen_setting(scores):
    labels = np.arange(12) % 2
    selection = Selector({"r": [0.0, 0.3, 0.6, 0.9, 1.1]}).select(TWFRGMM(), labels, scores)
    curve = selection.curve
    assert curve["chosen"].sum() == 1
    chosen = curve.loc[curve["chosen"]].iloc[0]
    assert chosen["objective"] >= curve["objective"].max() - 1e-9
    assert chosen["r"] == selection.params["r"]


@pytest.mark.parametrize(
    ("own", "chosen"), [(1.0, 0.9), (0.0, 0.2), (0.6, 0.5), (0.85, 0.9), (0.2, 0.2), (5.0, 0.9)]
)
def test_of_equals_the_one_nearest_the_detectors_own_is_chosen(own, chosen):
    scores = separated(0, 3, 3, 3, 0)
    selector = Selector({"r": [0.0, 0.2, 0.5, 0.9, 1.1]})
    assert selector.select(TWFRGMM(r=own), LABELS, scores).params == {"r": chosen}


def test_settings_that_differ_by_rounding_are_equal():
    labels = np.repeat([0, 1], 12)
    scores = np.array(
        [
            [11, 23, 17, 15, 1, 12, 7, 16, 4, 19, 2, 5, 18, 21, 20, 8, 22, 0, 6, 13, 9, 14, 3, 10],
            [2, 1, 8, 16, 19, 17, 23, 18, 4, 14, 3, 7, 22, 15, 5, 21, 9, 12, 6, 13, 0, 11, 20, 10],
        ]
    )
    selection = Selector({"r": [0.0, 1.0]}).select(TWFRGMM(r=1.0), labels, scores)
    farther, nearer = selection.curve["objective"]
    assert 0 < farther - nearer < 1e-12
    assert selection.params == {"r": 1.0}


def test_a_better_setting_wins_over_a_nearer_one():
    selector = Selector({"r": [0.0, 1.0]})
    scores = separated(1, 1)
    scores[0, LABELS == 1] += 0.5
    assert selector.select(TWFRGMM(r=1.0), LABELS, scores).params == {"r": 0.0}


def test_of_equals_that_are_words_the_detectors_own_is_chosen():
    selector = Selector({"representation__pool_by": ["mean", "max", "mean+std"], "k": [1, 2]})
    scores = np.tile(separated(1), (6, 1))
    chosen = selector.select(KNN(TimeStatistics(pool_by="max"), k=2), LABELS, scores).params
    assert chosen == {"representation__pool_by": "max", "k": 2}


def test_every_combination_has_a_row():
    selector = Selector({"r": [0.0, 1.0], "n_components": [1, 2, 4]})
    scores = separated(0, 0, 0, 0, 3, 0)
    selection = selector.select(TWFRGMM(), LABELS, scores)
    assert len(selector.settings()) == len(selection.curve) == 6
    assert selection.params == selector.settings()[4]
    assert isinstance(selection.params["n_components"], int)


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
    selection = Selector({"r": [0.0, 1.0]}, objective).select(TWFRGMM(), labels, scores)
    assert selection.params == {"r": float(row)}
    np.testing.assert_array_equal(selection.curve["objective"], selection.curve[objective])


def test_the_mean_objective_is_the_mean_of_both():
    labels, scores = rank_one_low()
    curve = Selector({"r": [0.0, 1.0]}).curve(labels, scores)
    np.testing.assert_allclose(curve["objective"], (curve["auc"] + curve["pauc"]) / 2)
    np.testing.assert_allclose(curve["auc"], [0.9, 0.6])


def test_an_unknown_objective_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"objective 'f1': expected one of mean, auc, pauc"):
        Selector({"r": [1.0]}, "f1")


def test_a_parameter_that_the_detector_lacks_is_told_those_it_has():
    with pytest.raises(
        ValueError, match=r"TWFRGMM has no parameter k, pool: it has covariance, .*\br\b"
    ):
        Selector({"r": [1.0], "pool": ["max"], "k": [1]}).check(TWFRGMM())


def test_without_a_grid_there_is_nothing_to_try():
    selector = Selector()
    selector.check(TWFRGMM())
    assert selector.settings() == []


def test_a_numpy_grid_chooses_values_that_can_be_saved(factory_clips, tmp_path):
    selector = Selector({"k": np.arange(1, 3)})
    chosen = selector.select(KNN(), LABELS, separated(0, 2)).params
    train = factory_clips.where(machine="bearing", split="train")
    KNN(**chosen).fit(train).save(tmp_path)
    assert load(tmp_path).k == 2


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
def test_the_time_weight_that_hears_the_anomaly_is_chosen(make_wav, sound, gain, expected):
    """Max pooling hears bursts, and weights beyond one the quiet frames."""
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
    selector = Selector({"r": [0.0, 0.9, 1.0, 1.1]})
    scores = detector.score_path(selector.settings(), train, synthetic)
    selection = selector.select(detector, synthetic.labels, scores)
    assert selection.params == {"r": expected}
