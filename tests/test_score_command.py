"""A saved detector scores recordings as it did in the run that left it."""

import contextlib
import io
import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import types
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

from fsasd import load
from fsasd.cli.score import main
from fsasd.data.check.inspection import inspect
from fsasd.data.check.likeness import save_profiles
from fsasd.data.clips import Clips
from fsasd.data.metadata import read_clips
from fsasd.data.recording import AudioError
from fsasd.deployment import files
from fsasd.deployment.files import listed
from fsasd.detection.section import calibrate
from fsasd.detectors.knn import KNN
from fsasd.detectors.scoring.scorers import MixtureScorer
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.calibration import Calibration


@pytest.fixture(scope="module")
def result(bearing_result):
    return bearing_result


@pytest.fixture(scope="module")
def models(bearing_model):
    return bearing_model.parent


def score(*arguments):
    return main([str(argument) for argument in arguments])


def table(text):
    return pd.read_csv(io.StringIO(text))


def test_scores_and_decisions_are_those_of_the_run(models, result, capsys):
    paths = [clip.path for clip in result.test]
    assert score("--model", models / "bearing", *paths) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    assert rows["file"].tolist() == [str(path) for path in paths]
    np.testing.assert_allclose(rows["score"], result.detection.scores, rtol=1e-12)
    assert rows["decision"].tolist() == result.detection.decisions.astype(int).tolist()
    assert 0 < rows["decision"].sum() < len(rows)
    assert set(rows["threshold"]) == {result.detection.threshold}
    assert err == ""


def test_p_values_are_those_of_the_run(models, result, capsys):
    assert score("--model", models / "bearing", *[clip.path for clip in result.test]) == 0
    rows = table(capsys.readouterr().out)
    run = pd.read_csv(models.parent / "clips.csv")
    np.testing.assert_allclose(rows["p_value"], run["p_value"], rtol=1e-12)
    np.testing.assert_array_equal(
        run["p_value"], result.detection.calibration.p_values(result.detection.scores)
    )


def test_json_lines_have_the_same_values(models, result, capsys):
    paths = [clip.path for clip in result.test[:3]]
    assert score("--model", models / "bearing", "--json", *paths) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert score("--model", models / "bearing", *paths) == 0
    assert lines == table(capsys.readouterr().out).to_dict("records")


@pytest.mark.parametrize("rate", [0.1, 0.02, 0.4])
def test_another_false_alarm_rate_needs_no_new_fit(models, result, capsys, rate):
    paths = [clip.path for clip in result.test]
    assert score("--model", models / "bearing", "--false-alarm-rate", rate, *paths) == 0
    rows = table(capsys.readouterr().out)
    expected = calibrate(result.detection.detector, train_of(result), rate).threshold
    assert set(rows["threshold"]) == {expected}
    np.testing.assert_array_equal(
        rows["decision"], (result.detection.scores > expected).astype(int)
    )


def train_of(result):
    folder = result.test[0].path.parents[3]
    return Clips(read_clips(folder, ["bearing"])).where(split="train")


@pytest.mark.parametrize("rate", [0, 1, 10])
def test_a_false_alarm_rate_is_a_share(models, result, capsys, rate):
    arguments = ["--false-alarm-rate", rate, result.test[0].path]
    assert score("--model", models / "bearing", *arguments) == 2
    assert "false-alarm rate: expected the share of normal clips" in capsys.readouterr().err


def test_a_recording_beyond_what_can_be_computed_is_an_error(models, result, tmp_path, capsys):
    loud = tmp_path / "loud.wav"
    soundfile.write(loud, np.full(16000, 1e30), 16000, subtype="DOUBLE")
    assert score("--model", models / "bearing", loud, result.test[0].path) == 1
    out, err = capsys.readouterr()
    assert table(out)["file"].tolist() == [str(result.test[0].path)]
    assert err.startswith(f"{loud}: expected samples in [-1, 1]")


