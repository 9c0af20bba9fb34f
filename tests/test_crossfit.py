"""Every clip is scored by a fit without it, and without what belongs to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_choice import copies

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.base import Detector, TooFewClipsError
from fsasd.detectors.knn import KNN
from fsasd.selection.crossfit import calibrated, crossfit


@pytest.fixture(scope="module")
def fan(factory_clips):
    return factory_clips.where(machine="fan")


@pytest.fixture(scope="module")
def train(fan):
    return fan.where(split="train", label="normal")


def test_every_clip_is_scored_by_a_fit_without_it(train):
    held_out, generated = crossfit(KNN(), [{"k": 1}, {"k": 2}], train, copies(train, named=True))
    assert held_out.shape == (2, len(train))
    assert (held_out > 0.1).all()
    np.testing.assert_allclose(generated, held_out)
    # A nearest neighbour that knows the clip finds itself.
    np.testing.assert_allclose(KNN().fit(train).score(train), 0, atol=1e-5)


def test_a_copy_that_does_not_name_its_source_is_fitted_on_by_most_folds(train):
    _, generated = crossfit(KNN(), [{"k": 1}], train, copies(train, named=False))
    assert 0 < np.mean(generated > 0.1) < 0.5


def test_a_source_that_is_no_training_clip_is_an_error_that_names_it(train, fan):
    test_clips = fan.where(split="test")
    unknown = Clips([replace(test_clips[0], source="ab12")], train.cache)
    message = f"{test_clips[0].path}: expected its source among the 16 .* found none with .* ab12"
    with pytest.raises(ValueError, match=message):
        crossfit(KNN(), [{}], train, unknown)


def test_cross_fitting_keeps_to_few_clips(train):
    held_out, _ = crossfit(KNN(), [{}], train[:3], train[[]])
    assert held_out.shape == (1, 3)
    with pytest.raises(TooFewClipsError, match="cross-fitting needs 2 clips at least, found 1"):
        crossfit(KNN(), [{}], train[:1], train[[]])


def test_copies_of_a_clip_are_held_out_together(train):
    held_out, _ = crossfit(KNN(), [{}], Clips([*train, *train], train.cache), train[[]])
    assert (held_out > 0.1).all()


class NamesItsFit(Detector):
    """The score of every clip says which of (at most 50) numbered clips the detector knows."""

    def fit(self, clips):
        self.known_ = sum(2.0 ** int(clip.path.stem) for clip in clips)
        return self

    def score(self, clips):
        return np.full(len(clips), self.known_)


def numbered(count, **known):
    return Clips([Clip(Path(f"{i}.wav"), "fan", label="normal", **known) for i in range(count)])


def test_a_pair_of_pure_noise_is_scored_by_one_fit():
    """Normal and anomalous clips in turn, as in a manifest: what they have in common is noise."""
    clips = [replace(clip, pair=i // 2, label=("normal", "anomaly")[i % 2])
             for i, clip in enumerate(numbered(24))]  # fmt: skip
    _, scores = crossfit(NamesItsFit(), [{}], numbered(20), Clips(clips))
    normal, anomaly = scores[0, ::2], scores[0, 1::2]
    assert normal.tolist() == anomaly.tolist()
    # Pairs are dealt out to the five folds in turn.
    assert sorted(np.unique(normal, return_counts=True)[1]) == [2, 2, 2, 3, 3]


def test_single_clips_are_dealt_out_in_turn():
    _, scores = crossfit(NamesItsFit(), [{}], numbered(20), numbered(10))
    assert len(set(scores[0, :5])) == 5
    assert scores[0, :5].tolist() == scores[0, 5:].tolist()


def test_calibration_does_not_depend_on_the_scale():
    rng = np.random.default_rng(0)
    held_out, generated = rng.normal(size=(3, 10)), rng.normal(size=(3, 8)) + 5
    labels = np.repeat([0, 1], 4)
    scores, relabelled = calibrated(held_out, generated, labels)
    scaled, _ = calibrated(2 * held_out - 7, 2 * generated - 7, labels)
    np.testing.assert_allclose(scaled, 2 * scores - 7)
    assert relabelled.tolist() == [0] * 10 + [1] * 4
