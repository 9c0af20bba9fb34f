import io
import json
import sys
from dataclasses import replace

import commands
import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_module
from rich.console import Console
from runs import Run
from scipy import signal

from fsasd.cli import check as check_command
from fsasd.data.captions import Captions
from fsasd.data.check.inspection import inspect
from fsasd.data.check.report import check
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import Clip, read_clips

RATE = 16_000


@pytest.fixture
def planted(make_wav):
    """Make a data module of clips that are given as waveforms, or as files."""

    def plant(*clips, channel=None, captions=None):
        made = []
        for i, (recording, known) in enumerate(clips):
            path = recording
            if recording is None or isinstance(recording, np.ndarray):
                path = make_wav(f"{i}.wav", recording, subtype="FLOAT")
            known = {"split": "train", "label": "normal", "role": "target"} | known
            made.append(Clip(path, known.pop("machine", "press"), **known))
        return FirstShotDataModule(made, captions, channel=channel)

    return plant


def noise(seed=0, seconds=0.25):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def found(report, kind):
    return [finding for finding in report.findings if finding.kind == kind]


def printed(report):
    text = io.StringIO()
    report.print(Console(width=140, file=text))
    return text.getvalue()


def row_of(report, machine):
    (row,) = [x for x in printed(report).splitlines() if x.startswith(f" {machine} ")]
    return row.split()


def only(findings):
    (finding,) = findings
    return finding


TEST = {"split": "test", "label": "anomaly"}
OTHER = {"machine": "mill", "role": "reference", "label": "anomaly"}
"""What a data set must have beside the clips in question, so that nothing else is told."""


# What is there


@pytest.fixture(scope="module")
def factory_report(factory):
    return check(FirstShotDataModule(read_clips(factory)))


def test_the_factory_is_in_order(factory_report):
    assert factory_report.findings == []


def test_a_machine_is_summed_up(factory_report):
    assert list(factory_report.machines) == ["bearing", "fan", "valve"]
    bearing = factory_report.machines["bearing"]
    assert (bearing["role"], bearing["clips"]) == ("target", 32)
    counts = {
        (row["split"], row["label"], row["domain"]): row["clips"] for row in bearing["counts"]
    }
    assert counts["train", "normal", "source"] == 12
    assert counts["train", "normal", "target"] == 4
    assert sum(counts.values()) == 32
    assert bearing["seconds"] == {"min": 1.0, "median": 1.0, "max": 1.0, "sum": 32.0}
    assert bearing["rates"] == {"16000": 32}
    assert bearing["channels"] == {"1": 32}
    assert set(bearing["attributes"]) == {"spd", "load", "mic"}
    captions = bearing["captions"]
    assert captions["sample"][0].startswith("This is the normal sound of a bearing with speed")
    assert len(captions["longest"]) >= max(map(len, captions["sample"]))
    assert not any("anomaly" in text for text in captions["sample"])


def test_the_report_is_json_and_text(factory_report):
    said = json.loads(factory_report.to_json())
    assert said["machines"] == factory_report.machines
    assert (said["clips"], said["errors"], said["warnings"]) == (96, 0, 0)
    expected = ["bearing", "target", "16/0", "8/8/0", "20/12"]
    assert row_of(factory_report, "bearing")[:5] == expected
    assert printed(factory_report).endswith("96 clips read (all samples): 0 errors, 0 warnings\n")


def test_clips_without_label_or_domain_are_counted(planted):
    unknown = {"split": "test", "label": None}
    report = check(planted((None, {}), (None, TEST), (None, unknown), (None, unknown)))
    assert json.loads(report.to_json())["machines"]["press"]["counts"] == [
        {"split": "test", "label": "anomaly", "domain": None, "clips": 1},
        {"split": "test", "label": None, "domain": None, "clips": 2},
        {"split": "train", "label": "normal", "domain": None, "clips": 1},
    ]
    assert row_of(report, "press")[:5] == ["press", "target", "1/0", "0/1/2", "0.25"]