def test_a_score_that_is_not_finite_is_an_error(models, result, monkeypatch, capsys):
    def some_nan(self, clips):
        return np.array([np.nan, *scores(self, clips)[1:]])

    scores = MixtureScorer.score
    monkeypatch.setattr(MixtureScorer, "score", some_nan)
    first, second = (clip.path for clip in result.test[:2])
    assert score("--model", models / "bearing", first, second) == 1
    out, err = capsys.readouterr()
    assert table(out)["file"].tolist() == [str(second)]
    assert err == f"{first}: expected a finite anomaly score, found nan\n"


def test_a_folder_is_all_its_recordings(models, result, tmp_path, capsys, caplog):
    for name in ("b.wav", "a.wav", "inner/c.WAV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(result.test[0].path, tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._a.wav").touch()
    (tmp_path / "d.m4a").touch()
    (tmp_path / "@eaDir").mkdir()
    shutil.copy(result.test[0].path, tmp_path / "@eaDir" / "a.wav")
    assert score("--model", models / "bearing/section_00", tmp_path) == 0
    assert "1 file that looks like audio left out (.m4a cannot be read): d.m4a" in caplog.text
    rows = table(capsys.readouterr().out)
    assert rows["file"].tolist() == [str(tmp_path / n) for n in ("a.wav", "b.wav", "inner/c.WAV")]
    assert rows["score"].tolist() == pytest.approx([result.detection.scores[0]] * 3, rel=1e-12)


def test_what_cannot_be_read_is_named_and_nothing_else_is_lost(models, result, tmp_path, capsys):
    broken, absent = tmp_path / "broken.wav", tmp_path / "absent.wav"
    broken.write_bytes(b"RIFF....")
    paths = [clip.path for clip in result.test[:3]]
    assert score("--model", models / "bearing", paths[0], broken, *paths[1:], absent) == 1
    out, err = capsys.readouterr()
    np.testing.assert_allclose(table(out)["score"], result.detection.scores[:3], rtol=1e-12)
    first, second = err.strip().splitlines()
    assert first.startswith(f"{broken}: not readable as audio")
    assert second == f"recording {absent} does not exist"


def test_one_bad_recording_never_costs_another_its_score(models, result, tmp_path, capsys):
    good = {}
    for i, name in enumerate([b"a.wav", b"inner.wav/b.wav", b"L\xfcfter.wav", b"z.wav"]):
        good[name] = path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        shutil.copy(result.test[i].path, path)
    samples, rate = soundfile.read(good[b"a.wav"])
    soundfile.write(tmp_path / "c.wav", samples, rate, subtype="GSM610")
    bad = {
        "empty.wav": b"",
        "cut.wav": good[b"a.wav"].read_bytes()[:-100],
        "text.flac": b"text" * 9,
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for name, number in (("nan.wav", np.nan), ("loud.wav", 1e30)):
        soundfile.write(tmp_path / name, np.full(16_000, number), rate, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", samples, 1)
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples] * 2, axis=1), rate)
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert score("--model", models / "bearing", tmp_path) == 1
    out, err = capsys.readouterr()
    rows = table(out).set_index("file")["score"]
    names = "a.wav", "inner.wav/b.wav", r"L\xfcfter.wav", "z.wav", "c.wav"
    paths = [f"{tmp_path}/{name}" for name in names]
    assert rows.index.tolist() == sorted(paths)
    np.testing.assert_allclose(rows[paths[:4]], result.detection.scores[:4], rtol=1e-12)
    lines = err.strip().splitlines()
    others = "nan.wav", "loud.wav", "slow.wav", "stereo.wav", "link.wav", "loop.wav", "pipe.wav"
    assert len(lines) == len(bad) + len(others)
    for name in [*bad, *others]:
        assert sum(f"{tmp_path}/{name}" in line for line in lines) == 1, name


