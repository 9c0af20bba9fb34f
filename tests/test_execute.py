"""The method from Python, without a configuration."""

import dataclasses
import json
import os
import re
import signal
import sys

import commands
import lightning as L
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from threadpoolctl import threadpool_limits

from fsasd import load
from fsasd.cli import configure
from fsasd.data.check.inspection import inspect
from fsasd.data.check.likeness import Profile
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.data.names import SectionId
from fsasd.deployment.about import ABOUT, CARD, About
from fsasd.detectors.knn import KNN
from fsasd.generation.cleaning import Cleaning
from fsasd.generation.filters import Filters
from fsasd.generation.prompts import WordReplacement
from fsasd.generation.transforms import FaultTransforms
from fsasd.pipeline.execute import METHOD, execute
from fsasd.pipeline.experiment import Experiment, Factory, Synthesis
from fsasd.pipeline.outcome import Outcome
from fsasd.pipeline.presence import Presence
from fsasd.report.cost import ARTIFACTS
from fsasd.report.results import Results
from fsasd.runtime.workers import Joblib
from fsasd.selection.selector import Selector
from fsasd.selection.sources.normals import Normals
from fsasd.selection.sources.prior import Prior
from fsasd.selection.sources.references import References
from fsasd.selection.sources.synthetic import Synthetic
from fsasd.selection.sources.transfer import Transfer
from fsasd.store.provenance import PROVENANCE, Provenance

pytestmark = pytest.mark.slow

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


@pytest.fixture
def several_sources(experiment):
    """The experiment with a choice on several sources of evidence."""
    experiment.selector = Selector(
        {"k": [1, 2, 4]},
        resamples=20,
        sources={
            "synthetic": Synthetic(),
            "references": References(),
            "transfer": Transfer(clips_per_label=6, strengths=[1.0]),
            "normals": Normals(),
            "prior": Prior({"k": {"any": 2}}),
        },
    )
    return experiment


def test_a_choice_on_several_sources_says_what_each_contributed(several_sources, tmp_path):
    outcome = execute(several_sources, tmp_path / "store", tmp_path / "run")
    curves = {section.machine for section in outcome.of("curve")}
    assert curves == {"bearing", "fan", "valve"}
    assert {section.machine for section in outcome.of("transfer")} == curves
    sources = pd.read_csv(tmp_path / "run/sources.csv").set_index("source")
    assert sources.index.tolist() == [
        "synthetic",
        "references",
        "transfer",
        "normals",
        "prior",
        "all",
    ]
    assert "4 types of reference machines" in sources["reason"]["normals"]
    origins = json.loads(sources["origins"]["references"])
    assert origins == {"fan section 00": 0.5, "valve section 00": 0.5}
    chosen = pd.read_csv(tmp_path / "run/selection.csv").query("chosen")
    assert sources["best"]["all"] == f"k={chosen['param.k'].item()}"
    total = chosen["expected"].item()
    assert total == pytest.approx(sources["gain"].drop("all").sum())
    assert (tmp_path / "run/transferred/bearing_section_00/manifest.csv").is_file()


@pytest.mark.nightly
def test_a_choice_depends_on_what_is_known_of_the_references(several_sources, tmp_path):
    first = execute(several_sources, tmp_path / "store", tmp_path / "run")
    again = execute(several_sources, tmp_path / "store", tmp_path / "again")
    assert {*first.artifacts.values()} == {*again.artifacts.values()}
    clips = [
        dataclasses.replace(clip, label={"normal": "anomaly", "anomaly": "normal"}[clip.label])
        if (clip.machine, clip.split) == ("fan", "test")
        else clip
        for clip in several_sources.data.clips
    ]
    several_sources.data = FirstShotDataModule(clips)
    other = execute(several_sources, tmp_path / "store", tmp_path / "other")
    before, after = (
        [path for stage, path in outcome.artifacts.items() if stage.name == "rule"]
        for outcome in (first, other)
    )
    assert before != after
    # Scores do not depend on labels.
    fan = SectionId("fan", "00")
    assert first.of("synthesise") == other.of("synthesise")
    assert first.of("transfer")[fan] == other.of("transfer")[fan]