def test_a_machine_without_a_role_has_none_in_json(planted):
    said = json.loads(check(planted((None, {"role": None}))).to_json())
    assert said["machines"]["press"]["role"] is None


def test_headers_alone_say_as_much_but_what_samples_tell(factory, factory_report):
    quick = check(FirstShotDataModule(read_clips(factory)), headers_only=True)
    assert quick.machines == factory_report.machines
    assert quick.recordings["content"].isna().all()
    assert "headers_only" in quick.to_json()


def test_the_real_recordings_are_counted_as_their_readme_says(real):
    report = check(FirstShotDataModule.from_dcase(real))
    readme = (real.parent / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme]
    rows = [row for row in rows if len(row) == 7 and row[1] in ("reference", "target")]
    assert {row[0] for row in rows} == set(report.machines)
    for machine, role, train, normal, anomalous, *_ in rows:
        summary = report.machines[machine]
        assert summary["role"] == role
        expected = sum(map(int, train.split("/"))) + int(normal) + int(anomalous)
        assert summary["clips"] == expected
        assert summary["rates"] == {"16000": expected}
    assert report.errors == []
    # Copies of two recordings each fill up the target domain of three machines.
    assert {(f.machine, f.kind, len(f.paths)) for f in report.findings} == {
        (machine, "duplicate", 6) for machine in ("pump", "slider", "valve")
    }


# What is wrong with recordings


def test_recordings_that_cannot_be_read_are_errors(planted, make_wav, tmp_path):
    garbage = tmp_path / "garbage.wav"
    garbage.write_bytes(bytes(range(256)))
    cut = make_wav("cut.wav")
    cut.write_bytes(cut.read_bytes()[:-100])
    holes = noise()
    holes[[3, 70]] = np.nan
    report = check(
        planted((garbage, {}), (cut, {}), (tmp_path / "gone.wav", {}), (holes, {}), (None, TEST))
    )
    told = {finding.paths[0]: finding.message for finding in found(report, "unreadable")}
    assert "not readable as audio" in told[str(garbage)]
    assert "cut short" in told[str(cut)]
    assert "does not exist" in told[str(tmp_path / "gone.wav")]
    assert told[str(tmp_path / "3.wav")] == "1 clip: 2 samples are NaN or infinite"
    assert len(report.errors) == 4
    assert report.machines["press"]["rates"] == {"16000": 1}


def test_headers_tell_what_cannot_be_read_too(planted, make_wav, tmp_path):
    garbage = tmp_path / "garbage.wav"
    garbage.write_bytes(bytes(range(256)))
    cut = make_wav("cut.wav")
    cut.write_bytes(cut.read_bytes()[:-100])
    data = planted((garbage, {}), (cut, {}), (tmp_path / "gone.wav", {}), (None, TEST))
    assert len(check(data, headers_only=True).errors) == 3


@pytest.mark.parametrize("headers_only", [True, False])
@pytest.mark.parametrize(
    ("channel", "is_wrong"), [(None, True), (2, True), ("near", False), ("mean", False)]
)
def test_a_channel_must_be_chosen(planted, channel, is_wrong, headers_only):
    stereo = np.stack([noise(1), noise(2)], axis=1)
    report = check(planted((stereo, {}), (None, TEST), channel=channel), headers_only)
    assert bool(found(report, "unreadable")) is is_wrong


def test_only_the_channel_that_is_taken_is_judged(planted):
    stereo = np.stack([noise(), np.zeros(4000)], axis=1)
    assert not found(check(planted((stereo, {}), channel="near")), "silent")
    assert found(check(planted((stereo, {}), channel="far")), "silent")


@pytest.mark.parametrize("waveform", [np.zeros(100), np.full(100, 0.3), 5e-5 * noise() / 0.4])
def test_silence_is_told(planted, waveform):
    assert len(only(found(check(planted((waveform, {}))), "silent")).paths) == 1


def test_a_quiet_recording_is_not_silent(planted):
    assert not found(check(planted((0.01 * noise(), {}))), "silent")


def sine(hz, peak):
    return peak * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)