def test_a_file_name_that_is_not_utf_8_can_be_printed(models, result, tmp_path):
    shutil.copy(result.test[0].path, tmp_path / os.fsdecode(b"L\xfcfter.wav"))
    done = subprocess.run(
        [sys.executable, "-m", "fsasd.cli.score", "--model", models / "bearing", tmp_path],
        capture_output=True, check=True, timeout=300,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert rb"L\xfcfter.wav," in done.stdout


def test_recordings_unlike_the_training_clips_give_a_warning(models, result, tmp_path, capsys):
    recordings = inspect(result.test, None)
    profiled = shutil.copytree(models, tmp_path / "models")
    save_profiles(profiled, recordings.assign(split="train", label="normal"))
    paths = [clip.path for clip in result.test[:3]]
    samples, rate = soundfile.read(paths[0])
    halved = tmp_path / "halved.wav"
    soundfile.write(halved, resample_poly(resample_poly(samples, 1, 2), 2, 1), rate)
    assert score("--model", profiled / "bearing", *paths[1:]) == 0
    assert capsys.readouterr().err == ""
    assert score("--model", profiled / "bearing", halved, *paths[1:]) == 0
    out, err = capsys.readouterr()
    assert len(table(out)) == 3
    assert re.fullmatch(
        r"WARNING 1 of 3 recordings: nothing above 4(\.5)? kHz, unlike the training clips "
        rf"\({halved}\)\n", err,
    )  # fmt: skip


def test_a_recording_on_the_scale_of_integers_is_refused(models, result, tmp_path, capsys):
    samples, rate = soundfile.read(result.test[0].path, dtype="float32")
    soundfile.write(tmp_path / "large.wav", 32768 * samples, rate, subtype="FLOAT")
    assert score("--model", models / "bearing", tmp_path / "large.wav") == 1
    assert "on the scale of 16-bit integers" in capsys.readouterr().err


def test_it_reads_the_channel_that_the_run_read(models, result, tmp_path, capsys):
    mono, rate = soundfile.read(result.test[0].path, dtype="int16")
    both = tmp_path / "both.wav"
    soundfile.write(both, np.stack([mono[::-1], mono], axis=1), rate, subtype="PCM_16")
    shutil.copytree(models / "bearing", tmp_path / "bearing")
    decision = tmp_path / "bearing/section_00/decision.json"
    assert json.loads(decision.read_text())["channel"] is None
    assert score("--model", models / "bearing", both) == 1
    assert "2 channels" in capsys.readouterr().err
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"channel": 1}))
    assert score("--model", tmp_path / "bearing", both) == 0
    rows = table(capsys.readouterr().out)
    assert rows["score"][0] == pytest.approx(result.detection.scores[0], rel=1e-12)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "section_00"), "holds no saved detector"),
        (lambda folder: (folder / "section_00/decision.json").unlink(), "decision.json is missing"),
        (
            lambda folder: shutil.copytree(folder / "section_00", folder / "section_01"),
            "several sections: name one of section_00, section_01",
        ),
    ],
)
def test_a_missing_or_ambiguous_model_is_an_error(
    models, result, tmp_path, capsys, prepare, message
):
    folder = tmp_path / "bearing"
    shutil.copytree(models / "bearing", folder)
    prepare(folder)
    assert score("--model", folder, result.test[0].path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(folder) in err
    assert message in err


def test_a_folder_without_recordings(models, tmp_path, capsys):
    assert score("--model", models / "bearing", tmp_path) == 2
    assert f"{tmp_path} holds no recordings (.wav, .flac, " in capsys.readouterr().err


@pytest.mark.parametrize("detector", [TWFRGMM(), KNN()], ids=["twfr_gmm", "knn"])
def test_scoring_imports_nothing_that_takes_longer(detector, models, result, tmp_path):
    section = tmp_path / "bearing" / "section_00"
    shutil.copytree(models / "bearing" / "section_00", section)
    detector.fit(result.test).save(section)
    # So many held-out scores that p-values are those of a distribution, and a profile.
    held_out = {f"{i}.wav": x for i, x in enumerate(np.random.default_rng(0).gamma(3, 2, 60))}
    calibration = Calibration.of(held_out, ["source"] * 60, [None] * 60)
    assert calibration.gamma is not None
    decision = json.loads((section / "decision.json").read_text()) | calibration.described()
    (section / "decision.json").write_text(json.dumps(decision))
    save_profiles(tmp_path, inspect(result.test, None).assign(split="train", label="normal"))
    assert (section / "recordings.json").is_file()
    model = section.parent
    code = "import sys; from fsasd.cli.commands import run; sys.argv[0] = 'fsasd-score'\n"
    code += "slow = {'torch', 'sklearn', 'pandas', 'scipy.stats', 'scipy.signal', 'joblib'}\n"
    code += "sys.exit(run('fsasd-score') or ' '.join(slow & set(sys.modules)) or None)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--model", model, result.test[0].path],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(table(done.stdout)) == 1


