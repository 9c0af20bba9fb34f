"""Sections are independent: what one of them costs, or loses, is no other's."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from hydra import compose, initialize_config_module
from runs import Run

import fsasd.cli.run as app
from fsasd.detectors.knn import KNN

pytestmark = pytest.mark.slow


@pytest.fixture
def plant(factory, tmp_path):
    """The small factory with two of its machines as targets, and what runs on it."""
    root = tmp_path / "data"
    for folder in ("dev_data", "eval_data", "ground_truth"):
        shutil.copytree(factory / folder, root / folder)

    def run(*overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose(
                "config",
                [
                    "experiment=tiny", "generator=transforms", "data=dcase", f"data.root={root}",
                    "data.targets=[bearing,fan]", "detector=knn", "selection.grid.k=[1,2]",
                    "trainer.enable_progress_bar=false", f"store={tmp_path}/store", *overrides,
                ],
            )  # fmt: skip
        return app.run(cfg, tmp_path / "run")

    run.root, run.folder, run.store = root, tmp_path / "run", tmp_path / "store"
    return run


def artifacts(store):
    return {path.relative_to(store).parts[:-1] for path in store.rglob("provenance.json")}


def sections(new):
    """Stages, by the section that they were built for."""
    found = {}
    for stage, *rest in new:
        found.setdefault(rest[0] if len(rest) > 1 else "", set()).add(stage)
    return found


@pytest.mark.nightly
def test_a_clip_computes_its_section_anew_and_nothing_else(plant):
    plant()
    before = artifacts(plant.store)
    assert set(sections(before)) == {"", "bearing section 00", "fan section 00"}
    clip = sorted((plant.root / "dev_data/fan/train").glob("*.wav"))[0]
    clip.touch()
    plant()
    assert artifacts(plant.store) == before
    wave, rate = soundfile.read(clip)
    content = clip.read_bytes()
    soundfile.write(clip, wave + np.random.default_rng(0).normal(0, 0.05, len(wave)), rate)
    plant()
    new = sections(artifacts(plant.store) - before)
    assert set(new) <= {"", "fan section 00"}
    assert new["fan section 00"] >= {"synthesise", "judge", "curve", "detect"}
    assert new[""] == {"rule"}
    clip.write_bytes(content)
    after = artifacts(plant.store)
    plant()
    assert artifacts(plant.store) == after
    clip.unlink()
    plant()
    assert set(sections(artifacts(plant.store) - after)) <= {"", "fan section 00"}


def test_a_machine_that_fails_costs_no_other_its_result(plant, monkeypatch, capsys):
    fit = KNN.fit

    def fit_unless_fan(self, clips):
        if clips[0].machine == "fan":
            raise RuntimeError("a fit that does not converge")
        return fit(self, clips)

    _, complete = plant()
    assert complete
    whole = pd.read_csv(plant.folder / "clips.csv")
    monkeypatch.setattr(KNN, "fit", fit_unless_fan)
    capsys.readouterr()
    score, complete = plant("seed=1", "force=[detect]", "objective=official")
    assert not complete
    assert np.isnan(score)
    (row,) = pd.read_csv(plant.folder / "failed.csv", dtype=str).to_dict("records")
    reason = row.pop("reason")
    assert row == {"machine": "fan", "section": "00", "stage": "curve"}
    assert reason.startswith("a fit that does not converge (while building curve of fan section 00")
    clips = pd.read_csv(plant.folder / "clips.csv")
    assert set(clips["machine"]) == {"bearing"}
    assert len(clips) == (whole["machine"] == "bearing").sum()
    assert (plant.folder / "scores/INCOMPLETE.txt").is_file()
    assert "over 1 of 2 machines" in capsys.readouterr().out
    assert not (plant.folder / "models/fan").exists()
    # What is mended is computed, and nothing else.
    monkeypatch.setattr(KNN, "fit", fit)
    before = artifacts(plant.store)
    _, complete = plant("seed=1")
    assert complete
    assert not (plant.folder / "failed.csv").exists()
    assert not (plant.folder / "scores/INCOMPLETE.txt").exists()
    assert set(sections(artifacts(plant.store) - before)) <= {"", "fan section 00"}


def test_where_all_machines_fail_the_run_does(plant, monkeypatch):
    def fit(self, clips):
        raise RuntimeError("a fit that does not converge")

    monkeypatch.setattr(KNN, "fit", fit)
    with pytest.raises(RuntimeError, match="a fit that does not converge"):
        plant()


@pytest.mark.nightly
def test_a_frozen_generator_serves_a_machine_that_it_was_not_trained_on(factory, tmp_path):
    def run(*overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose(
                "config",
                [
                    "experiment=tiny", "data=dcase", f"data.root={factory}",
                    "~callbacks.evaluation",
                    "trainer.enable_progress_bar=false", f"store={tmp_path}/store",
                    "stages=[finetune,synthesise,detect]", *overrides,
                ],
            )  # fmt: skip
        return Run(cfg, tmp_path / "run")

    run("data.machines=[bearing,valve]")()
    before = artifacts(tmp_path / "store")
    assert run("data.targets=[bearing,fan]").keys("finetune") != run(
        "data.machines=[bearing,valve]"
    ).keys("finetune")
    run("data.targets=[bearing,fan]", "frozen=[finetune]")()
    new = sections(artifacts(tmp_path / "store") - before)
    assert "finetune" not in new.get("", set())
    assert new["fan section 00"] == {"synthesise", "judge", "curve", "detect"}
    assert {"bearing", "fan"} <= set(pd.read_csv(tmp_path / "run/metrics.csv")["machine"])


def test_where_labels_are_not_known_there_are_scores_and_no_metrics(plant, capsys):
    shutil.rmtree(plant.root / "ground_truth")
    score, complete = plant("data.targets=[bearing]")
    assert (score, complete) == (None, True)
    clips = pd.read_csv(plant.folder / "clips.csv")
    assert clips["label"].isna().all()
    assert clips["score"].notna().all()
    assert not (plant.folder / "real_curve.csv").exists()
    assert "Official score: not known" in capsys.readouterr().out