@pytest.mark.nightly
def test_validation_says_what_leaving_the_site_out_costs(experiment, tmp_path):
    """With the site, a choice is that of machines whose sites nobody knows."""
    experiment.synthesis = dataclasses.replace(experiment.synthesis, references=True)
    experiment.selector = Selector(
        {"k": [1, 2, 4]}, resamples=20, sources={"references": References()}
    )
    execute(experiment, tmp_path / "store", tmp_path / "unknown")
    sites = {"fan": "mill", "valve": "mill"}
    experiment.data = FirstShotDataModule(experiment.data.clips, sites=sites)
    execute(experiment, tmp_path / "store", tmp_path / "known")
    without, table = (
        pd.read_csv(tmp_path / name / "validation.csv") for name in ("unknown", "known")
    )
    assert "gain_with_site" not in without
    assert table["machine"].tolist() == without["machine"].tolist() == ["fan", "valve", "mean"]
    # Of two machines of one site, none is left to learn from.
    assert table["abstain_reason"][:2].str.startswith("there is no evidence").all()
    assert without["abstain_reason"].isna().all()
    assert table["chosen_with_site"].tolist() == without["chosen"].tolist()
    assert table["gain_with_site"].tolist() == pytest.approx(without["gain"].tolist())
    # The intervals are of the same draws of clips; the types are known to both.
    assert table["gain_with_site_low"].tolist() == pytest.approx(without["gain_low"].tolist())


def test_simulated_recordings_are_kept_as_long_as_the_run_that_used_them(experiment, tmp_path):
    recordings = {"references": ["fan"], "targets": ["pump"], "seconds": 0.5, "train_clips": 4,
                  "target_domain_clips": 1, "test_clips": 2}  # fmt: skip
    experiment.data = FirstShotDataModule.from_factory(tmp_path / "store", recordings)
    experiment.generator = None
    execute(experiment, tmp_path / "store", tmp_path / "run")
    (factory,) = (tmp_path / "store/factory").glob("*/provenance.json")
    (used,) = (tmp_path / "store/runs").iterdir()
    assert factory.parent.name in used.read_text()
    built = Results(tmp_path / "run").artifacts.set_index("stage")
    assert built.loc["factory", "key"] == factory.parent.name
    of_detect = Provenance.read(next((tmp_path / "store/detect").glob("*/*/provenance.json")))
    assert built.loc["detect", "key"] == of_detect.key
    assert built.loc["detect", "seconds"] == of_detect.seconds
    assert built.loc["detect", "machine"] == "pump"


def tables(run):
    """The tables, scores and saved detectors of a run, by name; not what holds times."""
    files = [*run.glob("*.csv"), *run.glob("scores/*"), *run.glob("models/**/*.*")]
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in files
        if file.name not in ("costs.csv", ARTIFACTS, ABOUT, CARD)
    }


@pytest.fixture
def all_targets(experiment):
    """The experiment with three target machines."""
    clips = [dataclasses.replace(clip, role="target") for clip in experiment.data.clips]
    experiment.data = FirstShotDataModule(clips)
    return experiment


@pytest.mark.nightly
def test_sections_that_are_built_at_once_have_the_results_of_one_after_the_other(
    all_targets, tmp_path, caplog, monkeypatch
):
    caplog.set_level("INFO")
    # The last bits of sums depend on the number of threads, of which each worker has one here.
    with threadpool_limits(1):
        serial = execute(all_targets, tmp_path / "serial", tmp_path / "run")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    caplog.clear()
    parallel = execute(all_targets, tmp_path / "parallel", tmp_path / "again", runner=Joblib(2))
    assert caplog.text.count("3 sections are built in 2 processes") == 2
    assert sorted(re.findall(r"(\w+) (\w+) section 00: building", caplog.text)) == sorted(
        (stage.name, stage.section.machine) for stage in serial.artifacts if stage.section
    )
    assert [str(stage) for stage in parallel.artifacts] == [
        str(stage) for stage in serial.artifacts
    ]
    assert tables(tmp_path / "again") == tables(tmp_path / "run")
    for first, second in zip(serial.artifacts.values(), parallel.artifacts.values(), strict=True):
        ours, theirs = (Provenance.read(path / PROVENANCE) for path in (first, second))
        if ours.description.stage != "judge":  # whose manifest has paths
            names = ours.files.keys() - {"cost.json"}  # which holds times
            assert {n: ours.files[n] for n in names} == {n: theirs.files[n] for n in names}
        assert (ours.key, ours.command) == (theirs.key, theirs.command)


class Breaks(KNN):
    """A detector that cannot be fitted on one machine, and takes its process with it on another."""

    def fit(self, clips):
        if clips[0].machine == "fan":
            raise OSError(28, "No space left on device")
        if clips[0].machine == "valve":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(clips)