def test_the_command_prints_a_table_and_nothing_else(models, result):
    done = subprocess.run(
        [sys.executable, "-m", "fsasd.cli.score", "--model", models / "bearing",
         result.test[0].path],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert len(table(done.stdout)) == 1
    assert done.stderr == ""


def test_a_closed_pipe_ends_it_quietly(models, result, tmp_path):
    many = [str(clip.path) for clip in result.test] * 12
    code = "import sys; from fsasd.cli.commands import score; sys.exit(score())"
    command = [sys.executable, "-c", code, "--model", str(models / "bearing")]
    stderr_file = tmp_path / "stderr"
    with (
        stderr_file.open("w") as stderr,
        subprocess.Popen(
            [*command, *many], stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as done,
    ):
        assert done.stdout.readline() == "file,score,threshold,decision,p_value,time,model\n"
        done.stdout.close()
        assert done.wait(timeout=300) == 0
    assert stderr_file.read_text() == ""


def damaged(models, tmp_path, name, change):
    folder = tmp_path / "bearing"
    shutil.copytree(models / "bearing", folder)
    path = folder / "section_00" / name
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("detector.json", lambda a: a.update({"class": "mine.Detector"}), "--trust mine"),
        ("detector.json", lambda a: a.update(format=None), "expected format 2, found None"),
        (
            "detector.json",
            lambda a: a["params"].update(r="loud"),
            "r='loud': expected",
        ),
        ("decision.json", lambda a: a.update(threshold="high"), "a finite number as 'threshold'"),
        ("decision.json", lambda a: a.update(threshold=float("nan")), "'threshold', found nan"),
        ("decision.json", lambda a: a.update(channel=[1]), "as 'channel', found [1]"),
        ("decision.json", lambda a: a.update(volume=11), "see volume"),
        ("decision.json", lambda a: a.pop("held_out"), "see held_out"),
        ("decision.json", lambda a: a["held_out"].update(x=None), "a finite number as 'x'"),
        ("decision.json", lambda a: a.update(gamma=[1, 2]), "shape, location, scale or null as"),
        (
            "decision.json",
            lambda a: a.update(gamma={"shape": 2, "location": 0, "scale": 0}),
            "a shape and a scale above 0",
        ),
        ("decision.json", lambda a: a.update(format=2), "expected format 3, found 2: it was"),
        ("decision.json", lambda a: a.clear(), "expected format 3, found none: it was written by"),
    ],
)
def test_a_damaged_model_is_named(models, result, tmp_path, capsys, name, change, message):
    folder = damaged(models, tmp_path, name, change)
    assert score("--model", folder, result.test[0].path) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"not a model of fsasd: {folder}")
    assert message in line


def test_a_model_of_a_trusted_package_scores(models, result, tmp_path, monkeypatch, capsys):
    package = "from fsasd.detectors.twfr_gmm import TWFRGMM\nclass Mine(TWFRGMM): pass\n"
    (tmp_path / "trusted_package.py").write_text(package)
    monkeypatch.syspath_prepend(tmp_path)
    about = {"class": "trusted_package.Mine"}
    folder = damaged(models, tmp_path, "detector.json", lambda a: a.update(about))
    assert score("--model", folder, "--trust", "trusted_package", result.test[0].path) == 0
    assert table(capsys.readouterr().out)["score"][0] == pytest.approx(result.detection.scores[0])


