"""An explanation names the band of an injected tone and the moment of an injected impact."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from fsasd import load
from fsasd.cli.score import main
from fsasd.data.check.inspection import inspect
from fsasd.data.check.likeness import Profile
from fsasd.data.log_mel import LogMel
from fsasd.deployment.explanation import folder
from fsasd.deployment.explanation.explain import explain
from fsasd.deployment.explanation.figure import draw
from fsasd.detection.section import detect
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.knn import KNN
from fsasd.detectors.representations import Patches, TimeStatistics, TimeWeighted
from fsasd.detectors.scoring.scorers import NeighbourScorer
from fsasd.detectors.twfr_gmm import TWFRGMM

TONE, IMPACT = 3150.0, 0.62
"""Hz of the tone; seconds at which the impact begins."""

DETECTORS = {
    "twfr_gmm": (TWFRGMM(r=0.95), "exact"),
    "shrunk": (TWFRGMM(r=0.95, covariance="shrunk"), "exact"),
    "knn of time weights": (KNN(TimeWeighted(r=0.95)), "exact"),
    "second neighbour of domains": (KNN(TimeWeighted(r=0.9), k=2, domains="separate"), "exact"),
    "knn of bands": (KNN(TimeWeighted(r=0.9), bands=4), "exact"),
    "knn with density": (KNN(TimeWeighted(r=0.9), density=2), "exact"),
    "knn of statistics": (KNN(TimeStatistics()), "perturbation"),
    "knn of patches": (KNN(Patches(bands=16, segments=4)), "perturbation"),
    "cosine": (KNN(TimeStatistics(pool_by="mean"), metric="cosine"), "perturbation"),
    "ensemble": (Ensemble({"a": KNN(), "b": TWFRGMM()}), "perturbation"),
}


@pytest.fixture(scope="module")
def bearing(factory_clips):
    return factory_clips.where(machine="bearing")


@pytest.fixture(scope="module")
def recordings(bearing, tmp_path_factory):
    """A normal recording, the same with a tone, and with an impact."""
    folder = tmp_path_factory.mktemp("explained")
    samples, rate = soundfile.read(bearing.where(split="train")[0].path)
    time = np.arange(len(samples)) / rate
    rms = np.sqrt(np.mean(samples**2))
    since = time - IMPACT
    noise = np.random.default_rng(0).standard_normal(len(samples))
    impact = np.where(since >= 0, np.exp(-np.clip(since, 0, None) / 0.01), 0.0) * noise
    sounds = {
        "normal": samples,
        "tone": samples + 0.5 * rms * np.sin(2 * np.pi * TONE * time),
        "impact": samples + 6 * rms * impact,
    }
    for name, sound in sounds.items():
        soundfile.write(folder / f"{name}.wav", sound, rate, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module", params=DETECTORS)
def model(request, bearing, tmp_path_factory):
    detector, method = DETECTORS[request.param]
    folder = tmp_path_factory.mktemp("model")
    train = bearing.where(split="train")
    detect(detector, {}, train, bearing.where(split="test")).save_model(folder)
    Profile.of(inspect(train)).save(folder)
    return load(folder), method


def test_the_band_of_a_tone_comes_first(model, recordings):
    model, method = model
    explanation = explain(model, recordings / "tone.wav")
    assert explanation.method == method
    low, high = explanation.strongest_band()
    # A mel band beside the tone's may share it.
    assert low - 70 <= TONE <= high + 70


def test_the_moment_of_an_impact_comes_first(model, recordings):
    model, _ = model
    start, end = explain(model, recordings / "impact.wav").strongest_moment()
    # A frame of 64 ms begins before it.
    assert start - 0.032 <= IMPACT <= end + 0.032


def test_exact_contributions_sum_to_the_score(model, recordings):
    model, method = model
    if method != "exact":
        pytest.skip("a perturbation's contributions have no sum")
    paths = [recordings / f"{name}.wav" for name in ("normal", "tone", "impact")]
    scores = model.score(paths)
    explanations = [explain(model, path) for path in paths]
    sums = np.array([one.bands.sum() for one in explanations])
    # Of a Gaussian, the normalising constant is in no band.
    constant = scores - sums
    np.testing.assert_allclose(constant, constant[0], rtol=1e-6, atol=1e-6 * scores.max())
    if isinstance(model.detector, NeighbourScorer):
        np.testing.assert_allclose(constant, 0, atol=1e-6 * scores.max())
    for one, total in zip(explanations, sums, strict=True):
        assert one.moments.sum() == pytest.approx(total, abs=1e-6 * abs(total) + 1e-9)


def test_the_nearest_training_clip_is_named(bearing, tmp_path):
    train = bearing.where(split="train")
    for number, detector in enumerate([KNN(), KNN(domains="separate"), KNN(metric="cosine")]):
        folder = tmp_path / str(number)
        detect(detector, {}, train, bearing.where(split="test")).save_model(folder)
        for clip in train[[0, 5, len(train) - 1]]:
            explanation = explain(load(folder), clip.path)
            assert explanation.nearest.file == clip.path.name
            assert explanation.nearest.distance == pytest.approx(0.0, abs=1e-6)


def test_it_is_written_as_json(bearing_model, recordings, tmp_path):
    model = load(bearing_model)
    explanation = explain(model, recordings / "tone.wav")
    explanation.write(tmp_path / "tone.json", {"file": "tone.wav", "score": 3.0})
    about = json.loads((tmp_path / "tone.json").read_text())
    assert (about["file"], about["score"], about["method"]) == ("tone.wav", 3.0, "exact")
    first, second = about["bands"][:2]
    assert first["contribution"] >= second["contribution"]
    assert first["from_hz"] < TONE + 70
    assert len(about["bands"]) == LogMel.twfr().n_mels
    assert sum(one["contribution"] for one in about["moments"]) == pytest.approx(
        sum(one["contribution"] for one in about["bands"])
    )


def test_without_a_profile_a_recording_stands_in_for_itself(bearing, recordings, tmp_path):
    train = bearing.where(split="train")
    detect(KNN(Patches(bands=16, segments=4)), {}, train, train).save_model(tmp_path)
    start, end = explain(load(tmp_path), recordings / "impact.wav").strongest_moment()
    assert start - 0.032 <= IMPACT <= end + 0.032


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_the_command_draws_each_recording(bearing, bearing_model, recordings, tmp_path, capsys):
    paths = [recordings / "tone.wav", recordings / "impact.wav"]
    out = tmp_path / "out"
    assert run("--model", bearing_model, "--explain", out, *paths) == 0
    (pictures, texts) = (sorted(out.glob(f"*.{kind}")) for kind in ("png", "json"))
    assert [p.stem for p in pictures] == [p.stem for p in texts]
    assert [p.stem.partition("_")[0] for p in pictures] == ["impact", "tone"]
    for picture in pictures:
        pixels = imread(picture)
        assert pixels.shape[:2] == (702, 1235)
        # The spectrogram has many colours, a blank page few.
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 300
    rows = capsys.readouterr().out.splitlines()[1:]
    files = {json.loads(text.read_text())["file"] for text in texts}
    assert files == {row.split(",")[0] for row in rows}


def test_recordings_of_one_name_have_pictures_of_their_own(bearing_model, recordings, tmp_path):
    (tmp_path / "other").mkdir()
    other = shutil.copy(recordings / "tone.wav", tmp_path / "other/tone.wav")
    out = tmp_path / "out"
    assert run("--model", bearing_model, "--explain", out, recordings / "tone.wav", other) == 0
    assert len(list(out.glob("tone_*.png"))) == 2


def test_the_nearest_training_clip_is_drawn(bearing, recordings, tmp_path, monkeypatch):
    train = bearing.where(split="train")
    model = tmp_path / "bearing"
    detect(KNN(), {}, train, bearing.where(split="test")).save_model(model)
    drawn = []
    monkeypatch.setattr(
        folder, "draw", lambda *arguments: drawn.append(arguments) or draw(*arguments)
    )
    normal = train[0].path.parent
    arguments = ["--model", model, "--explain", tmp_path / "out", "--normal", normal]
    assert run(*arguments, recordings / "tone.wav") == 0
    ((explanation, *_, nearest),) = drawn
    assert nearest == normal / explanation.nearest.file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pcm", "--explain", "out"], "--explain needs recordings in files, found --pcm"),
        (["a.wav", "--normal", "in"], "--normal needs --explain DIR"),
    ],
)
def test_explanations_of_what_cannot_be_explained(bearing_model, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("--model", bearing_model, *arguments)
    assert message in capsys.readouterr().err


def test_a_folder_that_is_a_file(bearing_model, recordings, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert run("--model", bearing_model, "--explain", tmp_path / "out", recordings) == 2
    assert str(tmp_path / "out") in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"
