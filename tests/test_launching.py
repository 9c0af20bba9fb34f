"""What runs jobs side by side, and what is refused because of it."""

import contextlib
import errno
import fcntl
import re
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.types import RunMode

import fsasd.cli.main  # noqa: F401, registers the resolvers of the configuration
from fsasd.cli import commands, launching
from fsasd.runtime.launchers import parallel_launcher

pytestmark = pytest.mark.slow


def configuration(launcher, *overrides, mode=RunMode.MULTIRUN):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        asked = [f"hydra/launcher={launcher}", *overrides]
        cfg = compose("config", asked, return_hydra_config=True)
    cfg.hydra.mode = mode
    return cfg, cfg.hydra


@pytest.mark.parametrize(
    ("launcher", "parallel"),
    [("basic", ""), ("joblib", "joblib"), ("submitit_local", "submitit_local"),
     ("submitit_slurm", ""), ("slurm", "")],
)  # fmt: skip
def test_the_launcher_that_runs_jobs_side_by_side_is_named(launcher, parallel):
    _, hydra_config = configuration(launcher)
    assert launching.parallel(hydra_config) == parallel


def test_a_run_that_is_no_sweep_has_no_launcher():
    _, hydra_config = configuration("joblib", mode=RunMode.RUN)
    assert launching.parallel(hydra_config) == ""


def test_a_job_beside_others_leases_a_gpu_and_knows_its_launcher(monkeypatch):
    leases = []

    @contextlib.contextmanager
    def lease():
        leases.append(1)
        yield "0"

    monkeypatch.setattr(launching, "leased", lease)
    for launcher, n_leases in [("joblib", 1), ("submitit_local", 1), ("basic", 0), ("slurm", 0)]:
        leases.clear()
        with launching.job(*configuration(launcher)):
            assert parallel_launcher() == ("" if n_leases == 0 else launcher)
        assert len(leases) == n_leases, launcher
    with launching.job(*configuration("joblib", mode=RunMode.RUN)):
        assert parallel_launcher() == ""


BESIDE_OTHERS = [
    ["trainer=ddp"],
    ["trainer=ddp_cpu"],
    ["trainer=fsdp"],
    ["trainer.devices=2"],
    ["trainer.devices=[0,1]"],
    ["trainer.devices='0,1'"],
    ["trainer.num_nodes=2"],
    ["trainer.strategy=ddp", "trainer.devices=auto"],
]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
@pytest.mark.parametrize("overrides", BESIDE_OTHERS)
def test_several_processes_for_a_job_beside_others_are_refused(launcher, overrides):
    cfg, hydra_config = configuration(launcher, *overrides)
    refused = f"a job of hydra/launcher={launcher} is one process with one device.*without"
    with pytest.raises(ValueError, match=refused):
        launching.check_processes(cfg, hydra_config)
    # One job at a time may be of several processes.
    for other, mode in [("basic", RunMode.MULTIRUN), (launcher, RunMode.RUN)]:
        launching.check_processes(*configuration(other, *overrides, mode=mode))


@pytest.mark.parametrize(
    "overrides",
    [[], ["trainer=gpu"], ["trainer.devices=-1"], ["trainer.devices=[3]"],
     ["trainer.devices=1", "trainer.strategy=ddp"]],
)  # fmt: skip
def test_one_process_for_a_job_beside_others_is_not(overrides):
    launching.check_processes(*configuration("joblib", *overrides))


def test_of_slurm_as_many_tasks_are_expected_as_devices():
    overrides = ["trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"]
    with pytest.raises(ValueError, match=re.escape("tasks_per_node=1 on hydra.launcher.nodes=1")):
        launching.check_processes(*configuration("slurm", *overrides))
    overrides += ["hydra.launcher.tasks_per_node=4", "hydra.launcher.nodes=2"]
    launching.check_processes(*configuration("slurm", *overrides))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=0,0"], "seed=0,0: expected each value once, found 0 twice"),
        (["detector=knn,lof,knn,knn"], "detector=knn,lof,knn,knn: expected each value once, "
                                       "found knn 3 times"),
        (["hydra/launcher=joblib", "trainer=ddp_cpu", "detector=knn,lof"],
         "trainer.devices=2: a job of hydra/launcher=joblib is one process with one device"),
        (["hydra/launcher=slurm", "detector=knn,lof"],
         "hydra/launcher=slurm: expected a machine that submits jobs to SLURM, found no command"),
        (["--cfg", "job"], "Only one of --run, --multirun, --cfg"),
    ],
)  # fmt: skip
def test_a_sweep_is_refused_before_its_first_job(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["fsasd", "-m", "hydra.sweep.dir=sweep", *arguments])
    with pytest.raises(SystemExit) as ended:
        sys.exit(commands.run("fsasd"))
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith(said)
    assert not [*Path("sweep").glob("*/run.log")]


def flock_of_no_disk(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def test_of_stores_that_are_swept_over_each_is_its_jobs_to_check(monkeypatch):
    monkeypatch.setattr(fcntl, "flock", flock_of_no_disk)
    cfg, hydra_config = configuration("basic")
    hydra_config.overrides.task = ["store=here,there"]
    launching._check_store(cfg)


def test_a_sweep_with_a_store_without_locks_is_refused_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcntl, "flock", flock_of_no_disk)
    arguments = ["hydra.sweep.dir=sweep", "seed=0,1", "store=there"]
    monkeypatch.setattr(sys, "argv", ["fsasd", "-m", *arguments])
    with pytest.raises(SystemExit, match="1"):
        commands.run("fsasd")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'there'}: its disk has no file locks")
    assert not [*Path("there").iterdir(), *Path("sweep").glob("*/run.log")]