@pytest.mark.parametrize(
    ("waveform", "is_clipped"),
    [
        (sine(50, 1.4).clip(-1, 1), True),
        (sine(50, 1.4).clip(-1, 10).clip(-10, 0.9), True),
        (sine(50, 1.4).clip(-0.8, 0.8), False),
        (sine(50, 0.999), False),
        (sine(4000, 1.0), False),
    ],
)
def test_clipping_is_resting_at_full_scale(make_wav, planted, waveform, is_clipped):
    path = make_wav("c.wav", waveform.clip(-1, 1 - 2**-15), subtype="PCM_16")
    assert bool(found(check(planted((path, {}))), "clipped")) is is_clipped


def test_rates_that_lack_a_part_of_the_spectrum_are_told(make_wav, planted):
    paths = [make_wav(f"{rate}.wav", rate=rate) for rate in (6000, 8000, 44_100)]
    report = check(planted(*((path, {}) for path in paths)))
    finding = only(found(report, "rate"))
    assert finding.message == (
        "2 clips at 6000, 8000 Hz, resampled to 16000: nothing above 4000 Hz"
    )
    assert finding.paths == [str(path) for path in paths[:2]]
    assert report.machines["press"]["rates"] == {"6000": 1, "8000": 1, "44100": 1}


def test_a_problem_that_many_have_is_said_once(planted, tmp_path):
    paths = [tmp_path / f"{i}.wav" for i in range(12)]
    for path in paths:
        path.touch()
    text = printed(report := check(planted(*((path, {}) for path in paths), (None, TEST))))
    finding = only(found(report, "unreadable"))
    assert finding.message == "12 clips: not readable as audio: Format not recognised."
    assert finding.paths == [str(path) for path in paths]
    assert "2.wav\n    ... and 9 more\n" in text
    assert row_of(report, "press")[-1] == "12/0"


def test_the_unreadable_case_is_one_error(shared):
    report = check(FirstShotDataModule.from_manifest(shared / "cases/unreadable/clips.csv"))
    finding = only(found(report, "unreadable"))
    assert finding.message.startswith("6 clips: ")
    assert len(finding.paths) == 6


def test_floats_on_the_scale_of_integers_are_errors(planted, shared):
    path = shared / "cases/scale/int16_scale.wav"
    finding = only(found(check(planted((path, {}), (None, TEST))), "unreadable"))
    assert finding.level == "error"
    assert finding.message == (
        "1 clip: peak 12777.2 where full scale is 1: on the scale of 16-bit integers, it is to be "
        "divided by 32768"
    )


def test_test_clips_unlike_the_training_clips_are_told(planted):
    fitted = [(noise(i), {"section": s}) for i, s in enumerate(("00", "00", "01", "01"))]
    scored = [(noise(9, seconds=1), TEST | {"section": "01"}), (noise(8), TEST | {"section": "01"})]
    finding = only(found(check(planted(*fitted, *scored)), "length"))
    assert finding.level == "warning"
    assert finding.message == (
        "1 of 2 test clips of section 01: more than twice as long as all training clips"
    )
    assert len(finding.paths) == 1


