"""Sweeps through Hydra's launchers, whose processes have loaded nothing of fsasd."""

import importlib.util
import os
import sys

import commands
import pandas as pd
import pytest
import slurm

PACKAGES = {
    "joblib": "joblib", "submitit_local": "submitit", "slurm": "submitit", "ray": "ray",
}  # fmt: skip
NIGHTLY = [pytest.param(name, marks=pytest.mark.nightly) for name in ("submitit_local", "ray")]

SCRIPT = "import sys; from fsasd.cli.commands import fsasd; sys.exit(fsasd())"
"""As installed."""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "slurm", *NIGHTLY])
def test_jobs_share_folder_store_and_beginning(tmp_path, launcher):
    if importlib.util.find_spec(f"hydra_plugins.hydra_{PACKAGES[launcher]}_launcher") is None:
        pytest.skip(f"hydra-{PACKAGES[launcher]}-launcher is not installed")
    command = [
        sys.executable, "-c", SCRIPT, "-m", f"hydra/launcher={launcher}",
        "data=factory_tiny", "generator=none", "detector=knn", "detector.k=1,2",
        "stages=[detect]", "hydra.job.chdir=true",
    ]  # fmt: skip
    if launcher == "submitit_local":
        command += ["hydra.launcher.timeout_min=5"]
    if launcher == "slurm":
        command += ["hydra.launcher.partition=gpu"]
    if launcher == "ray":
        command += ["+hydra.launcher.ray.init.num_cpus=1"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FSASD")}
    environment |= {"OMP_NUM_THREADS": "1", "RAY_DISABLE_MEMORY_MONITOR": "1"}
    if launcher == "slurm":
        environment |= slurm.install(tmp_path / "slurm")
    done = commands.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (path for path in (tmp_path / "outputs").iterdir() if path.name != "store")
    table = pd.read_csv(folder / "sweep.csv")
    assert table["detector.k"].tolist() == [1, 2]
    assert table["reason"].isna().all()
    assert (tmp_path / "outputs" / "store").is_dir()
    assert not list(folder.glob("*/outputs"))
    if launcher == "slurm":
        script = (tmp_path / "slurm" / "script").read_text()
        asked = ["array=0-1%2", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB", "partition=gpu",
                 "time=1440", "signal=USR2@120"]  # fmt: skip
        assert [option for option in asked if f"#SBATCH --{option}\n" not in script] == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", pytest.param("slurm", marks=pytest.mark.nightly)])
def test_each_job_of_a_sweep_may_be_of_two_processes(tmp_path, launcher):
    # Lightning starts the second process by the name of the module.
    command = [
        sys.executable, "-m", "fsasd.cli.main", "-m", "experiment=tiny", "stages=[finetune]",
        "trainer=ddp_cpu", "seed=0,1", "store=store", "hydra.sweep.dir=sweep",
        "trainer.enable_progress_bar=false",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FSASD")}
    environment |= {"OMP_NUM_THREADS": "1"}
    if launcher == "slurm":
        command += ["hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2"]
        environment |= slurm.install(tmp_path / "slurm")
    done = commands.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([*tmp_path.glob("store/finetune/*/provenance.json")]) == 2
    for job in ("0", "1"):
        log = (tmp_path / "sweep" / job / "run.log").read_text()
        assert "on each of 2 devices" in log
        assert log.count("finetune: building") == 1