def test_patterns_and_a_list_on_standard_input(models, result, tmp_path, monkeypatch, capsys):
    for name, clip in zip(["a.wav", "in/b.wav", "in/c.txt"], result.test, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(clip.path, tmp_path / name)
    listing = "\n".join([str(tmp_path / "a.wav"), "", f"{tmp_path}/in/b.wav\r", "absent.wav"])
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(listing.encode())))
    assert score("--model", models / "bearing", f"{tmp_path}/**/?.wav", "-") == 1
    out, err = capsys.readouterr()
    names = [f"{tmp_path}/a.wav", f"{tmp_path}/in/b.wav"]
    assert table(out)["file"].tolist() == names * 2
    assert err == "recording absent.wav does not exist\n"
    assert score("--model", models / "bearing", f"{tmp_path}/*.flac") == 2
    assert "*.flac: nothing matches this pattern" in capsys.readouterr().err


def test_a_listed_recording_does_not_wait_for_the_next(models, result):
    """As ``inotifywait | fsasd-score -`` lists them: one at a time, for ever."""
    going_on = threading.Event()

    def lines():
        yield f"{result.test[0].path}\n"
        assert going_on.wait(30)
        yield f"{result.test[1].path}\n"

    groups = listed(lines())
    assert next(groups) == [result.test[0].path]
    going_on.set()
    assert list(groups) == [[result.test[1].path]]


def test_several_models_score_each_recording(models, result, tmp_path, capsys):
    paths = [clip.path for clip in result.test[:2]]
    other = tmp_path / "other" / "section_01"
    shutil.copytree(models / "bearing" / "section_00", other)
    about = json.loads((other / "decision.json").read_text())
    (other / "decision.json").write_text(json.dumps(about | {"channel": 1}))
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    both = tmp_path / "both.wav"
    mono, rate = soundfile.read(paths[0], dtype="int16")
    soundfile.write(both, np.stack([mono[::-1], mono], axis=1), rate, subtype="PCM_16")
    arguments = ["--model", models / "bearing", "--model", other.parent]
    # The first takes mono only, the second the second of several channels.
    assert score(*arguments, *paths, broken, both) == 1
    out, err = capsys.readouterr()
    rows = table(out)
    assert list(zip(rows["file"], rows["model"], strict=True)) == [
        (str(path), model) for path in paths for model in ("bearing/section_00",)
    ] + [(str(both), "other/section_01")]
    assert rows["score"][2] == pytest.approx(result.detection.scores[0], rel=1e-12)
    assert [line.split(":")[0] for line in err.splitlines()] == [
        str(broken), str(both), *map(str, paths)
    ]  # fmt: skip


def test_models_of_one_name_are_named_after_their_folders(models, result, tmp_path, capsys):
    copied = shutil.copytree(models / "bearing", tmp_path / "bearing")
    arguments = ["--model", models / "bearing", "--model", copied]
    assert score(*arguments, result.test[0].path) == 0
    folders = [str(folder / "section_00") for folder in (models / "bearing", copied)]
    assert table(capsys.readouterr().out)["model"].tolist() == folders


def test_processes_score_alike_and_in_order(models, result, monkeypatch, capsys):
    monkeypatch.setattr(files, "GROUP", 2)
    paths = [clip.path for clip in result.test]
    assert score("--model", models / "bearing", "--jobs", 2, *paths) == 0
    rows = table(capsys.readouterr().out)
    assert rows["file"].tolist() == [str(path) for path in paths]
    np.testing.assert_allclose(rows["score"], result.detection.scores, rtol=1e-12)
    assert score("--model", models / "bearing", "--jobs", 0, *paths) == 2
    assert capsys.readouterr().err == "jobs: expected 1 or more, found 0\n"


