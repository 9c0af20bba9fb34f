"""A study of own recordings: what `fsasd init` writes, and `data=<path>`."""

import csv
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
from hydra import compose, initialize_config_module
from runs import Run

from fsasd.cli import commands, init
from fsasd.cli.data_choice import with_data


def compose_study(folder, *overrides):
    """As ``--config-dir conf`` does."""
    further = f"hydra.searchpath=[file://{folder}/conf]"
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", ["experiment=study", further, *overrides])


@pytest.fixture
def study(tmp_path, capsys):
    assert init.main([str(tmp_path / "plant")]) == 0
    return tmp_path / "plant"


def test_the_study_composes_as_it_is_written(study):
    cfg = compose_study(study)
    assert cfg.data.manifest == "clips.csv"
    assert cfg.data.targets == ["motor"]
    assert cfg.detector._target_.endswith("TWFRGMM")
    # Every group that it chooses from is named with a choice that there is.
    assert compose_study(study, "generator=audioldm_nano", "detector=fkie").generator.checkpoint


def test_the_table_lists_recordings_that_are_there(tmp_path, make_wav, capsys):
    wavs = [make_wav("b/late.wav"), make_wav("a.wav")]
    folder = wavs[1].parent
    assert init.main([str(folder)]) == 0
    assert "2 recordings" in capsys.readouterr().out
    rows = list(csv.DictReader((folder / "clips.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == ["a.wav", "b/late.wav"]
    assert {row[name] for row in rows for name in init.COLUMNS[1:]} == {""}


@pytest.mark.parametrize("name", ["clips.csv", "conf/experiment/study.yaml"])
def test_nothing_is_overwritten(tmp_path, capsys, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert init.main([str(tmp_path)]) == 2
    assert f"{tmp_path / name}: expected no such file, found one" in capsys.readouterr().err
    assert [p.read_text() for p in tmp_path.rglob("*") if p.is_file()] == ["mine"]


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "plant").write_text("")
    assert init.main([str(tmp_path / "plant")]) == 2
    assert "expected a folder, found a file" in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.slow
def test_the_study_runs_with_recordings_in_place(study, monkeypatch):
    rng = np.random.default_rng(0)
    rows = []
    for machine in ("pump", "motor"):
        for split, label, count in (("train", "normal", 14), ("test", "normal", 4),
                                    ("test", "anomaly", 4)):  # fmt: skip
            for number in range(count):
                path = f"{machine}/{split}_{label}_{number}.wav"
                (study / machine).mkdir(exist_ok=True)
                hum = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
                wave = 0.1 * hum + (0.05 if label == "normal" else 0.2) * rng.normal(size=16000)
                soundfile.write(study / path, np.clip(wave, -1, 1), 16000)
                rows.append([path, machine, split, label])
    pd.DataFrame(rows, columns=init.COLUMNS).to_csv(study / "clips.csv", index=False)
    monkeypatch.chdir(study)
    cfg = compose_study(study, "synthesis.clips_per_label=8", f"store={study}/store")
    run = Run(cfg, study / "run")
    run()
    assert {clip.machine: clip.role for clip in run.data.clips} == {
        "pump": "reference", "motor": "target",
    }  # fmt: skip
    scores = pd.read_csv(study / "run" / "metrics.csv")
    assert scores["machine"].iloc[0] == "motor"
    assert scores["auc"].iloc[0] == 1


def test_the_command_is_one_of_fsasd(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fsasd", "init", str(tmp_path / "plant")])
    assert commands.run("fsasd") == 0
    assert "fsasd --config-dir conf experiment=study" in capsys.readouterr().out
    assert (tmp_path / "plant" / "conf" / "experiment" / "study.yaml").is_file()


# data=<path>


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("data=clips.csv", ["data=manifest", "data.manifest='clips.csv'"]),
        ("data=plant", ["data=folder", "data.root='plant'"]),
        ("data=old", ["data=dcase", "data.root='old'"]),
        ("data=factory", ["data=factory"]),
        ("data=no_such", ["data=no_such"]),
        ("data=factory,factory_tiny", ["data=factory,factory_tiny"]),
        ("data=glob(*)", ["data=glob(*)"]),
        ("data.root=plant/a", ["data.root=plant/a"]),
    ],
)
def test_data_may_be_a_path(tmp_path, monkeypatch, given, written):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plant").mkdir()
    (tmp_path / "old" / "dev_data").mkdir(parents=True)
    (tmp_path / "factory").mkdir()
    assert with_data([given]) == written
    assert commands.as_overrides(["plan", given]) == [*written, "plan=true"]


def test_a_name_may_be_a_choice_of_a_further_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plant").mkdir()
    own = ["--config-dir", "conf"]
    assert with_data([*own, "data=plant"]) == [*own, "data=plant"]
    assert with_data([*own, "data=./plant"]) == [*own, "data=folder", "data.root='./plant'"]
