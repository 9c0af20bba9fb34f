"""One bad recording never costs another its result: in a check, in a run and in fsasd-score."""

import gzip
import io
import logging
import os
import shutil
import sys

import commands
import numpy as np
import pandas as pd
import pytest
import soundfile
from hydra import compose, initialize_config_module
from runs import Run

from fsasd.cli.score import main as score
from fsasd.data.check.report import check
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.pipeline import recordings

pytestmark = pytest.mark.slow

RATE = 16_000


def wav(samples, rate=RATE, subtype="FLOAT", form="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format=form)
    return file.getvalue()


def with_sample(value):
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    noise[7] = value
    return noise


GOOD = wav(with_sample(0.1), subtype="PCM_16")
INTEGERS = np.random.default_rng(0).integers(-9000, 9000, RATE)

BAD = {
    "empty": b"",
    "text": b"This is no recording.\n" * 100,
    "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nowhere.wav"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "claims 2^36 samples": wav(INTEGERS.astype(np.int16), subtype="PCM_16", form="FLAC")[:21]
    + b"\x0a\xc4\x40\xff\xff\xff\xff\xff"
    + bytes(200),
    "W64, cut": wav(with_sample(0.1), subtype="PCM_16", form="W64")[:20_000],
    "1 Hz": wav(with_sample(0.1), rate=1),
    "bytes": np.random.default_rng(0).bytes(5000),
    "compressed": gzip.compress(GOOD),
    "half a header": GOOD[:30],
    "no samples": wav(np.empty((0, 1)), subtype="PCM_16"),
    "cut in half": GOOD[: len(GOOD) // 2],
    "cut at its end": GOOD[:-100],
    "NaN": wav(with_sample(np.nan)),
    "huge": wav(with_sample(1e30)),
    "16-bit floats": wav(INTEGERS.astype(np.float32)),
    "stereo": wav(np.stack([with_sample(0), with_sample(0.1)], axis=1)),
    "FLAC, cut": wav(with_sample(0.1), subtype="PCM_16", form="FLAC")[:9000],
}


@pytest.fixture(scope="module")
def mixed(factory, tmp_path_factory):
    """The factory with 20 bad recordings, the same without them, and which they are."""
    root = shutil.copytree(factory, tmp_path_factory.mktemp("mixed") / "data")
    clean = shutil.copytree(factory, root.parent / "clean")
    target = root / "eval_data/bearing"
    places = [
        *sorted((target / "train").glob("*"))[::4],
        *sorted((target / "test").glob("*"))[1::3],
        *sorted((root / "dev_data").rglob("*.wav"))[::5],
    ][: len(BAD)]
    assert len(places) == len(BAD) == 20
    # Each kind where a detector is fitted, where it scores, and where it is neither.
    order = [0, 4, 8, 12, 16, 1, 5, 9, 13, 17, 2, 6, 10, 14, 18, 3, 7, 11, 15, 19]
    for place, kind in zip(places, np.array(list(BAD))[order], strict=True):
        make = BAD[str(kind)]
        if isinstance(make, bytes):
            place.write_bytes(make)
        else:
            place.unlink()
            make(place)
        (clean / place.relative_to(root)).unlink()
    return root, clean, places


def configured(root, store, *overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose(
            "config",
            ["data=dcase", f"data.root={root}", f"store={store}", "generator=none", *overrides],
        )


def in_target(places, part):
    return sorted(place.name for place in places if place.match(f"bearing/{part}/*"))


@pytest.fixture(scope="module")
def runs(mixed, tmp_path_factory):
    """A run on the mixed recordings and one on the good ones."""
    root, clean, _ = mixed
    out = tmp_path_factory.mktemp("runs")
    found = {}
    for name, data in (("mixed", root), ("clean", clean)):
        run = Run(configured(data, out / "store"), out / name)
        found[name] = run()
    assert found["mixed"] == found["clean"]
    return out


def test_check_names_all_of_them(mixed):
    root, _, places = mixed
    report = check(FirstShotDataModule.from_dcase(root))
    bad = report.recordings.dropna(subset="problem")
    assert set(bad["path"]) == set(map(str, places))
    named = {p for f in report.errors if f.kind == "unreadable" for p in f.paths}
    assert named == set(map(str, places))
    # Many have the same problem, said once.
    assert len(report.errors) < len(BAD)


def test_a_run_gives_the_others_what_it_would_without_them(mixed, runs):
    _, _, places = mixed
    mixed_clips, clean = (pd.read_csv(runs / name / "clips.csv") for name in ("mixed", "clean"))
    scored = mixed_clips[mixed_clips["score"].notna()]
    pd.testing.assert_frame_equal(
        scored.reset_index(drop=True), clean, check_dtype=False, check_exact=True
    )
    unscored = mixed_clips[mixed_clips["score"].isna()]
    assert sorted(unscored["file"]) == in_target(places, "test")
    assert unscored["decision"].isna().all()
    assert unscored["label"].notna().all()
    assert (runs / "mixed/metrics.csv").read_text() == (runs / "clean/metrics.csv").read_text()
    assert (runs / "mixed/report.html").is_file()


def test_a_run_lists_what_it_went_on_without(mixed, runs):
    root, _, places = mixed
    listed = pd.read_csv(runs / "mixed/unreadable.csv", dtype=str)
    assert list(listed) == ["path", "machine", "section", "split", "reason"]
    used = [place for place in places if place.is_relative_to(root / "eval_data")]
    assert sorted(listed["path"]) == sorted(map(str, used))
    assert listed["reason"].notna().all()
    assert set(listed["section"]) == {"00"}
    assert not (runs / "clean/unreadable.csv").exists()


def test_score_files_lack_what_has_no_score(mixed, runs):
    (file,) = (runs / "mixed/scores").glob("anomaly_score_bearing_*")
    names = pd.read_csv(file, header=None)[0]
    assert not set(names) & set(in_target(mixed[2], "test"))
    assert len(names) == 16 - len(in_target(mixed[2], "test"))


def test_only_their_absence_is_in_the_keys(mixed, runs):
    root, _, places = mixed
    keys = []
    (runs / "again").mkdir()
    for _ in range(2):
        run = Run(configured(root, runs / "store"), runs / "again")
        recordings.inspect(run.experiment, ["detect"], run.folder)
        keys.append(run.keys("detect"))
        for place in places:
            os.utime(place, follow_symlinks=False)
    assert keys[0] == keys[1]


def test_a_run_says_so_at_its_start_and_at_its_end(mixed, runs, caplog):
    caplog.set_level(logging.WARNING)
    Run(configured(mixed[0], runs / "store"), runs / "told")()
    lines = [record.message for record in caplog.records]
    assert any("bearing: 1 clip: holds no samples (" in line for line in lines)
    unscored = len(in_target(mixed[2], "test"))
    assert any(
        line.startswith(f"bearing section 00: {unscored} of its test clips could not be read")
        for line in lines
    )


@pytest.mark.nightly
def test_all_machines_are_inspected_where_all_are_heard(mixed, tmp_path):
    root, _, places = mixed

    def unreadable(*settings, stages=("detect",)):
        experiment = Run(configured(root, tmp_path, *settings), tmp_path).experiment
        table = recordings.inspect(experiment, stages, tmp_path)
        return set(table["path"]) if len(table) else set()

    assert unreadable("synthesis.references=true") == set(map(str, places))
    trained = {str(place) for place in places if "_train_" in place.name}
    assert trained < unreadable("detector=stgram_mfn") < set(map(str, places))
    assert unreadable("generator=transforms") == set(map(str, places))
    assert unreadable(stages=["report"]) == set()


def test_a_machine_without_any_readable_recording_is_named(factory, tmp_path):
    root = shutil.copytree(factory, tmp_path / "data")
    for path in root.rglob("bearing/train/*.wav"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="bearing section 00: expected normal training clips and"):
        Run(configured(root, tmp_path / "store"), tmp_path / "run")()
    for path in root.rglob("bearing/test/*.wav"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="bearing: none of its recordings can be read"):
        Run(configured(root, tmp_path / "store"), tmp_path / "run")()


def test_score_gives_the_others_what_it_would_without_them(mixed, runs, capsys):
    root, clean, places = mixed
    model = str(runs / "mixed/models/bearing")
    rows = []
    for folder, status in ((root, 1), (clean, 0)):
        assert score(["--model", model, str(folder / "eval_data/bearing")]) == status
        out, err = capsys.readouterr()
        rows.append(pd.read_csv(io.StringIO(out)).drop(columns="file"))
    pd.testing.assert_frame_equal(*rows)
    assert err.startswith("drift: ")
    assert len(err.splitlines()) == 1
    score(["--model", model, str(root / "eval_data/bearing")])
    named = capsys.readouterr().err
    assert all(str(place) in named for place in places if "eval_data" in place.parts)


@pytest.mark.nightly
def test_the_exit_code_tells(mixed, runs):
    command = [
        sys.executable, "-m", "fsasd.cli.main", "data=dcase", f"data.root={mixed[0]}",
        f"store={runs / 'store'}", "generator=none", f"hydra.run.dir={runs / 'command'}",
    ]  # fmt: skip
    done = commands.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    said = done.stdout + done.stderr
    assert f"missing from the results: see {runs / 'command/unreadable.csv'}" in said
