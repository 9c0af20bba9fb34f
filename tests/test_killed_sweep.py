"""Sweeps that are killed at random moments end complete, with nothing computed twice."""

import importlib.util
import os
import random

import commands
import pytest

from benchmarks.killed_sweep import DETECTORS, LAUNCHERS, Sweep, run

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

KILLS = int(os.environ.get("FSASD_TEST_SWEEP_KILLS", "0"))
"""Kills of the whole sweep, of 8 detectors x 3 seeds under each launcher; by default, of a small
one under two of them."""

DEFAULT = ["basic", "joblib"]
PLUGINS = {"submitit": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}


@pytest.mark.parametrize("launcher", LAUNCHERS if KILLS else DEFAULT)
def test_killed_at_random_moments_a_sweep_ends_complete(tmp_path, launcher):
    plugin = PLUGINS.get(launcher)
    if plugin and importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin} is not installed")
    detectors, seeds = (DETECTORS, 3) if KILLS else (DETECTORS[:2], 2)
    sweep = Sweep(tmp_path, launcher, detectors, seeds, popen=commands.start)
    problems = run(sweep, KILLS or 2, random.Random(launcher))
    assert not problems, (tmp_path / "command.log").read_text()[-5000:]
    # It would also be so if nothing had been killed while it built.
    assert len([begun for begun in sweep.builds if begun]) > 1
