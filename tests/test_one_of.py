"""Several detectors as one: its parameters are theirs, and what is saved scores the same."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fsasd.data.metadata import MetadataError
from fsasd.detectors.base import Detector, load
from fsasd.detectors.knn import KNN
from fsasd.detectors.one_of import OneOf
from fsasd.detectors.representations import TimeStatistics
from fsasd.detectors.twfr_gmm import TWFRGMM


@pytest.fixture
def either():
    return OneOf({"gmm": TWFRGMM(), "knn": KNN()}, use="gmm")


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


def test_each_detector_has_its_parameters(either):
    params = either.get_params()
    assert params["gmm__r"] == 1.0
    assert params["knn__k"] == 1
    assert set(either.get_params(deep=False)) == {"detectors", "use"}


def test_what_the_used_one_chose_goes_by_its_name(either, train):
    assert either.fit(train).resolved_params() == {"gmm__covariance": "shrunk"}
    assert either.resolved().detectors["gmm"].covariance == "shrunk"
    assert clone(either).set_params(use="knn").fit(train).resolved_params() == {}


def test_a_copy_is_set_and_the_original_is_not(either):
    copy = clone(either).set_params(use="knn", knn__k=3, gmm__r=0.5)
    assert (copy.use, copy.detectors["knn"].k, copy.detectors["gmm"].r) == ("knn", 3, 0.5)
    assert (either.use, either.detectors["knn"].k, either.detectors["gmm"].r) == ("gmm", 1, 1.0)


def test_the_one_that_is_used_scores(either, train, test_clips):
    either.set_params(use="knn", knn__k=2).fit(train)
    expected = KNN(k=2).fit(train)
    np.testing.assert_array_equal(either.score(test_clips), expected.score(test_clips))
    assert either.n_parameters() == expected.n_parameters()


def test_a_path_over_several_detectors_is_that_of_each(either, train, test_clips):
    grid = [
        {"use": "knn", "knn__k": 2},
        {"use": "gmm", "gmm__r": 0.5},
        {"gmm__r": 1.1},
        {"use": "knn", "knn__representation__pool_by": "max"},
    ]
    rows = either.score_path(grid, train, test_clips)
    alone = [KNN(k=2), TWFRGMM(r=0.5), TWFRGMM(r=1.1), KNN(TimeStatistics(pool_by="max"))]
    for row, params, one in zip(rows, grid, alone, strict=True):
        np.testing.assert_allclose(row, one.fit(train).score(test_clips), rtol=1e-7)
        nested = clone(either).set_params(**params).fit(train)
        np.testing.assert_allclose(row, nested.score(test_clips), rtol=1e-7)


def test_each_detector_scores_its_part_of_the_grid_at_once(train, test_clips, monkeypatch):
    calls = []
    path = TWFRGMM.score_path
    monkeypatch.setattr(
        TWFRGMM,
        "score_path",
        lambda self, grid, *clips: calls.append(grid) or path(self, grid, *clips),
    )
    OneOf({"gmm": TWFRGMM()}, "gmm").score_path(
        [{"gmm__r": 0.0}, {"gmm__r": 1.0}], train, test_clips
    )
    assert calls == [[{"r": 0.0}, {"r": 1.0}]]


def test_what_is_saved_scores_the_same(either, train, test_clips, tmp_path):
    either.set_params(use="knn", knn__representation__pool_by="max", gmm__r=0.25).fit(train).save(
        tmp_path
    )
    loaded = load(tmp_path)
    np.testing.assert_allclose(loaded.score(test_clips), either.score(test_clips), rtol=1e-6)
    assert loaded.detectors["gmm"].r == 0.25
    assert (loaded.use, loaded.detector_.representation.pool_by) == ("knn", "max")


class Pair(Detector):
    """Several fitted detectors within one, as an ensemble has them."""

    def __init__(self, members, weight=0.5):
        self.members = members
        self.weight = weight

    def fit(self, clips):
        self.fitted_ = {name: clone(member).fit(clips) for name, member in self.members.items()}
        self.scale_ = np.array([1.0, 2.0])
        return self

    def score(self, clips):
        scores = [member.score(clips) for member in self.fitted_.values()]
        return self.weight * (self.scale_ @ np.stack(scores))


def test_a_mapping_of_fitted_detectors_is_saved_under_their_names(train, test_clips, tmp_path):
    pair = Pair({"near": KNN(), "far": KNN(k=3)}).fit(train)
    pair.save(tmp_path)
    loaded = load(tmp_path, trust=[__name__])
    np.testing.assert_allclose(loaded.score(test_clips), pair.score(test_clips), rtol=1e-6)
    assert loaded.fitted_["far"].k == 3
    np.testing.assert_array_equal(loaded.fitted_["near"].points_, pair.fitted_["near"].points_)
    assert loaded.n_parameters() == pair.n_parameters() >= 2 * len(train) * 256 + 2


def test_detectors_within_detectors_within_detectors(train, test_clips, tmp_path):
    outer = OneOf({"pair": Pair({"near": KNN()}), "knn": KNN()}, use="pair")
    outer.set_params(pair__near__k=2)
    outer.detectors["pair"].members["far"] = KNN(k=3)
    outer.fit(train).save(tmp_path)
    loaded = load(tmp_path, trust=[__name__])
    np.testing.assert_allclose(loaded.score(test_clips), outer.score(test_clips), rtol=1e-6)
    assert loaded.detectors["pair"].members["near"].k == 2


def test_an_unknown_name_is_refused_with_the_known_ones(either, train):
    with pytest.raises(MetadataError, match=r"'knm' is not among the detectors to use: gmm, knn"):
        either.set_params(use="knm").fit(train)
    with pytest.raises(MetadataError, match="Did you mean 'knn'"):
        either.score_path([{"use": "knm"}], train, train)


def test_scoring_before_fitting_is_an_error(either, test_clips):
    with pytest.raises(NotFittedError, match="OneOf"):
        either.score(test_clips)
