"""A saved detector is scored with, to the last bit, as the detector that was saved."""

import json
from typing import get_type_hints

import numpy as np
import pytest

from fsasd.data.clips import Clips
from fsasd.detectors.base import load
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.knn import KNN
from fsasd.detectors.representations import TimeStatistics, TimeWeighted
from fsasd.detectors.saved import NotAModelError
from fsasd.detectors.scoring.scorers import KINDS, MixtureScorer, NeighbourScorer, load_scorer
from fsasd.detectors.twfr_gmm import TWFRGMM

DETECTORS = {
    "mixture": (TWFRGMM(), MixtureScorer),
    "mixture at r": (TWFRGMM(r=0.93, n_components=1, max_seconds=0.5, smote=0.5), MixtureScorer),
    "neighbour": (KNN(), NeighbourScorer),
    "neighbours": (
        KNN(TimeWeighted(r=0.9), k=2, metric="cosine", domains="separate", density=2, smote=0.5),
        NeighbourScorer,
    ),
    "no scorer": (Ensemble({"knn": KNN(), "other": KNN(TimeStatistics(pool_by="max"))}), Ensemble),
}


@pytest.fixture(scope="module")
def clips(factory_clips):
    return factory_clips.where(machine="bearing")


@pytest.mark.parametrize(("detector", "kind"), DETECTORS.values(), ids=DETECTORS)
def test_scores_are_those_of_the_detector(detector, kind, clips, tmp_path):
    detector.fit(clips.where(split="train")).save(tmp_path)
    scorer = load_scorer(tmp_path)
    assert type(scorer) is kind
    test = clips.where(split="test")
    expected = detector.score(test)
    np.testing.assert_array_equal(scorer.score(test), expected)
    np.testing.assert_array_equal(load(tmp_path).score(test), expected)
    alone = [scorer.score(Clips(test[[row]]))[0] for row in range(3)]
    np.testing.assert_array_equal(alone, [detector.score(test[[row]])[0] for row in range(3)])


@pytest.mark.parametrize("detector", [TWFRGMM, KNN])
def test_a_scorer_knows_the_parameters_of_its_detector(detector, clips, tmp_path):
    known = KINDS[f"{detector.__module__}.{detector.__qualname__}"]
    hints = get_type_hints(detector.__init__)
    del hints["return"]
    assert known.hints == {name: hints[name] for name in hints if name not in known.parts}
    fitted = detector().fit(clips.where(split="train"))
    assert known.arrays == {name for name in vars(fitted) if name.endswith("_")}


@pytest.mark.parametrize(
    ("detector", "change", "message"),
    [
        (TWFRGMM(), {"r": "loud"}, "r='loud': expected a number"),
        (TWFRGMM(), {"seed": -1}, "seed=-1: expected a whole number"),
        (TWFRGMM(), {"volume": 11}, "volume: TWFRGMM has no such argument"),
        (KNN(), {"k": 0}, "k=0: expected a whole number of 1 or more"),
        (KNN(), {"metric": "far"}, "metric='far': expected one of euclidean, cosine"),
        (
            KNN(),
            {"representation": {"class": "os.system", "params": {}}},
            "os.system is a class",
        ),
    ],
)
def test_a_damaged_file_is_refused_as_by_the_detector(detector, change, message, clips, tmp_path):
    detector.fit(clips.where(split="train")).save(tmp_path)
    path = tmp_path / "detector.json"
    about = json.loads(path.read_text())
    about["params"] |= change
    path.write_text(json.dumps(about))
    for read in (load_scorer, load):
        with pytest.raises(NotAModelError, match=message):
            read(tmp_path)


def test_more_neighbours_than_clips_are_refused(clips, tmp_path):
    KNN().fit(clips.where(split="train")).save(tmp_path)
    path = tmp_path / "detector.json"
    about = json.loads(path.read_text())
    about["params"]["k"] = 1000
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="k=1000 neighbours need as many clips, found"):
        load_scorer(tmp_path).score(clips.where(split="test"))
