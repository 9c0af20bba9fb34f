"""A saved detector is fitted to new normal recordings, with the setting that was chosen."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from small_systems import brief, confidence

from fsasd import load
from fsasd.cli.refit import main
from fsasd.data.clips import Clips
from fsasd.deployment.about import About, TrainingData
from fsasd.deployment.refitting import RefitError, normal_clips, refit
from fsasd.detection.section import calibrate, detect
from fsasd.detectors import base
from fsasd.detectors.knn import KNN
from fsasd.detectors.systems.mdam import MDAM
from fsasd.detectors.twfr_gmm import TWFRGMM


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def louder(bearing_result, tmp_path_factory):
    """The bearing's training clips after a repair: another spectrum."""
    folder = tmp_path_factory.mktemp("louder")
    for path in sorted(bearing_result.test[0].path.parents[1].glob("train/*.wav")):
        samples, rate = soundfile.read(path)
        changed = samples + 0.3 * np.diff(samples, prepend=0.0)
        soundfile.write(folder / path.name, changed, rate)
    return folder


def test_a_new_fit_is_that_of_a_run_with_the_same_setting(bearing_model, louder, tmp_path, capsys):
    assert run(bearing_model, "--normal", louder, "--out", tmp_path / "new") == 0
    paths = sorted(louder.glob("*.wav"))
    clips = normal_clips(paths, "bearing")
    expected = detect(TWFRGMM(), {}, clips, clips)
    model = load(tmp_path / "new")
    np.testing.assert_allclose(model.score(paths), expected.scores, rtol=1e-9)
    assert model.threshold == pytest.approx(expected.threshold)
    old = load(bearing_model)
    out = capsys.readouterr().out
    called = 100 * (old.score(paths) > old.threshold).mean()
    assert f"{len(paths)} normal recordings" in out
    assert f"{called:.1f} %" in out
    assert f"{model.threshold:.5g}" in out


def test_setting_and_false_alarm_rate_are_kept_or_given(bearing_result, louder, tmp_path):
    detection = bearing_result.detection
    train = Clips(
        normal_clips(sorted(bearing_result.test[0].path.parents[1].glob("train/*.wav")), "bearing")
    )
    fitted = TWFRGMM(r=0.7, n_components=1).fit(train)
    saved = replace(detection, detector=fitted, calibration=calibrate(fitted, train, 0.2))
    saved.save_model(tmp_path / "old")
    paths = sorted(louder.glob("*.wav"))
    for rate in (None, 0.3):
        again = refit(load(tmp_path / "old"), paths, false_alarm_rate=rate)
        assert again.detector.get_params()["r"] == 0.7
        assert again.detector.get_params()["n_components"] == 1
        assert again.calibration.false_alarm_rate == (rate or 0.2)


def test_what_is_known_of_the_model_goes_on(bearing_model, louder, tmp_path):
    about = About(
        "bearing", "00", "TWFRGMM", {"r": 1.0}, "as it was", 1, TrainingData(3),
        {"auc": 0.9}, {"key": "abc"},
    )  # fmt: skip
    old = tmp_path / "bearing/section_00"
    old.parent.mkdir()
    load(bearing_model)
    old.mkdir()
    for path in (bearing_model / "section_00").iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    about.write(old)
    assert run(old, "--normal", louder, "--out", tmp_path / "new", "--json") == 0
    new = About.read(tmp_path / "new")
    assert new.setting == {"r": 1.0}
    assert new.metrics == {}
    assert new.provenance["from"] == {"key": "abc"}
    assert new.training.clips == len(list(louder.iterdir()))
    card = (tmp_path / "new/README.md").read_text()
    assert "# Anomaly detector of bearing section 00" in card
    assert "Not known: there were no labelled test recordings" in card


def test_the_comparison_is_json(bearing_model, louder, tmp_path, capsys):
    assert run(bearing_model, "--normal", louder, "--out", tmp_path / "new", "--json") == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["new_threshold"] == load(tmp_path / "new").threshold
    assert 0 <= comparison["new_alarms"] <= comparison["old_alarms"] <= 1


def test_a_model_is_not_overwritten(bearing_model, louder, tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    assert run(bearing_model, "--normal", louder, "--out", tmp_path) == 2
    assert "expected an empty folder or none" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["section_00_source_test_anomaly_0000_x.wav"] * 2, "it is named anomaly"),
        (["a.wav"], "expected normal recordings, 2 or more, found 1"),
        (["absent.wav", "a.wav"], "does not exist"),
    ],
)
def test_recordings_that_cannot_be_normal_clips(
    bearing_model, make_wav, tmp_path, names, message, capsys
):
    paths = [tmp_path / name if name == "absent.wav" else make_wav(name) for name in names]
    assert run(bearing_model, "--normal", *paths, "--out", tmp_path / "new") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_networks_are_kept(factory_clips, louder, tmp_path):
    clips = factory_clips.where(split="train", label="normal")
    bearing = clips.where(machine="bearing")
    detector = KNN(brief(MDAM, {"epochs": 1}, channels=4, dim=8)).prepare(
        clips, tmp_path / "networks"
    )
    detection = detect(detector, {}, bearing, bearing)
    detection.save_model(tmp_path / "old", [tmp_path / "shared"])
    paths = sorted(louder.glob("*.wav"))
    again = refit(load(tmp_path / "old"), paths)
    again.save(tmp_path / "new")
    saved = base.load(tmp_path / "new")
    assert repr(saved.representation) == repr(detector.representation)
    for number, network in detection.detector.representation_.networks_.items():
        for name, array in network.items():
            np.testing.assert_array_equal(saved.representation_.networks_[number][name], array)
    expected = detect(detector, {}, normal_clips(paths, "bearing"), bearing)
    np.testing.assert_allclose(saved.score(bearing), expected.scores, rtol=1e-5)
    assert again.calibration.threshold == pytest.approx(expected.threshold, rel=1e-5)


def test_a_detector_that_cannot_be_fitted_alone_is_refused(
    bearing_model, factory_clips, louder, tmp_path, capsys
):
    clips = factory_clips.where(split="train", label="normal")
    bearing = clips.where(machine="bearing")
    detector = confidence(brief(MDAM, {"epochs": 1}, channels=4, dim=8))
    detect(detector.prepare(clips, tmp_path / "networks"), {}, bearing, bearing).save_model(
        tmp_path / "old"
    )
    with pytest.raises(RefitError, match="Pooled: its networks are trained on clips of several"):
        refit(load(tmp_path / "old"), sorted(louder.glob("*.wav")))
    assert run(tmp_path / "old", "--normal", louder, "--out", tmp_path / "new") == 2
    assert "Run fsasd with the new recordings" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
