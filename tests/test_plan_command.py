"""``fsasd plan``: what would be built, why, and what that takes."""

import shutil

import pytest
from hydra import compose, initialize_config_module

import fsasd.cli.run as app


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
    fsasd("generator=transforms")
    assert "0 of 5 artifacts to build" in fsasd("generator=transforms", "plan=true")
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


def test_what_nothing_that_is_built_reads_is_not_needed(fsasd, tmp_path):
    fsasd("generator=transforms")
    shutil.rmtree(tmp_path / "store/synthesise")
    options = ["stages=[detect,report]", "generator=transforms"]
    said = fsasd("plan=true", *options)
    (line,) = [line for line in said.splitlines() if line.startswith("synthesise")]
    assert "not needed" in line
    assert "0 of 5 artifacts to build" in said
    assert "Official score" in fsasd(*options)
