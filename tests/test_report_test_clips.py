"""The report shows and plays the most and the least anomalous test clips, and why they are."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.detection.section import run_section
from fsasd.detection.tables import write
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.knn import KNN
from fsasd.report import figures
from fsasd.report.figures import score_histogram
from fsasd.report.page import write_report
from fsasd.report.results import Results
from fsasd.report.test_clips import test_clips as examples
from fsasd.selection.selector import Selector


@pytest.fixture(scope="module")
def data(factory):
    return FirstShotDataModule(read_clips(factory))


@pytest.fixture
def run(bearing_model, tmp_path):
    return shutil.copytree(bearing_model.parents[1], tmp_path / "run")


def test_the_extremes_are_shown_and_explained(run, data, bearing_result):
    parts = examples(Results(run), data, "bearing", 1.0, few=False)
    scores = dict(zip(bearing_result.detection.files, bearing_result.detection.scores, strict=True))
    order = sorted(scores, key=scores.get, reverse=True)
    truth = {clip.path.name: clip.label for clip in bearing_result.test}
    normal = next(file for file in order if truth[file] == "normal")
    titles = {part.title: part.file for part in parts}
    assert titles["The most anomalous test clip"] == order[0]
    assert titles["The least anomalous"] == order[-1]
    if normal not in (order[0], order[-1]):
        assert titles["The most anomalous of the normal ones"] == normal
    for part in parts:
        assert f"score {scores[part.file]:.4g}, threshold" in part.facts
        assert f"labelled {truth[part.file]}" in part.facts
        assert part.words.startswith("Largest share: ")
        assert "<svg" in part.picture
        assert part.audio.startswith("data:audio/wav;base64,")


def test_the_page_has_them(run, data, monkeypatch):
    monkeypatch.setattr(figures, "svg", lambda figure, name: f"<svg id='{name}'></svg>")
    page = write_report(run, data).read_text()
    assert page.count('<figure class="explained">') == len(
        examples(Results(run), data, "bearing", 1.0, few=False)
    )
    assert "Why a clip is anomalous" in page
    assert "Why a clip is anomalous" not in write_report(run, None).read_text()


def test_of_many_machines_each_has_one(run, data):
    (part,) = examples(Results(run), data, "bearing", 1.0, few=True)
    assert part.title == "The most anomalous test clip"


def test_an_explanation_that_takes_too_long_is_left_out(factory_clips, data, tmp_path):
    clips = factory_clips.where(machine="bearing")
    train, test = clips.where(split="train"), clips.where(split="test")
    result = run_section(Ensemble({"a": KNN()}), Selector({}), train, test)
    write(tmp_path, [result])
    result.detection.save_model(tmp_path / "models" / "bearing" / "section_00")
    costs = pd.read_csv(tmp_path / "costs.csv", dtype={"section": str})
    costs.assign(score_ms=1.0).to_csv(tmp_path / "costs.csv", index=False)
    assert examples(Results(tmp_path), data, "bearing", 1.0, few=True)[0].words
    costs.assign(score_ms=500.0).to_csv(tmp_path / "costs.csv", index=False)
    (part,) = examples(Results(tmp_path), data, "bearing", 1.0, few=True)
    assert (part.words, part.picture) == ("", None)
    assert part.audio


@pytest.mark.parametrize("what", ["model", "recording"])
def test_what_is_not_there_any_more_costs_the_page_nothing(run, data, what, tmp_path, monkeypatch):
    if what == "model":
        (run / "models/bearing/section_00/detector.json").write_text("{}")
        (part,) = examples(Results(run), data, "bearing", 1.0, few=True)
        assert part.picture is None
    else:
        clips = pd.read_csv(run / "clips.csv", dtype={"section": str})
        clips.assign(file="gone_" + clips["file"]).to_csv(run / "clips.csv", index=False)
        assert examples(Results(run), data, "bearing", 1.0, few=False) == []


@pytest.mark.parametrize(
    ("scores", "scale"),
    [
        ([1.0, 2.0, 3.0, 4.0], "linear"),
        ([1.0, 2.0, 3.0, 4e8], "log"),
        ([-650.0, -640.0, 1e3, 4e8], "asinh"),
    ],
)
def test_scores_of_any_size_can_be_read(scores, scale):
    clips = pd.DataFrame({
        "score": scores, "threshold": 2.5, "label": ["normal", "normal", "normal", "anomaly"],
        "domain": None,
    })  # fmt: skip
    axes = score_histogram(clips).axes
    assert {axis.get_xscale() for axis in axes} == {scale}
    for axis, of in zip(axes, (scores[:3], scores[3:]), strict=True):
        heights = np.array([patch.get_height() for patch in axis.patches])
        assert heights.sum() == len(of)
    # Normal clips do not share one bar with each other where they differ, nor with the anomaly.
    assert re.match("anomaly score", axes[-1].get_xlabel())
    drawn = [patch for patch in axes[0].patches if patch.get_height()]
    assert max(patch.get_x() for patch in drawn) < max(
        patch.get_x() for patch in axes[1].patches if patch.get_height()
    )
