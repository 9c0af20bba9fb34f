"""``fsasd plan``: what would be built, why, and what that takes."""

import shutil

import pandas as pd
import pytest
from hydra import compose, initialize_config_module

import fsasd.cli.run as app
from fsasd.cli.plan import print_plan
from fsasd.data.names import SectionId
from fsasd.pipeline.plan import Lookup
from fsasd.pipeline.runner import Runner
from fsasd.pipeline.stage import Stage
from fsasd.store.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def fsasd(factory, tmp_path, capsys):
    def run(*overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            cfg = compose(
                "config",
                [
                    "experiment=tiny", "data=dcase", f"data.root={factory}", "detector=knn",
                    "trainer.enable_progress_bar=false", f"store={tmp_path}/store", *overrides,
                ],
            )  # fmt: skip
        app.run(cfg, tmp_path / "run")
        return capsys.readouterr().out

    return run


def test_it_builds_nothing_and_says_what_a_run_would(fsasd, tmp_path):
    said = fsasd("generator=transforms", "plan=true")
    assert "5 of 5 artifacts to build" in said
    assert "bearing section 00" in said
    assert not list((tmp_path / "store").glob("detect/*/*"))
    assert not (tmp_path / "run").exists()
    fsasd("generator=transforms")
    assert "0 of 5 artifacts to build" in fsasd("generator=transforms", "plan=true")
    assert (tmp_path / "run" / "metrics.csv").is_file()
    said = fsasd("generator=transforms", "plan=true", "selection.objective=auc")
    rows = {
        line.split()[0]: line
        for line in said.splitlines()
        if "section 00" in line or "rule" in line
    }
    assert "reuse" in rows["curve"]
    assert "selection.objective mean -> auc" in rows["rule"]
    assert "rule before it" in rows["detect"]
    assert "2 of 5 artifacts to build: about" in said


def test_a_fine_tuning_has_an_estimate_before_the_first(fsasd):
    said = fsasd("plan=true")
    (line,) = [line for line in said.splitlines() if line.startswith("finetune")]
    assert "build" in line
    assert line.split()[-1] == "MB"


def test_what_is_not_asked_for_and_not_there_is_missing(fsasd):
    said = fsasd("plan=true", "stages=[detect]", "generator=transforms")
    (line,) = [line for line in said.splitlines() if line.startswith("synthesise")]
    assert "missing" in line


@pytest.mark.nightly
def test_what_nothing_that_is_built_reads_is_not_needed(fsasd, tmp_path):
    fsasd("generator=transforms")
    shutil.rmtree(tmp_path / "store/synthesise")
    options = ["stages=[detect,report]", "generator=transforms"]
    said = fsasd("plan=true", *options)
    (line,) = [line for line in said.splitlines() if line.startswith("synthesise")]
    assert "not needed" in line
    assert "0 of 5 artifacts to build" in said
    assert "Official score" in fsasd(*options)


def test_many_sections_of_one_action_share_a_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fsasd.cli.plan.LISTED", 4)
    store, shared = Store(tmp_path / "store"), _Build("shared", 1)
    built = [_Build("detect", 1, shared, f"m{i}") for i in range(3)]
    Runner(Lookup(store), {"shared", "detect"}).run([shared, *built])
    changed = [_Build("detect", 2, shared, f"m{i}") for i in range(1)]
    new = [_Build("detect", 1, shared, f"m{i}") for i in range(3, 1203)]
    table = print_plan(
        [shared, *changed, *built[1:], *new], Lookup(store), {"shared", "detect"}, tmp_path
    )
    printed = capsys.readouterr().out
    rows = {tuple(line.split()[:4]) for line in printed.splitlines()}
    assert ("shared", "all", "machines", "reuse") in rows
    assert ("detect", "1,201", "sections", "build") in rows
    assert ("detect", "m1", "section", "00,") in rows
    assert "1: value 1 -> 2" in printed
    assert "1201 of 1204 artifacts to build" in printed
    assert len(printed.splitlines()) < 15
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "plan.csv", keep_default_na=False)[["stage", "section", "action"]],
        table[["stage", "section", "action"]],
        check_dtype=False,
    )


class _Build(Stage):
    version = 1

    def __init__(self, name, value, shared=None, machine=None):
        super().__init__(
            {"shared": shared} if shared else {}, SectionId(machine, "00") if machine else None
        )
        self.name, self.value = name, value

    def spec(self):
        return {"value": self.value}

    def build(self, folder, inputs):
        (folder / "value").write_text(str(self.value))

    def publish(self, artifact, run):
        return
