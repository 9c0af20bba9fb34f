"""What version 1.0.0 has written is read; what a newer version writes is refused in words."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import fsasd
from fsasd.deployment.about import About
from fsasd.detectors.saved import NotAModelError
from fsasd.generation.synthetic_clips import read_manifest
from fsasd.report.results import Results
from fsasd.selection.evidence import Evidence
from fsasd.store.listing import artifacts
from fsasd.store.verifying import damage_of

FILES = Path(__file__).parent / "first_release"
SCORES = json.loads((FILES / "scores.json").read_text())["scores"]


def hum(seed, noise):
    time = np.arange(16_000) / 16_000
    random = np.random.default_rng(seed).standard_normal(16_000)
    return (0.1 * np.sin(2 * np.pi * 200 * time) + noise * random).astype(np.float32)


@pytest.mark.parametrize("name", SCORES)
def test_a_saved_detector_scores_as_it_did(name):
    model = fsasd.load(FILES / name)
    scores = model.score_waveforms([hum(100, 0.02), hum(101, 0.1)])
    np.testing.assert_allclose(scores, SCORES[name], rtol=1e-4)
    assert np.isfinite(model.calibration.threshold)


def test_the_tables_of_a_run_are_read():
    results = Results(FILES / "run")
    assert set(results.metrics["machine"]) >= {"vacuum", "compressor"}
    assert results.config["seed"] == 0
    for name in ("clips", "costs", "selection", "real_curve", "settings", "captions", "manifest",
                 "quality", "gap"):  # fmt: skip
        assert len(getattr(results, name)), name


def test_a_manifest_of_synthetic_clips_is_read():
    clips = read_manifest(FILES / "run" / "synthetic", kept=False)
    assert len(clips) == 11
    assert {clip.label for clip in clips} == {"normal", "anomaly"}


def test_an_artifact_of_the_store_is_whole():
    (artifact,) = artifacts(FILES / "store")
    assert artifact.state == "whole"
    assert damage_of(artifact.path) is None
    assert artifact.provenance.versions["fsasd"] == "1.0.0"
    # The key is computed of the description in the same way.
    assert artifact.description.key == artifact.key == artifact.path.name


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("detector.json", fsasd.load),
        ("decision.json", fsasd.load),
        ("about.json", About.read),
    ],
)
def test_a_file_of_a_newer_format_is_refused_in_words(name, read, tmp_path):
    folder = shutil.copytree(FILES / "twfr_gmm", tmp_path / "twfr_gmm")
    about = json.loads((folder / name).read_text())
    newer = about["format"] + 1
    (folder / name).write_text(json.dumps({**about, "format": newer}))
    message = f"{re.escape(name)}.*expected format {newer - 1}, found {newer}.*another version"
    with pytest.raises(NotAModelError, match=message):
        read(folder)


def test_evidence_of_a_newer_format_is_refused_in_words(tmp_path):
    (tmp_path / "evidence.json").write_text('{"format": 999}')
    with pytest.raises(ValueError, match=r"evidence.json: expected format \d+, found 999"):
        Evidence.load(tmp_path)