def test_a_higher_rate_alone_is_no_finding(planted, make_wav):
    def at(rate, seed):
        return signal.resample_poly(noise(seed), rate // 16_000, 1)

    high = make_wav("high.wav", at(48_000, 8), rate=48_000, subtype="FLOAT")
    clips = [(noise(seed), {}) for seed in range(8)]
    report = check(planted(*clips, (high, TEST), (None, OTHER)))
    assert report.findings == []
    assert report.machines["press"]["rates"] == {"16000": 8, "48000": 1}


@pytest.mark.parametrize("width", [80, 100, 130])
def test_headings_are_whole_at_any_width(planted, width):
    names = ["BearingOfTheLargeGearbox", "fan"]
    data = planted(*((None, {"machine": name, "role": "reference"}) for name in names))
    text = io.StringIO()
    check(data).print(Console(width=width, file=text))
    heading = text.getvalue().partition("─")[0].split()
    expected = {"Role", "Train", "normal/", "anomaly", "unknown", "Domain", "source/", "warnings"}
    assert expected < set(heading)
    assert len(heading) == 24


# What is wrong with contents


def test_the_same_content_in_train_and_test_is_a_leak(planted, make_wav):
    # Another container and another name, but the same samples.
    flac = make_wav("copy.flac", noise().astype(np.float32))
    wav = make_wav("original.wav", soundfile.read(flac)[0], subtype="PCM_16")
    finding = only(found(check(planted((wav, {}), (flac, TEST | {"label": "normal"}))), "leak"))
    assert (finding.level, finding.machine) == ("error", "press")
    assert (
        finding.message == "2 clips have the same content as one in the other split (train, test)"
    )
    assert set(finding.paths) == {str(wav), str(flac)}


def test_a_leak_across_machines_names_both(planted):
    report = check(planted((noise(), OTHER), (noise(), TEST)))
    assert only(found(report, "leak")).machine == "mill and press"


def test_the_same_content_with_both_labels_is_an_error(planted):
    report = check(planted((noise(), TEST), (noise(), TEST | {"label": "normal"})))
    assert only(found(report, "contradiction")).level == "error"


def test_copies_are_told(planted):
    report = check(planted((noise(), {}), (noise(), {}), (noise(1), {})))
    finding = only(found(report, "duplicate"))
    assert (finding.level, len(finding.paths)) == ("warning", 2)


def test_silence_is_no_copy_of_silence(planted):
    assert not found(check(planted((np.zeros(99), {}), (np.zeros(99), TEST))), "leak")


# What is wrong with labels, attributes and captions


def test_a_target_needs_clips_to_fit_and_to_score(planted):
    messages = [f.message for f in check(planted((None, {"label": None}))).errors]
    assert messages == [
        "no normal training clip: nothing to fit a detector on",
        "no test clip: nothing to score",
    ]


def test_roles_that_nobody_has_are_told(planted):
    assert only(found(check(planted((None, {}))), "roles")).message.startswith("no reference")
    report = check(planted((None, {"role": "reference"})))
    assert only(found(report, "roles")).message.startswith("no target machine")
    assert "without a labelled anomaly" in only(found(report, "labels")).message


def test_a_test_set_labelled_in_part_has_no_metrics(planted):
    data = planted((None, {}), (None, TEST), (None, TEST | {"label": None}))
    finding = only(found(check(data), "labels"))
    assert finding.message == "1 of 2 test clips unlabelled: no metrics"


def test_faults_of_a_target_that_no_run_uses_are_told(planted):
    data = planted((None, {}), (None, {"label": "anomaly"}), (None, TEST))
    finding = only(found(check(data), "labels"))
    assert finding.message.startswith("1 anomalous training clip of a target: no run uses them")
    assert finding.paths == [str(data.clips[1].path)]


def test_attributes_that_some_clips_lack_are_told(planted):
    data = planted((None, {"attributes": {"speed": "1", "load": "2"}}),
                   (None, {"attributes": {"load": "2"}}))  # fmt: skip
    finding = only(found(check(data), "attributes"))
    assert finding.message == "1 of 2 clips without the attribute 'speed'"
    assert finding.paths == [str(data.clips[1].path)]


def test_a_phrase_that_no_clip_needs_is_told(planted):
    captions = Captions({"press": {"name": "a press", "sped": "speed {}"}}, {"mic": "mic {}"})
    data = planted((None, {"attributes": {"speed": "1"}}), captions=captions)
    finding = only(found(check(data), "attributes"))
    assert finding.message == (
        "its captions have a phrase for 'sped', which no clip has; there are: speed"
    )


def test_a_shipped_phrase_that_no_clip_needs_is_not_told(planted):
    data = planted((None, {"machine": "grinder", "attributes": {"speed": "1"}}))
    assert "grindstone" in data.captions.machine_phrases["grinder"]
    assert not found(check(data), "attributes")


def test_a_clip_that_its_template_does_not_fit_is_an_error(planted):
    data = planted(
        (None, {"attributes": {"speed": "1"}}),
        (None, {}),
        captions=Captions({"press": "a press at {speed}"}, {}),
    )
    finding = only(found(check(data), "caption"))
    assert finding.level == "error"
    assert finding.paths == [str(data.clips[1].path)]


def test_many_recordings_are_in_the_order_of_the_clips(factory_clips):
    clips = factory_clips[::-1]
    assert inspect(clips)["path"].tolist() == [str(clip.path) for clip in clips]


# The command


def configure(*overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture
def run(factory, tmp_path):
    def make(*overrides):
        cfg = configure("data=dcase", f"data.root={factory}", f"store={tmp_path}", *overrides)
        return Run(cfg, tmp_path / "run")

    return make


def test_the_stage_reports_and_leaves_its_report(run, tmp_path, capsys):
    assert run("stages=[check]")() is None
    assert "96 clips read (all samples): 0 errors" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/check.json").read_text())["clips"] == 96
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["check.json"]


def test_errors_in_the_data_stop_the_run(run, monkeypatch, factory):
    def with_one_gone(*args, **options):
        first, *others = read_clips(*args, **options)
        return [replace(first, path=first.path.with_name("gone.wav")), *others]

    monkeypatch.setattr("fsasd.data.datamodule.read_clips", with_one_gone)
    monkeypatch.setattr("fsasd.pipeline.runner.Runner.run", lambda *_: pytest.fail("went on"))
    with pytest.raises(ValueError, match=r"the data have errors: see .*check\.json"):
        run("stages=[check,detect]", "check.headers_only=true")()


def test_help_is_the_commands_own(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fsasd-check", "--help"])
    with pytest.raises(SystemExit) as left:
        check_command.main()
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("--data", "--headers-only", "--json", "fsasd --help"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["data=x"], ["stages=[check]", "data=x"]),
        (["--config-dir", "c", "data=x"], ["--config-dir", "c", "stages=[check]", "data=x"]),
        (
            ["--headers-only", "data=x", "--config-dir", "c"],
            ["stages=[check]", "check.headers_only=true", "data=x", "--config-dir", "c"],
        ),
        (["--cfg", "job"], ["--cfg", "job", "stages=[check]"]),
    ],
)
def test_overrides_stay_together(monkeypatch, given, expected):
    monkeypatch.setattr(sys, "argv", ["fsasd-check", *given])
    monkeypatch.setattr("fsasd.cli.main.main", lambda: None)
    check_command.main()
    assert sys.argv == ["fsasd-check", *expected]


@pytest.mark.parametrize(
    ("place", "reader", "key"),
    [
        ("plant", "from_folder", "root"),
        ("it's dcase", "from_dcase", "root"),
        ("gone/plant", "from_folder", "root"),
        ("clips.csv", "from_manifest", "manifest"),
        ("dcase2023", "from_dcase", None),
    ],
)
def test_data_are_a_folder_a_table_or_an_edition(monkeypatch, tmp_path, place, reader, key):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plant/press").mkdir(parents=True)
    (tmp_path / "it's dcase/eval_data").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["fsasd-check", "--data", place, "data.targets=[press]"])
    monkeypatch.setattr("fsasd.cli.main.main", lambda: None)
    check_command.main()
    data = configure(*sys.argv[1:]).data
    assert data._target_.endswith(reader)
    assert data.targets == ["press"]
    assert data[key or "root"] == (place if key else "data/dcase2023")


def test_the_command_prints_json_and_fails_on_errors(make_wav, tmp_path):
    make_wav("press/train/normal/a.wav")
    (tmp_path / "press/test").mkdir()
    (tmp_path / "press/test/b.wav").write_bytes(b"no audio")
    found = commands.run(
        [sys.executable, "-m", "fsasd.cli.check",
         "--json", "--data", str(tmp_path), f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    said = json.loads(found.stdout)
    assert said["errors"] == 1
    assert only(f for f in said["findings"] if f["level"] == "error")["kind"] == "unreadable"
    assert "the data have errors: see" in found.stderr
