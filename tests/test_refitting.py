"""A saved detector is fitted to new normal recordings, with the setting that was chosen."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from small_systems import brief, confidence

from fsasd import load
from fsasd.cli.refit import main
from fsasd.data.clips import Clips
from fsasd.deployment.about import About, TrainingData
from fsasd.deployment.refitting import normal_clips, refit
from fsasd.detection.section import calibrate, detect
from fsasd.detectors import base
from fsasd.detectors.cmae import CMAE
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.flow import Flow
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.training import NetworkTraining
from fsasd.detectors.pooled import Pooled
from fsasd.detectors.systems.fkie import FKIE
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


@pytest.fixture(scope="module")
def many_networks(factory_clips, tmp_path_factory):
    """A detector of several networks, and what a run with them makes of other clips."""
    clips = factory_clips.where(split="train", label="normal")
    small = brief(MDAM, {"epochs": 1}, channels=4, dim=8)
    pair = brief(FKIE, {"epochs": 1}, networks=2, dim=8, channels=2, clusters=2)
    detector = Ensemble(
        {"nearest": Pooled(KNN(pair)), "confidence": confidence(small), "gmm": TWFRGMM(r=0.5)},
        folds=2,
    )
    return detector.prepare(clips, tmp_path_factory.mktemp("networks"))


@pytest.mark.nightly
@pytest.mark.slow
def test_networks_of_pooled_detectors_and_ensembles_are_kept(
    many_networks, factory_clips, louder, tmp_path
):
    bearing = factory_clips.where(machine="bearing", split="train")
    detect(many_networks, {}, bearing, bearing).save_model(tmp_path / "old", [tmp_path / "shared"])
    paths = sorted(louder.glob("*.wav"))
    refit(load(tmp_path / "old"), paths).save(tmp_path / "new")
    saved = base.load(tmp_path / "new")
    assert repr(saved) == repr(base.load(tmp_path / "old"))
    # Attributes of the file names are the states that the networks know.
    named = Clips([replace(clip, section="00") for clip in normal_clips(paths, "bearing")])
    expected = clone(many_networks).fit(named)
    for name, member in expected.members_.items():
        np.testing.assert_allclose(
            saved.members_[name].score(bearing), member.score(bearing), rtol=1e-6
        )
    # Of confidences near 1, the spread is that of rounding.
    np.testing.assert_allclose(saved.score(bearing), expected.score(bearing), rtol=0.01)


@pytest.mark.slow
def test_the_network_of_a_masked_autoencoder_is_kept(factory_clips, louder, tmp_path):
    clips = factory_clips.where(split="train", label="normal")
    bearing = clips.where(machine="bearing")
    detector = CMAE(
        frames=16, dim=8, depth=1, heads=1, class_epochs=0, training=NetworkTraining(1, 16, 1e-3)
    ).prepare(clips, tmp_path / "networks")
    detect(detector, {}, bearing, bearing).save_model(tmp_path / "old", [tmp_path / "shared"])
    paths = sorted(louder.glob("*.wav"))
    again = refit(load(tmp_path / "old"), paths)
    expected = clone(detector).fit(normal_clips(paths, "bearing"))
    np.testing.assert_allclose(again.detector.score(bearing), expected.score(bearing), rtol=1e-5)


def test_a_detector_that_cannot_be_fitted_alone_is_refused(factory_clips, louder, tmp_path, capsys):
    bearing = factory_clips.where(machine="bearing", split="train")
    detector = Flow(frames=2, blocks=1, hidden=4, outliers=1.0, training=NetworkTraining(1))
    detect(detector, {}, bearing, bearing).save_model(tmp_path / "old")
    assert run(tmp_path / "old", "--normal", louder, "--out", tmp_path / "new") == 2
    assert "Flow: it is trained on clips of several machines" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def knocking(tmp_path_factory):
    """A machine that hums, more or less loudly, and knocks once where it has a fault."""
    folder, rng = tmp_path_factory.mktemp("knocking"), np.random.default_rng(0)
    for kind, count in (("normal", 30), ("fault", 6)):
        for number in range(count):
            samples = rng.uniform(0.05, 0.1) * rng.standard_normal(16_000)
            if kind == "fault":
                samples[8000:8200] *= 1.8
            (folder / kind).mkdir(exist_ok=True)
            soundfile.write(folder / kind / f"{number}.wav", samples, 16_000)
    clips = normal_clips(sorted((folder / "normal").glob("*.wav")), "hammer")
    detection = detect(TWFRGMM(n_components=1), {}, clips, clips)
    model = folder / "hammer/section_00"
    detection.save_model(model)
    candidates = {"grids": [{"r": [0.0, 0.5, 1.0]}], "objective": "mean"}
    About("hammer", "00", "TWFRGMM", {}, "", 1, TrainingData(30), candidates=candidates).write(
        model
    )
    return folder


def refitted(folder, faults, out, *more):
    faults = [folder / f"fault/{number}.wav" for number in range(faults)]
    return run(folder / "hammer", "--normal", folder / "normal", "--anomalous", *faults,
               "--out", out, *more)  # fmt: skip


def test_first_faults_choose_another_setting(knocking, tmp_path, capsys):
    assert refitted(knocking, 6, tmp_path / "new", "--json") == 0
    faults = json.loads(capsys.readouterr().out)["faults"]
    chosen = faults["new_setting"]["r"]
    assert (faults["clips"], faults["settings"], faults["old_setting"]) == (6, 3, {"r": 1.0})
    assert chosen < 1
    assert faults["low"] < faults["gain"] < faults["high"]
    assert faults["best_objective"] > faults["old_objective"]
    assert faults["new_detected"] > faults["old_detected"]
    about = About.read(tmp_path / "new")
    assert base.load(tmp_path / "new").r == about.setting["r"] == chosen
    assert f"r={chosen:g} instead of r=1, on 6 anomalous recordings" in about.choice
    # It can be chosen anew again.
    assert about.candidates["grids"] == [{"r": [0.0, 0.5, 1.0]}]


def test_the_comparison_on_faults_is_told(knocking, tmp_path, capsys):
    assert refitted(knocking, 6, tmp_path / "new") == 0
    out = capsys.readouterr().out
    assert "faults detected" in out
    assert "instead of r=1, on 6 anomalous recordings: expected to gain +" in out


def test_one_fault_is_not_overinterpreted(knocking, tmp_path, capsys):
    assert refitted(knocking, 1, tmp_path / "new") == 0
    assert base.load(tmp_path / "new").r == 1.0
    out = capsys.readouterr().out
    assert "r=1 is kept: r=" in out
    assert "too unsure" in out
    assert About.read(tmp_path / "new").choice == ""


def test_anomalous_recordings_that_cannot_be_used(
    knocking, bearing_model, make_wav, tmp_path, capsys
):
    def said(model, *anomalous):
        assert run(model, "--normal", knocking / "normal", "--anomalous", *anomalous,
                   "--out", tmp_path / "new") == 2  # fmt: skip
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    hammer = knocking / "hammer"
    normal = make_wav("section_00_source_test_normal_0000_x.wav")
    assert "expected an anomalous recording, and it is named normal" in said(hammer, normal)
    assert "it is given as both" in said(hammer, knocking / "normal/3.wav")
    assert "does not exist" in said(hammer, tmp_path / "absent.wav")
    assert "expected the settings that this detector's was chosen from" in said(
        bearing_model, knocking / "fault"
    )