def test_a_row_has_the_time_of_its_file(models, result, tmp_path, capsys):
    copied = shutil.copy(result.test[0].path, tmp_path / "a.wav")
    os.utime(copied, (86_400.5, 86_400.5))
    assert score("--model", models / "bearing", copied) == 0
    row = table(capsys.readouterr().out)
    assert row["time"][0] == "1970-01-02T00:00:00.500Z"
    assert row["model"][0] == "bearing/section_00"


def test_a_stream_is_scored_as_its_windows_are(models, result, tmp_path, monkeypatch, capsys):
    samples = np.concatenate([soundfile.read(clip.path, dtype="int16")[0] for clip in result.test])
    stream = io.BytesIO(samples.astype("<i2").tobytes())
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=stream))
    arguments = ["--model", models / "bearing", "--pcm", "--window", 1, "--hop", 1]
    assert score(*arguments, "--json", "--alarm", "1/1", "--release", 0) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = result.detection.scores
    np.testing.assert_allclose([row["score"] for row in rows], expected, rtol=1e-12)
    assert [row["alarm"] for row in rows] == [row["decision"] for row in rows]
    assert {row["file"] for row in rows} == {"-"}
    times = [datetime.fromisoformat(row["time"]).timestamp() for row in rows]
    np.testing.assert_allclose(np.diff(times), 1.0, atol=2e-3)


def test_a_stream_without_a_window_is_an_error(models, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(bytes(8000))))
    assert score("--model", models / "bearing", "--pcm") == 2
    assert "-: expected 10 s of sound or more, a window, found less" in capsys.readouterr().err


def test_a_window_that_cannot_be_scored_costs_no_other(models, result, monkeypatch, capsys):
    good = soundfile.read(result.test[0].path, dtype="float32")[0]
    bad = np.full_like(good, np.nan)
    data = np.concatenate([good, bad, good]).astype("<f4").tobytes()
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))
    arguments = ["--pcm", "--samples", "f32le", "--window", 1, "--hop", 1]
    assert score("--model", models / "bearing", *arguments) == 1
    out, err = capsys.readouterr()
    assert table(out)["score"].tolist() == pytest.approx([result.detection.scores[0]] * 2)
    assert "-: 16000 samples are NaN or infinite" in err


