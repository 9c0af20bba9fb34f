"""One process or two: the same loss curve, weights and, byte for byte, synthetic clips."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import psutil
import pytest
import several_ranks
import small_pipelines
import torch
import two_processes

SCRIPT = Path(two_processes.__file__)

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def run(root, folder, devices, checkpoint="nano"):
    if devices == 1:
        # Without Python's start and all imports, which take longer than the run.
        threads = torch.get_num_threads()
        two_processes.main(root, folder, devices, checkpoint)
        torch.set_num_threads(threads)
        return
    arguments = (root, folder, devices, checkpoint)
    several_ranks.run_command([sys.executable, SCRIPT, *map(str, arguments)], devices)


def seconds_to_end(parent, child, seconds):
    """Kill a process, and return within how many seconds the other one ends."""
    os.kill(parent, signal.SIGKILL)
    begin = time.monotonic()
    gone, _ = psutil.wait_procs([psutil.Process(child)], timeout=seconds)
    assert gone, f"still there after {seconds} s"
    return time.monotonic() - begin


FAMILIES = ("nano", "audioldm2", "stable_audio3", "stable_audio_open")
of_nano = pytest.mark.parametrize("runs", ["nano"], indirect=True)
of_each_family = pytest.mark.parametrize("runs", FAMILIES, indirect=True)
TRAININGS = ["whole", "resumed", "sharded"]
"""Without a stop; resumed after two of four steps; that with weights sharded over the processes."""


@pytest.fixture(scope="module")
def runs(request, factory, tmp_path_factory):
    """What one and two processes leave, of one family of models."""
    checkpoint = family = request.param
    if family != "nano":
        folder = tmp_path_factory.mktemp("checkpoint") / family
        checkpoint = getattr(small_pipelines, family)(folder)
    folders = {devices: tmp_path_factory.mktemp(f"{family}-of-{devices}") for devices in (1, 2)}
    for devices, folder in folders.items():
        run(factory, folder, devices, checkpoint)
    return folders


def curve(folder):
    """Return the losses of the steps, and the metrics at the end."""
    return json.loads((folder / "losses.json").read_text())


@of_each_family
@pytest.mark.parametrize("training", TRAININGS)
def test_two_processes_have_the_loss_curve_of_one(runs, training):
    (one, metrics_one), (two, metrics_two) = curve(runs[1] / "whole"), curve(runs[2] / training)
    assert len(one) == 4
    assert two == pytest.approx(one, rel=1e-4)
    losses = {k: v for k, v in metrics_two.items() if not k.startswith("first_shot/")}
    assert losses == pytest.approx({k: metrics_one[k] for k in losses}, rel=1e-3)
    assert {"val/loss", "val/machine/fan", "val_raw/label/anomaly"} <= losses.keys()


@of_each_family
@pytest.mark.parametrize("training", TRAININGS)
def test_two_processes_have_the_weights_of_one(runs, training):
    (one, average_one), (two, average_two) = (
        torch.load(folder / "weights.pt") for folder in (runs[1] / "whole", runs[2] / training)
    )
    # Where a gradient is nothing but rounding, AdamW takes steps of the learning rate all the same:
    # the biases in front of the group norms of the small pipelines.
    near = {"atol": 1e-4 if "nano" in runs[1].name else 1e-3, "rtol": 1e-2}
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, **near, msg=name)
    for a, b in zip(average_one, average_two, strict=True):
        torch.testing.assert_close(b, a, **near)


@of_each_family
def test_half_precision_learns_the_same_but_for_its_rounding(runs):
    (one, _), (two, _) = curve(runs[1] / "whole"), curve(runs[2] / "bf16")
    assert two == pytest.approx(one, rel=0.05)
    assert two != pytest.approx(one, rel=1e-5)
    weights, average = torch.load(runs[2] / "bf16" / "weights.pt")
    assert {weight.dtype for weight in [*weights.values(), *average]} == {torch.float32}


@of_nano
def test_two_processes_share_the_machines_that_are_judged(runs):
    names = [sorted(p.read_text() for p in folder.glob("judged-*")) for folder in runs.values()]
    assert names == [["fan valve"], ["fan", "valve"]]
    one, two = (
        {k: v for k, v in curve(folder / "whole")[1].items() if k.startswith("first_shot/")}
        for folder in runs.values()
    )
    assert {"first_shot/auc", "first_shot/regret"} <= one.keys()
    assert two == pytest.approx(one, abs=0.05)


@of_nano
def test_latents_are_computed_once_by_all_together(runs):
    names = [
        sorted(str(p.relative_to(folder)) for p in folder.rglob("features/*/*.npy"))
        for folder in runs.values()
    ]
    assert names[0] == names[1]
    for path in runs[1].rglob("features/*/*.npy"):
        other = runs[2] / path.relative_to(runs[1])
        np.testing.assert_allclose(np.load(path), np.load(other), atol=0.02)


@of_nano
def test_two_processes_write_the_clips_of_one_byte_for_byte(runs):
    manifests = [pd.read_csv(folder / "synthetic/manifest.csv") for folder in runs.values()]
    pd.testing.assert_frame_equal(*manifests)
    assert len(manifests[0]) == 12
    for wav in manifests[0]["wav"]:
        one, two = ((folder / "synthetic" / wav).read_bytes() for folder in runs.values())
        assert one == two, wav
    assert not list(runs[2].glob("synthetic/rows-*.csv"))


@of_nano
def test_clips_are_the_same_when_a_killed_run_is_resumed(runs, factory, tmp_path):
    """Killed after some clip: of the batches one is whole, one is not, the rest not begun."""
    folder = tmp_path / "synthetic"
    rows = (runs[1] / "synthetic/manifest.csv").read_text().splitlines(keepends=True)
    (folder / "bearing").mkdir(parents=True)
    # Of one of two processes; one alone goes on.
    (folder / "rows-1.csv").write_text("".join(rows[:5]))
    for wav in pd.read_csv(runs[1] / "synthetic/manifest.csv")["wav"][:4]:
        shutil.copy(runs[1] / "synthetic" / wav, folder / wav)
    run(factory, tmp_path, 1)
    manifest = pd.read_csv(folder / "manifest.csv")
    assert len(manifest) == manifest["wav"].nunique() == 12
    wavs = [path.relative_to(folder) for path in folder.rglob("*.wav")]
    assert wavs
    for wav in wavs:
        assert (folder / wav).read_bytes() == (runs[2] / "synthetic" / wav).read_bytes()


# Killed ranks


def fine_tune(store):
    """Two processes that fine-tune for a while."""
    return [
        sys.executable, "-m", "fsasd.cli.main", "experiment=tiny", "trainer=ddp_cpu",
        "trainer.enable_progress_bar=false", "trainer.max_steps=30", "trainer.val_check_interval=5",
        "callbacks.evaluation.every_n_validations=100", "stages=[finetune]", f"store={store}",
        f"hydra.run.dir={store / 'run'}", "hydra.job_logging.root.level=INFO",
    ]  # fmt: skip


def test_when_a_rank_is_killed_the_other_stops_and_the_run_can_go_on(tmp_path):
    store = tmp_path / "store"
    process = commands.start(fine_tune(store), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 200
    while not (checkpoints := list(store.glob("finetune/*.partial/checkpoints/last.ckpt"))):
        assert process.poll() is None, "ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (other,) = [
        child
        for child in psutil.Process(process.pid).children()
        if "fsasd.cli.main" in " ".join(child.cmdline())
    ]
    assert seconds_to_end(other.pid, process.pid, seconds=60) < 60
    process.wait(60)
    assert not list(store.glob("finetune/*/model"))
    before = torch.load(checkpoints[0], weights_only=True)["global_step"]
    assert 5 <= before < 30

    said = several_ranks.run_command(fine_tune(store))
    assert len(list(store.glob("finetune/*/model"))) == 1
    assert "resuming from" in said
    # What was logged before is kept.
    first, second = (
        pd.read_csv(next(store.glob(f"finetune/*/log/version_{attempt}/metrics.csv")))["step"]
        for attempt in range(2)
    )
    assert first.min() < before <= second.min()
    assert second.max() == 29


# Ranks that are started from outside


def test_slurm_starts_all_ranks_at_once(tmp_path):
    """As ``srun --ntasks=2`` does: all of them wait for rank 0 to write the data."""
    variables = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "fsasd", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
        "SLURM_STEP_ID": "0",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "fsasd.cli.main", "experiment=tiny", "trainer=ddp_cpu",
        "generator=audioldm_nano_fast", f"store={tmp_path / 'store'}",
    ]  # fmt: skip
    ranks = [
        commands.start(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **variables, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        output = [process.communicate(timeout=400)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], output
    assert "GLOBAL_RANK: 0, MEMBER: 1/2" in output[0]
    (run,) = (path for path in (tmp_path / "outputs").iterdir() if path.name != "store")
    manifest = pd.read_csv(run / "synthetic" / "manifest.csv")
    assert len(manifest) == 8
    assert all((run / "synthetic" / wav).is_file() for wav in manifest["wav"])
    assert (run / "synthetic" / "quality.csv").is_file()
    assert (run / "metrics.csv").is_file()
    assert len(list(tmp_path.glob("store/finetune/*/model"))) == 1
    assert not list(tmp_path.glob("store/*/*.partial"))


def test_a_rank_ends_with_the_process_that_started_it(tmp_path):
    """Also while a kernel waits, as NCCL's do."""
    wait = (
        "import os, time; os.environ['LOCAL_RANK'] = '1'; import fsasd.runtime.processes as p; "
        "p.end_with_other_ranks(); print('ready', flush=True); time.sleep(600)"
    )
    start = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {wait!r}], "
        "stdout=subprocess.PIPE, text=True); p.stdout.readline(); print(p.pid, flush=True); "
        "p.wait()"
    )
    command = [sys.executable, "-c", start]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert seconds_to_end(parent.pid, child, seconds=30) < 30
