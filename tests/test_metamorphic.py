"""How scores change with the clips: louder ones, each clip twice. All detectors: test_detectors."""

import numpy as np
import pytest
from sklearn.base import clone

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import read
from fsasd.detectors.knn import KNN
from fsasd.detectors.outliers import ComponentMixture, Outliers, PCAResidual
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.thresholds import gamma_threshold, held_out_scores


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def normal(factory_clips):
    return factory_clips.where(machine="bearing", split="test", label="normal")


SCORES_LEVELS = {
    "twfr_gmm": TWFRGMM(),
    "max": TWFRGMM(r=0.0),
    "knn": KNN(),
    "gmm": Outliers(ComponentMixture(1, reg_covar=1e-3)),
    "pca": Outliers(PCAResidual(0.9)),
}
"""Detectors of log-mels in dB, in which a gain is an offset of all bands."""


@pytest.mark.parametrize("sign", [1, -1], ids=["louder", "quieter"])
@pytest.mark.parametrize("name", SCORES_LEVELS)
def test_the_farther_a_level_is_from_the_usual_the_more_anomalous(
    name, sign, train, normal, make_wav
):
    def at(gain):
        waveform = read(normal[0].path) * np.float32(10 ** (sign * gain / 20))
        return Clip(make_wav(f"{gain}.wav", waveform, subtype="FLOAT"), "bearing")

    clips = Clips([at(gain) for gain in (10, 20, 30, 40)])
    scores = clone(SCORES_LEVELS[name]).fit(train).score(clips)
    assert (np.diff(scores) > 0).all(), scores


SAME_WHEN_DOUBLED = {
    "knn": (KNN(k=2), KNN(k=4), 0),
    "nearest": (KNN(domains="separate"), KNN(domains="separate"), 0),
    "gmm": (Outliers(ComponentMixture(1, reg_covar=1e-3)),) * 2 + (1e-6,),
    "pca": (Outliers(PCAResidual(3, svd_solver="full")),) * 2 + (1e-6,),
    "twfr_gmm": (TWFRGMM(n_components=1, covariance="full", reg_covar=1e-2),) * 2 + (1e-6,),
}
"""A detector; what gives the same scores where each clip is there twice; to which accuracy.

A shrunk covariance is none of them: of more clips, copies or not, it is shrunk less.
"""


@pytest.mark.parametrize("name", SAME_WHEN_DOUBLED)
def test_a_doubled_training_set_moves_no_score(name, train, normal):
    once, twice, tolerance = SAME_WHEN_DOUBLED[name]
    expected = clone(once).fit(train).score(normal)
    scores = clone(twice).fit(train + train).score(normal)
    np.testing.assert_allclose(scores, expected, rtol=tolerance)


def test_a_doubled_training_set_moves_a_threshold_no_more_than_other_folds(train):
    """Copies are in one fold: else each would be its own nearest neighbour, at a distance of 0."""
    doubled = train + train
    groups = recording_groups(doubled.recordings)
    once = [gamma_threshold(held_out_scores(KNN(), train, seed=seed)) for seed in range(5)]
    twice = gamma_threshold(held_out_scores(KNN(), doubled, groups=groups))
    assert 0.9 * min(once) < twice < 1.1 * max(once)
    apart = held_out_scores(KNN(), doubled)
    assert np.mean(apart == 0) > 0.5