def test_a_watched_folder_is_scored_until_it_is_ended(models, result, tmp_path):
    watched = tmp_path / "in"
    watched.mkdir()
    hooked = tmp_path / "hooked"
    order = np.argsort(result.detection.scores)
    quiet, loud = result.test[int(order[0])], result.test[int(order[-1])]
    hook = f"{sys.executable} -c \"import sys; open('{hooked}', 'w').write(sys.argv[1])\" {{file}}"
    code = "import sys; from fsasd.cli.commands import score; sys.exit(score())"
    command = [
        sys.executable, "-c", code, "--model", str(models / "bearing"), "--watch", str(watched),
        "--json", "--alarm", "1/1", "--on-alarm", hook,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            # It watches when it has scored one of those that come again and again.
            rows = queue.Queue()
            reader = threading.Thread(
                target=lambda: [rows.put(json.loads(line)) for line in running.stdout]
            )
            reader.start()
            for number in itertools.count():
                shutil.copy(quiet.path, tmp_path / "part")
                (tmp_path / "part").rename(watched / f"{number}.wav")
                with contextlib.suppress(queue.Empty):
                    first = rows.get(timeout=1)
                    break
                assert running.poll() is None
            assert first["score"] == pytest.approx(min(result.detection.scores), rel=1e-12)
            shutil.copy(loud.path, tmp_path / "part")
            (tmp_path / "part").rename(watched / "loud.wav")
            (watched / "broken.wav").write_bytes(b"RIFF")
            while (row := rows.get(timeout=60))["file"] != str(watched / "loud.wav"):
                pass
            assert (row["decision"], row["alarm"]) == (1, 1)
        finally:
            running.terminate()
            _, err = running.communicate(timeout=60)
            reader.join()
    assert running.returncode == 143
    assert hooked.read_text() == str(watched / "loud.wav")
    assert "ALARM bearing/section_00" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected recordings, or one of --watch, --pcm and --device"),
        (["--pcm", "--watch", "."], "found --watch and --pcm"),
        (["--pcm", "a.wav"], "--pcm scores a stream: expected no recordings beside it"),
        (["--device", "0", "--samples", "f32le"], "--device records s16le, found --samples f32le"),
        (["a.wav", "--on-alarm", "x"], "--on-alarm needs --alarm K/N"),
        (["a.wav", "--cool-down", "3"], "--cool-down needs --alarm K/N"),
    ],
)
def test_arguments_that_exclude_each_other(models, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        score("--model", models / "bearing", *arguments)
    assert message in capsys.readouterr().err


def test_drift_is_said_where_normals_score_otherwise(models, result, tmp_path, capsys):
    section = shutil.copytree(models / "bearing" / "section_00", tmp_path / "bearing/section_00")
    held_out = {f"{i}.wav": x for i, x in enumerate(np.random.default_rng(0).gamma(3, 2, 60))}
    calibration = Calibration.of(held_out, ["source"] * 60, [None] * 60)
    about = json.loads((section / "decision.json").read_text()) | calibration.described()
    # All clips count as normal, and score as no training clip does.
    (section / "decision.json").write_text(json.dumps(about | {"threshold": 1e9, "gamma": None}))
    assert score("--model", section, *[clip.path for clip in result.test] * 3) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("WARNING drift: ")
    assert "called normal score" in line
    assert "than the normal training clips" in line


def test_loading_needs_neither_torch_nor_hydra(models, result):
    code = "import sys, fsasd; print(fsasd.load(sys.argv[1]).score(sys.argv[2:])[0])\n"
    code += "slow = {'torch', 'sklearn', 'lightning', 'hydra', 'pandas'} & set(sys.modules)\n"
    code += "sys.exit(' '.join(slow) or None)"
    done = subprocess.run(
        [sys.executable, "-c", code, models / "bearing", result.test[0].path],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(result.detection.scores[0], rel=1e-12)


def test_waveforms_are_scored_as_files(models, result):
    model = load(models / "bearing")
    waveforms = [soundfile.read(clip.path, dtype="float32")[0] for clip in result.test]
    scores = model.score_waveforms(waveforms, 16_000)
    np.testing.assert_allclose(scores, result.detection.scores, rtol=1e-12)
    with pytest.raises(AudioError, match="waveform 0: 3 samples are NaN or infinite"):
        model.score_waveforms([np.full(3, np.nan)])


def test_a_stream_goes_on_after_a_score_that_is_not_finite(models, result, monkeypatch, capsys):
    scores = iter([np.nan, 2.0])
    monkeypatch.setattr(MixtureScorer, "score", lambda self, clips: np.array([next(scores)]))
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(bytes(64_000))))
    arguments = ["--pcm", "--window", 1, "--hop", 1, "--alarm", "1/1"]
    assert score("--model", models / "bearing", *arguments) == 1
    out, err = capsys.readouterr()
    assert table(out)["score"].tolist() == [2.0]
    assert "-: expected a finite anomaly score, found nan" in err


def test_a_recording_may_be_deleted_as_soon_as_it_is_read(
    models, result, tmp_path, monkeypatch, capsys
):
    copied = tmp_path / "a.wav"
    shutil.copy(result.test[0].path, copied)
    original = MixtureScorer.score

    def read_then_delete(self, clips):
        scores = original(self, clips)
        copied.unlink()
        return scores

    monkeypatch.setattr(MixtureScorer, "score", read_then_delete)
    assert score("--model", models / "bearing", "--alarm", "1/1", copied) == 0
    row = table(capsys.readouterr().out).iloc[0]
    assert row["score"] == pytest.approx(result.detection.scores[0], rel=1e-12)
    assert row["alarm"] == row["decision"]
