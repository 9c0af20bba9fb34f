"""Searches with Optuna: refused before the first trial, killed and resumed."""

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import commands
import pandas as pd
import pytest
import yaml
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from fsasd.cli import resolvers, search
from fsasd.report.runs.status import RUNNING, Status
from fsasd.store.provenance import StoreError

pytestmark = pytest.mark.slow

optuna = pytest.importorskip("optuna")

SPACE = "detector.k=range(1,3)"
ASKED = ["data=factory_tiny", "generator=transforms", "synthesis.clips_per_label=4",
         "detector=knn", "objective=synthetic/objective", SPACE]  # fmt: skip


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begin a search, as Hydra does before its first trial; return its sweeper's settings."""
    monkeypatch.chdir(tmp_path)
    resolvers.register()

    def of(*overrides):
        search._locks.clear()
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            config = GlobalHydra.instance().hydra.compose_config(
                "config", ["search=optuna", *overrides], RunMode.MULTIRUN,
                from_shell=False, with_log_configuration=False,
            )  # fmt: skip
            search.Search().on_multirun_start(config)
        return config.hydra.sweeper

    return of


@pytest.fixture
def refused(begin, capsys):
    """Begin a search that is refused; return what it says."""

    def of(*overrides):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="1"):
            begin(*overrides)
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return of


def study():
    return optuna.load_study(study_name="search", storage="sqlite:///outputs/search/study.db")


def test_a_search_without_a_number_to_optimise_is_refused(refused):
    said = refused("data=factory_tiny", SPACE)
    assert "needs one number to optimise, it is null: set objective=validation/objective" in said
    assert "found objective=loss" in refused("data=factory_tiny", "objective=loss", SPACE)


def test_an_objective_that_no_trial_will_have_is_refused(refused):
    assert "Set synthesis.references=true" in refused(*ASKED, "objective=validation/objective")
    assert "Set a generator" in refused(*ASKED, "generator=none")
    assert not Path("outputs/search/study.db").exists()


def test_what_only_some_trials_lack_is_theirs_to_say(begin):
    assert begin(*ASKED, "generator=none,transforms").n_trials == 20


def test_the_direction_is_the_objectives(begin, refused):
    assert begin(*ASKED).direction == "maximize"
    said = refused(*ASKED, "hydra.sweeper.direction=minimize")
    assert "hydra.sweeper.direction=minimize: objective=synthetic/objective" in said


def test_processes_of_one_trial_would_choose_settings_of_their_own(refused):
    said = refused(*ASKED, "trainer.accelerator=cpu", "trainer.devices=2")
    assert "2 processes a trial" in said


@pytest.mark.nightly
def test_another_command_is_another_study(begin, refused):
    begin(*ASKED)
    begin(*ASKED, "store=elsewhere", "runner=serial", "hydra.sweeper.n_trials=3")
    assert "begun with seed: not set, now it is 1" in refused(*ASKED, "seed=1")
    wider = [one for one in ASKED if one != SPACE] + ["detector.k=range(1,9)"]
    said = refused(*wider)
    assert "begun with detector.k: range(1,3), now it is range(1,9)" in said
    assert "Set hydra.sweeper.study_name" in said
    begin(*wider, "hydra.sweeper.study_name=wider")


def test_what_a_missing_package_is_needed_for_is_said(refused, monkeypatch):
    def check(*_):
        raise ImportError("runner=ray: pip install 'fsasd[ray]'") from ImportError("No module ray")

    monkeypatch.setattr(search, "_check_first_job", check)
    assert refused(*ASKED) == "runner=ray: pip install 'fsasd[ray]'"


def test_a_study_on_a_disk_without_locks_is_refused(tmp_path, monkeypatch):
    # A file that stands for a lock would outlive a search that is killed.
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(StoreError, match="its disk has no file locks"):
        search._lock(tmp_path / "study.db")


def test_two_searches_at_work_on_one_study_are_refused(begin, refused):
    begin(*ASKED)
    code = (
        "import filelock; "
        "print(filelock.FileLock('outputs/search/study.db.lock').acquire(timeout=0) and '')"
    )
    held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Timeout" in held.stderr


@pytest.mark.nightly
def test_trials_that_were_not_finished_are_the_next(begin):
    first = begin(*ASKED, "hydra.sweeper.n_trials=5", "seed=3")
    assert (first.n_trials, first.sampler.seed) == (5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done, failed, killed = [study().ask() for _ in range(3)]
        values = [trial.suggest_int("detector.k", 1, 3) for trial in (done, failed, killed)]
    study().tell(done, 0.5)
    study().tell(failed, state=optuna.trial.TrialState.FAIL)
    second = begin(*ASKED, "hydra.sweeper.n_trials=5", "seed=3")
    # One is done, one failed, and one is to be repeated: of five, three are left.
    assert second.n_trials == 3
    # A sampler with the first seed would draw the first trials again.
    assert second.sampler.seed == 3 + 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert study().ask().suggest_int("detector.k", 1, 3) == values[2]
    assert begin(*ASKED, "hydra.sweeper.n_trials=1", "seed=3").n_trials == 0


def command(*overrides, cwd):
    return commands.start(
        [sys.executable, "-m", "fsasd.cli.main", *overrides], cwd=cwd,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.nightly
@pytest.mark.slow
def test_a_search_that_is_killed_goes_on(tmp_path):
    asked = ["-m", "search=optuna", *ASKED, "hydra.sweeper.n_trials=3"]
    storage = f"sqlite:///{tmp_path / 'outputs' / 'search' / 'study.db'}"
    first = command(*asked, cwd=tmp_path)
    deadline = time.monotonic() + 300
    # The second trial takes seconds, and is killed as soon as it runs.
    while not any(
        (status.number, status.state) == (1, RUNNING)
        for path in tmp_path.glob("outputs/search/*/*/status.json")
        if (status := Status.read(path.parent)) is not None
    ):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    killed = optuna.load_study(study_name="search", storage=storage).trials
    assert [trial.state.name for trial in killed] == ["COMPLETE", "RUNNING"]
    second = command(*asked, cwd=tmp_path)
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 0, said
    assert "1 of 3 trials are done, 1 were interrupted and are repeated" in said
    assert "no result" not in said
    trials = optuna.load_study(study_name="search", storage=storage).trials
    done = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(done) == 3
    assert len(trials) == 4
    assert trials[2].params == killed[1].params
    assert all(1 <= t.params["detector.k"] <= 3 for t in done)
    best = yaml.safe_load((tmp_path / "outputs/search/optimization_results.yaml").read_text())
    assert best["best_value"] == max(t.value for t in done)
    table = pd.read_csv(tmp_path / "outputs/search/sweep.csv")
    files = sorted(tmp_path.glob("outputs/search/*/*/status.json"))
    states = "\n".join(f"{path}: {path.read_text()}" for path in files)
    assert table["state"].tolist() == ["done"] * 3, f"{table.to_string()}\n{states}"