@pytest.mark.nightly
def test_a_section_that_fails_in_a_worker_costs_no_other(all_targets, tmp_path, caplog):
    all_targets.detector, all_targets.generator = Breaks(), None
    outcome = execute(all_targets, tmp_path / "store", tmp_path / "run", runner=Joblib(2))
    assert [str(section) for section in outcome.of("detect")] == ["bearing section 00"]
    failed = pd.read_csv(tmp_path / "run/failed.csv")
    assert [*zip(failed["machine"], failed["stage"], strict=True)] == [
        ("fan", "detect"),
        ("valve", "detect"),
    ]
    assert "No space left on device" in failed["reason"][0]
    assert "was killed, alone as well, as happens where memory is short" in failed["reason"][1]
    assert f"(while building detect of fan section 00 in {tmp_path}" in caplog.text
    assert pd.read_csv(tmp_path / "run/clips.csv")["machine"].unique().tolist() == ["bearing"]


def test_equal_commands_in_one_folder_leave_the_tables_to_the_last(experiment, tmp_path, caplog):
    caplog.set_level("INFO")
    experiment.generator = None
    with Presence(tmp_path / "run"):
        outcome = execute(experiment, tmp_path / "store", tmp_path / "run")
        assert outcome.of("detect")
        assert not outcome.collected
        assert not (tmp_path / "run/models").exists()
    assert f"other commands are at work in {tmp_path / 'run'}: the last of them" in caplog.text
    assert execute(experiment, tmp_path / "store", tmp_path / "run").collected
    assert (tmp_path / "run/metrics.csv").is_file()
    assert (tmp_path / "run/models").is_dir()


def test_the_last_shard_has_the_tables_of_all(all_targets, tmp_path, caplog):
    caplog.set_level("INFO")
    all_targets.generator = None
    outcomes = [
        execute(all_targets, tmp_path / "store", tmp_path / str(i), shard=f"{i}/2") for i in (1, 2)
    ]
    assert [outcome.collected for outcome in outcomes] == [False, True]
    assert "shard 1/2 is done. 1 sections are not complete yet" in caplog.text
    assert not (tmp_path / "1/metrics.csv").exists()
    assert (tmp_path / "1/models/bearing").is_dir()
    machines = pd.read_csv(tmp_path / "2/clips.csv")["machine"].unique()
    assert sorted(machines) == ["bearing", "fan", "valve"]
    assert caplog.text.count(": building") == 3


def test_of_shards_in_one_folder_the_last_has_the_tables_though_it_looked_too_early(
    all_targets, tmp_path, monkeypatch
):
    all_targets.generator = None
    write, outcomes = Outcome.write_failures, []

    def shard(number):
        outcomes.append(
            execute(all_targets, tmp_path / "store", tmp_path / "run", shard=f"{number}/2")
        )

    def meanwhile(self, folder):
        # The first shard has taken its last look; the other ends before it does.
        monkeypatch.setattr(Outcome, "write_failures", write)
        shard(2)
        write(self, folder)

    monkeypatch.setattr(Outcome, "write_failures", meanwhile)
    shard(1)
    assert [outcome.collected for outcome in outcomes] == [False, True]
    machines = pd.read_csv(tmp_path / "run/clips.csv")["machine"].unique()
    assert sorted(machines) == ["bearing", "fan", "valve"]


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
    # Of a process that imported it first.
    code = (
        "import commands; print({'hydra', 'lightning'} & "
        "commands.loaded_with['fsasd.pipeline.execute'])"
    )
    done = commands.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "{'lightning'}\n", done.stderr


def test_each_detector_has_what_is_known_of_it(experiment, tmp_path):
    outcome = execute(experiment, tmp_path / "store", tmp_path / "run")
    folder = tmp_path / "run/models/bearing/section_00"
    about = About.read(folder)
    assert (about.machine, about.section, about.detector) == ("bearing", "00", "KNN")
    assert about.training.clips == 16
    assert about.training.domains == {"source": 12, "target": 4}
    metrics = pd.read_csv(tmp_path / "run/metrics.csv").iloc[0]
    assert about.metrics["pauc"] == pytest.approx(metrics["pauc"])
    (artifact,) = outcome.of("detect").values()
    assert about.provenance["key"] == artifact.name.rpartition("-")[2]
    chosen = pd.read_csv(tmp_path / "run/selection.csv").query("chosen")
    assert about.setting == ({} if chosen["default"].item() else {"k": chosen["param.k"].item()})
    card = (folder / "README.md").read_text()
    threshold = load(folder).threshold
    assert f"score is above {threshold:.6g}: about 10 % of normal recordings" in card
    assert about.choice in card


def test_each_detector_has_the_ranges_of_its_recordings(experiment, tmp_path):
    execute(experiment, tmp_path / "store", tmp_path / "run")
    bearing = experiment.data.machine("bearing").where(split="train", label="normal")
    profile = load(tmp_path / "run/models/bearing/section_00").profile
    assert profile == Profile.of(inspect(bearing))
    longer = inspect(bearing).assign(seconds=2.5 * profile.seconds[1])
    assert [found.kind for found in profile.differences(longer)] == ["length"]
