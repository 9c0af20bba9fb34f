"""Runs and sweeps that signals end: exit codes, and the same command that goes on."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import psutil
import pytest
import several_ranks
import torch

pytestmark = pytest.mark.slow

SCRIPT = "import sys; from fsasd.cli.commands import fsasd; sys.exit(fsasd())"
"""As installed."""

STEPS = 24


def command(folder, *settings):
    # Lightning starts other ranks by a module, or a file.
    program = ["-c", SCRIPT] if "-m" in settings else ["-m", "fsasd.cli.main"]
    return [
        sys.executable, *program, *settings, "experiment=tiny", "trainer.enable_progress_bar=false",
        f"trainer.max_steps={STEPS}", "trainer.val_check_interval=4", "callbacks=none",
        "stages=[finetune]", f"store={folder / 'store'}",
    ]  # fmt: skip


def start(folder, *settings):
    """Start a command as the first process of a group; its output goes to a file."""
    with (folder / "output.txt").open("ab") as output:
        return commands.start(
            command(folder, *settings), stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def wait_for_checkpoint(process, folder, number=1):
    """Wait until as many trainings as that have written one; return those that go on."""
    deadline = time.monotonic() + 300
    while True:
        trainings = list((folder / "store").glob("finetune/*"))
        partial = list((folder / "store").glob("finetune/*.partial/checkpoints/last.ckpt"))
        if partial and len([t for t in trainings if t.is_dir()]) == number:
            return partial
        assert process.poll() is None, (folder / "output.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def models(folder):
    return list((folder / "store").glob("finetune/*/model"))


def finish(folder, *settings):
    """Run the same command to its end."""
    process = start(folder, *settings)
    assert process.wait(600) == 0, (folder / "output.txt").read_text()[-3000:]
    return (folder / "output.txt").read_text()


@pytest.mark.nightly
@pytest.mark.parametrize("group", [False, True], ids=["rank 0 alone", "the group"])
def test_two_ranks_end_together_with_one_checkpoint(tmp_path, group):
    ranks = ("trainer=ddp_cpu", f"hydra.run.dir={tmp_path / 'run'}")
    process = start(tmp_path, *ranks)
    (last,) = wait_for_checkpoint(process, tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
    assert process.wait(100) == 143, (tmp_path / "output.txt").read_text()[-3000:]
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not models(tmp_path)
    ended = torch.load(last.with_name("interrupted.ckpt"), weights_only=True)["global_step"]
    output = (tmp_path / "output.txt").read_text()
    assert f"a checkpoint of step {ended} was written" in output
    assert "ended by SIGTERM: the same command goes on from what" in output
    assert "resuming from" in several_ranks.run_command(command(tmp_path, *ranks))
    assert len(models(tmp_path)) == 1


@pytest.mark.nightly
def test_a_sweep_that_was_ended_is_completed_by_the_same_command(tmp_path):
    sweep = ("-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    process = start(tmp_path, *sweep)
    wait_for_checkpoint(process, tmp_path, number=2)
    done = models(tmp_path)
    assert len(done) == 1
    process.terminate()
    assert process.wait(100) == 143, (tmp_path / "output.txt").read_text()[-3000:]
    began = done[0].stat().st_mtime_ns
    finish(tmp_path, *sweep)
    assert len(models(tmp_path)) == 2
    assert done[0].stat().st_mtime_ns == began


def end_alone(folder, launcher, *settings):
    """Send SIGTERM to the command of a sweep whose two jobs train side by side.

    Return the sweep's settings, and the processes that it had started.
    """
    plugin = f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"
    if importlib.util.find_spec(plugin) is None:
        pytest.skip(f"{plugin} is not installed")
    sweep = ("-m", f"hydra/launcher={launcher}", *settings, "seed=0,1",
             f"hydra.sweep.dir={folder / 'sweep'}")  # fmt: skip
    process = start(folder, *sweep)
    wait_for_checkpoint(process, folder, number=2)
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.wait(100) == 143, (folder / "output.txt").read_text()[-3000:]
    output = (folder / "output.txt").read_text()
    assert "\nended by SIGTERM\n" in output
    assert "2 of 2 jobs have no result:" in output
    assert "The same command goes on from what the store holds." in output
    return sweep, started


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("launcher", "settings"),
    [("joblib", ["hydra.launcher.n_jobs=2"]),
     ("ray", ["+hydra.launcher.ray.init.num_cpus=2",
              "+hydra.launcher.ray.init.include_dashboard=false"])],
)  # fmt: skip
def test_workers_of_a_launcher_end_with_the_command(tmp_path, launcher, settings):
    sweep, started = end_alone(tmp_path, launcher, *settings)
    assert not psutil.wait_procs(started, timeout=20)[1]
    assert not models(tmp_path)
    finish(tmp_path, *sweep)
    assert len(models(tmp_path)) == 2


def test_jobs_of_submitit_outlive_the_command(tmp_path):
    _, started = end_alone(tmp_path, "submitit_local", "hydra.launcher.timeout_min=20")
    assert "it runs on" in (tmp_path / "output.txt").read_text()
    assert not psutil.wait_procs(started, timeout=300)[1]
    assert len(models(tmp_path)) == 2


@pytest.mark.nightly
def test_a_job_of_submitit_that_is_preempted_goes_on_from_its_checkpoint(tmp_path):
    if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        pytest.skip("hydra-submitit-launcher is not installed")
    process = start(
        tmp_path, "-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=20",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    (last,) = wait_for_checkpoint(process, tmp_path)
    jobs = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "submitit.core._submit" in child.cmdline()
    ]
    (job,) = jobs
    # What submitit's controller sends before the end of a job's time.
    job.send_signal(signal.SIGUSR2)
    assert process.wait(300) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    logs = "".join(path.read_text() for path in (tmp_path / "sweep").rglob("*") if is_log(path))
    assert "Requeued job" in logs
    assert f"resuming from {last.with_name('interrupted.ckpt')}" in logs
    assert len(models(tmp_path)) == 1


def is_log(path: Path) -> bool:
    return path.suffix in (".out", ".err", ".log")
