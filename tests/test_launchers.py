"""Sweeps through Hydra's launchers, whose processes have loaded nothing of fsasd."""

import importlib.util
import os
import subprocess
import sys

import commands
import pandas as pd
import pytest
import slurm

PACKAGES = {
    "joblib": "joblib", "submitit_local": "submitit", "slurm": "submitit", "ray": "ray",
}  # fmt: skip
NIGHTLY = [
    pytest.param(name, marks=pytest.mark.nightly) for name in ("joblib", "submitit_local", "ray")
]

SCRIPT = "import sys; from fsasd.cli.commands import fsasd; sys.exit(fsasd())"
"""As installed."""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", *NIGHTLY])
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
    environment |= {"OMP_NUM_THREADS": "1"}
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


CLUSTER = """
import ray, sys
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cluster(tmp_path_factory):
    """The address of a cluster of Ray that was started elsewhere."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FSASD")}
    environment |= {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], cwd=tmp_path_factory.mktemp("elsewhere"), text=True,
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.mark.slow
def test_jobs_on_a_cluster_that_runs_are_those_of_the_command(tmp_path, monkeypatch, cluster):
    # Its workers inherit neither folder nor variables.
    monkeypatch.setenv("FSASD_STORE", "mine")
    done = commands.run(
        [sys.executable, "-c", SCRIPT, "-m", "hydra/launcher=ray",
         f"hydra.launcher.ray.init.address={cluster}", "data=factory_tiny", "generator=none",
         "detector=knn", "detector.k=1,2", "stages=[detect]", "hydra.sweep.dir=sweep"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] detector.k=" in done.stderr
    assert (tmp_path / "mine" / "detect").is_dir()
    assert pd.read_csv(tmp_path / "sweep" / "sweep.csv")["detector.k"].tolist() == [1, 2]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("launcher", ["basic", "slurm"])
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
