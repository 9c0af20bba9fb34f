from dataclasses import replace

import numpy as np
import pytest

from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector, load
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.knn import KNN
from fsasd.detectors.outliers import Outliers
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.oddness import odd_scores
from fsasd.evaluation.thresholds import held_out_scores
from fsasd.selection.selector import Selector

MEMBERS = {"gmm": TWFRGMM(n_components=1), "knn": KNN()}


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


@pytest.fixture(scope="module")
def standardised(train, test_clips):
    """(2, n) from the definition: mean and spread of held-out scores of what is not odd."""
    rows = []
    for detector in MEMBERS.values():
        held_out = held_out_scores(detector, train, folds=3, seed=1)
        held_out = held_out[~odd_scores(held_out, train.domains.tolist(), train.states)]
        scores = detector.fit(train).score(test_clips)
        rows.append((scores - held_out.mean()) / held_out.std())
    return np.stack(rows)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, lambda rows: rows.mean(axis=0)),
        ({"combine": "max"}, lambda rows: rows.max(axis=0)),
        ({"combine": "min"}, lambda rows: rows.min(axis=0)),
        ({"weights": {"gmm": 3.0}}, lambda rows: (3 * rows[0] + rows[1]) / 4),
        ({"weights": {"gmm": 0.0}, "combine": "max"}, lambda rows: rows[1]),
    ],
)
def test_scores_are_standardised_on_held_out_clips_and_combined(
    setting, expected, standardised, train, test_clips
):
    ensemble = Ensemble(MEMBERS, folds=3, seed=1, **setting).fit(train)
    np.testing.assert_allclose(ensemble.score(test_clips), expected(standardised), rtol=1e-9)


def test_ranks_are_those_among_held_out_clips_and_go_on_beyond_them(train):
    ensemble = Ensemble({"knn": KNN()}, folds=3, seed=1, combine="rank").fit(train)
    normal = ensemble.normal_["knn"]
    assert np.all(np.diff(normal) >= 0)
    median, highest, spread = np.median(normal), normal[-1], ensemble.spread_["knn"]
    asked = np.array([normal[0] - 1, median, highest, highest + 2 * spread])
    ensemble.members_["knn"].score = lambda clips: asked
    np.testing.assert_allclose(ensemble.score(train), [0, 0.5, 1, 3], atol=1e-12)


def test_members_are_standardised_on_scores_of_other_recordings(train):
    """Of each clip there is a copy: by fits on the copies all of its scores would be 0."""
    both = Clips([*train, *train], train.cache)
    assert Ensemble({"knn": KNN()}).fit(both).mean_["knn"] > 0.1


def test_what_its_detectors_chose_is_what_held_out_clips_are_scored_with(
    train, test_clips, monkeypatch
):
    """Fits of fewer clips would come to the other covariance, and scores to another scale."""
    # Of the 16 clips one component of all is full; of the 12 or 13 without a fold it would not be.
    monkeypatch.setattr("fsasd.detectors.scoring.gaussian_mixture.CLIPS_PER_BIN", 15 / 128)
    ensemble = Ensemble(MEMBERS, folds=4).fit(train)
    assert ensemble.resolved_params() == {"gmm__covariance": "full"}
    settled = ensemble.resolved()
    assert settled.detectors["gmm"].covariance == "full"
    assert ensemble.detectors["gmm"].covariance == "auto"
    np.testing.assert_allclose(settled.fit(train).score(test_clips), ensemble.score(test_clips))


def test_a_silent_training_clip_is_no_measure_of_a_member(train, test_clips, make_wav):
    silent = make_wav("silent.wav", np.zeros(16_000))
    spoilt = Clips([replace(train[0], path=silent), *train[1:]], train.cache)
    clean, found = (Ensemble({"knn": KNN()}).fit(clips) for clips in (train, spoilt))
    assert found.spread_["knn"] < 2 * clean.spread_["knn"]


def test_weights_are_a_grid_that_costs_one_fit(train, test_clips, monkeypatch):
    fits = []
    fit = Ensemble.fit
    monkeypatch.setattr(Ensemble, "fit", lambda self, clips: fits.append(1) or fit(self, clips))
    selector = Selector({"weights__knn": [0.0, 1.0], "combine": ["mean", "max"]})
    ensemble = Ensemble(MEMBERS, weights={"gmm": 1.0, "knn": 1.0}, folds=2)
    selector.check(ensemble)
    rows = ensemble.score_path(selector.settings(), train, test_clips)
    assert len(fits) == 1
    assert selector.settings()[0] == {"combine": "mean", "weights__knn": 0.0}
    np.testing.assert_allclose(rows[0], rows[2])  # of k-NN's weight nothing is left
    assert not np.allclose(rows[1], rows[3])
    selection = selector.select(selector.candidates(ensemble), test_clips.labels, rows)
    assert set(selection.setting) == {"weights__knn", "combine"}


def test_settings_of_a_member_are_a_grid(train, test_clips):
    ensemble = Ensemble({"knn": KNN()}, folds=2)
    rows = ensemble.score_path(
        [{"knn__k": 2, "knn__representation__pool_by": "max"}, {}],
        train,
        test_clips,
    )
    assert not np.allclose(rows[0], rows[1])
    assert ensemble.detectors["knn"].k == 1


def test_the_detectors_that_were_given_stay_unfitted(train):
    members = {"knn": KNN()}
    Ensemble(members, folds=2).fit(train)
    assert not hasattr(members["knn"], "points_")


class Same(Detector):
    """Scores every normal clip alike."""

    def fit(self, clips):
        self.value_ = np.array(2.5)
        return self

    def score(self, clips):
        return np.full(len(clips), float(self.value_))


def test_scores_that_never_differ_keep_their_unit(train, test_clips):
    ensemble = Ensemble({"same": Same()}, folds=2).fit(train)
    np.testing.assert_array_equal(ensemble.score(test_clips), 0)


def test_parameters_are_those_of_the_members(train):
    ensemble = Ensemble({"knn": KNN(), "outliers": Outliers()}, folds=2).fit(train)
    expected = sum(d.fit(train).n_parameters() for d in (KNN(), Outliers()))
    assert ensemble.n_parameters() == expected


def test_what_is_loaded_weighs_the_same_detectors(train, test_clips, tmp_path):
    members = {"z": TWFRGMM(n_components=1), "a": KNN(), "m": KNN(k=3)}
    ensemble = Ensemble(members, weights={"z": 5.0, "a": 1.0, "m": 0.0}, folds=2).fit(train)
    ensemble.save(tmp_path)
    loaded = load(tmp_path)
    assert list(loaded.members_) == ["z", "a", "m"]
    np.testing.assert_array_equal(loaded.score(test_clips), ensemble.score(test_clips))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"combine": "median"}, "combine 'median': expected one of mean, max, min, rank"),
        ({"weights": {"lof": 1.0}}, "weights of lof: expected some of gmm, knn"),
        ({"weights": {"gmm": -1.0}}, "expected numbers of 0 or more, at least one above, found"),
        ({"weights": {"gmm": 0, "knn": 0}}, "at least one above, found .* for detectors gmm, knn"),
    ],
)
def test_a_setting_without_meaning_is_refused(setting, message, train):
    with pytest.raises(ValueError, match=message):
        Ensemble(MEMBERS, **setting).fit(train)


def test_no_detector_makes_no_ensemble(train):
    with pytest.raises(ValueError, match=r"for detectors \(none\)"):
        Ensemble({}).fit(train)
