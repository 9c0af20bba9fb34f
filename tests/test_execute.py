"""The method from Python, without a configuration."""

import subprocess
import sys

import lightning as L
import pandas as pd
import pytest
from hydra import compose, initialize_config_module

from fsasd.cli import configure
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.data.names import SectionId
from fsasd.detectors.knn import KNN
from fsasd.generation.cleaning import Cleaning
from fsasd.generation.filters import Filters
from fsasd.generation.prompts import WordReplacement
from fsasd.generation.transforms import FaultTransforms
from fsasd.pipeline.execute import METHOD, execute
from fsasd.pipeline.experiment import Experiment, Factory, Synthesis
from fsasd.selection.selector import Selector

FAULTS = {"leak": {"strength": [0.2, 0.5], "above": [2e3, 4e3]}}


@pytest.fixture
def experiment(factory):
    return Experiment(
        data=FirstShotDataModule(read_clips(factory)),
        detector=KNN(),
        selector=Selector({"k": [1, 2]}),
        trainer=Factory.of(
            L.Trainer, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
        ),
        synthesis=Synthesis(
            prompts=Factory.of(WordReplacement),
            cleaning=Factory.of(Cleaning),
            filters=Factory.of(Filters),
            clips_per_label=16,
        ),
        generator=Factory.of(FaultTransforms, faults=FAULTS),
    )


def test_an_experiment_leaves_tables_models_and_synthetic_clips(experiment, tmp_path):
    outcome = execute(experiment, tmp_path / "store", tmp_path / "run")
    assert set(outcome.of("detect")) == {SectionId("bearing", "00")}
    metrics = pd.read_csv(tmp_path / "run/metrics.csv")
    assert metrics["machine"].tolist()[0] == "bearing"
    assert pd.read_csv(tmp_path / "run/selection.csv")["param.k"].tolist() == [1, 2]
    assert (tmp_path / "run/models/bearing/section_00/detector.json").is_file()
    assert len(list((tmp_path / "run/synthetic").rglob("*.wav"))) == 32
    assert len(pd.read_csv(tmp_path / "run/captions.csv")) == len(experiment.data.captioned)


def test_the_same_experiment_again_builds_nothing(experiment, tmp_path):
    first = execute(experiment, tmp_path / "store", tmp_path / "run")
    made = {path: path.stat().st_mtime_ns for path in first.artifacts.values()}
    second = execute(experiment, tmp_path / "store", tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in second.artifacts.values()} == made
    tables = [(tmp_path / run / "clips.csv").read_text() for run in ("run", "again")]
    assert tables[0] == tables[1]


def test_results_of_a_section_appear_before_those_of_all(experiment, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr("fsasd.pipeline.execute.collect", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        execute(experiment, tmp_path / "store", tmp_path / "run")
    assert not (tmp_path / "run/metrics.csv").exists()
    assert (tmp_path / "run/models/bearing/section_00/detector.json").is_file()
    (scores,) = (tmp_path / "run/scores").glob("anomaly_score_bearing_section_00_test*.csv")
    assert len(scores.read_text().splitlines()) == 16


def test_simulated_recordings_are_kept_as_long_as_the_run_that_used_them(experiment, tmp_path):
    recordings = {"references": ["fan"], "targets": ["pump"], "seconds": 0.5, "train_clips": 4,
                  "target_domain_clips": 1, "test_clips": 2}  # fmt: skip
    experiment.data = FirstShotDataModule.from_factory(tmp_path / "store", recordings)
    experiment.generator = None
    execute(experiment, tmp_path / "store", tmp_path / "run")
    (factory,) = (tmp_path / "store/factory").glob("*/provenance.json")
    (used,) = (tmp_path / "store/runs").iterdir()
    assert factory.parent.name in used.read_text()


def test_without_a_generator_the_default_setting_is_used(experiment, tmp_path):
    experiment.generator = None
    outcome = execute(experiment, tmp_path / "store", tmp_path / "run")
    assert {stage.name for stage in outcome.artifacts} == {"detect"}
    assert not (tmp_path / "run/selection.csv").exists()


def test_the_configuration_plans_the_same_stages():
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        planners = configure.planners(compose("config"))
    assert {name: planner.func for name, planner in planners.items()} == METHOD


def test_the_pipeline_needs_no_hydra():
    code = "import fsasd.pipeline.execute, sys; sys.exit('hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
