"""Which launchers run jobs side by side, and what their jobs do about it."""

import pytest
from hydra import compose, initialize_config_module
from hydra.types import RunMode

from fsasd.cli import launching


def hydra_config(launcher, mode=RunMode.MULTIRUN):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    cfg.hydra.mode = mode
    return cfg.hydra


@pytest.mark.parametrize(
    ("launcher", "parallel"),
    [("basic", ""), ("joblib", "joblib"), ("submitit_local", "submitit_local"),
     ("submitit_slurm", "")],
)  # fmt: skip
def test_the_launcher_that_runs_jobs_side_by_side_is_named(launcher, parallel):
    assert launching.parallel(hydra_config(launcher)) == parallel


def test_a_run_that_is_no_sweep_has_no_launcher():
    assert launching.parallel(hydra_config("joblib", RunMode.RUN)) == ""
