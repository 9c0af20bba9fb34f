"""GPUs are leased by a lock before CUDA starts; ``nvidia-smi`` is a stand-in of the test."""

import multiprocessing
import os
import signal
import stat
import time

import pytest

from fsasd.runtime import devices
from fsasd.runtime.devices import VISIBLE, leased, visible_devices

SPAWN = multiprocessing.get_context("spawn")

LISTED = """GPU 0: NVIDIA A100 (UUID: GPU-aaaa-1)
  MIG 1g.10gb     Device  0: (UUID: MIG-bbbb-1)
  MIG 1g.10gb     Device  1: (UUID: MIG-bbbb-2)
GPU 1: NVIDIA A100 (UUID: GPU-aaaa-2)
GPU 2: NVIDIA A100 (UUID: GPU-cccc-3)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Locks of this test alone, and no variable of this machine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    # Restored after the test, whatever a lease sets.
    monkeypatch.setenv(VISIBLE, "")
    monkeypatch.delenv(VISIBLE)
    return tmp_path


def nvidia_smi(folder, monkeypatch, text, code=0):
    command = folder / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}EOF\nexit {code}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("given", "names"),
    [("", []), ("-1", []), ("3", ["3"]), ("1, 0", ["1", "0"]), ("0,-1,1", ["0"]),
     ("GPU-aaaa,GPU-b", ["GPU-aaaa", "GPU-b"]), ("MIG-GPU-a/1/0", ["MIG-GPU-a/1/0"]),
     ("NoDevFiles", [])],
)  # fmt: skip
def test_given_devices_are_taken_as_they_are_named(monkeypatch, given, names):
    monkeypatch.setenv(VISIBLE, given)
    assert visible_devices() == names


def test_otherwise_all_of_the_machine_by_uuid(machine, monkeypatch):
    nvidia_smi(machine, monkeypatch, LISTED)
    assert visible_devices() == ["MIG-bbbb-1", "MIG-bbbb-2", "GPU-aaaa-2", "GPU-cccc-3"]


def test_a_machine_whose_driver_does_not_answer_has_none(machine, monkeypatch):
    nvidia_smi(machine, monkeypatch, "NVIDIA-SMI has failed\n", code=9)
    assert visible_devices() == []


def test_a_machine_without_gpus_has_nothing_to_lease(machine, monkeypatch):
    monkeypatch.setenv("PATH", str(machine))
    with leased() as name:
        assert name == ""
        assert VISIBLE not in os.environ


def compute(number, folder, names, seconds):
    """Lease, note which, and leave the note while it is leased."""
    os.environ[VISIBLE] = names
    for job in range(2):
        with leased() as name:
            note = folder / f"{name.replace('/', '_')}.in-use"
            with note.open("x"):
                (folder / f"{number}-{job}").write_text(f"{name} {os.environ[VISIBLE]}")
                time.sleep(seconds)
            note.unlink()


def test_parallel_jobs_never_share_a_device_and_workers_keep_theirs(machine):
    processes = [
        SPAWN.Process(target=compute, args=(n, machine, "0,MIG-GPU-a/1/0", 0.3)) for n in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    # A note that was there already would have been an error.
    assert [process.exitcode for process in processes] == [0] * 4
    used = set()
    for number in range(4):
        first, second = ((machine / f"{number}-{job}").read_text() for job in range(2))
        assert first == second
        name, visible = first.split()
        assert name == visible
        used.add(name)
    assert used == {"0", "MIG-GPU-a/1/0"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "GPU-aaaa-2"), ("GPU-aaaa-2", "1"), ("2", "GPU-cc"), ("0", "MIG-bbbb-1"),
     ("GPU-aaaa-1", "MIG-bbbb-1")],
)  # fmt: skip
def test_a_device_by_number_and_by_uuid_is_one(machine, monkeypatch, one, other):
    nvidia_smi(machine, monkeypatch, LISTED)

    class WaitsError(Exception):
        pass

    def pause(seconds):
        raise WaitsError

    monkeypatch.setattr(devices.time, "sleep", pause)
    with leased([one]), leased(["MIG-bbbb-2", other]) as name:
        # The second is leased.
        assert name == "MIG-bbbb-2"
        with pytest.raises(WaitsError), leased([other]):
            pass
    with leased([other]) as name:
        assert name == os.environ[VISIBLE] == other


def test_numbers_of_gpus_that_differ_do_not_say_which_are_meant(machine, monkeypatch):
    nvidia_smi(machine, monkeypatch, LISTED.replace("GPU 1: NVIDIA A100", "GPU 1: NVIDIA T400"))
    expected = r"VISIBLE_DEVICES=1: expected UUIDs .* differ \(NVIDIA A100, NVIDIA T400\)"
    with pytest.raises(ValueError, match=expected), leased(["1"]):
        pass
    with leased(["GPU-aaaa-2"]) as name:
        assert name == "GPU-aaaa-2"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    with leased(["1"]) as name:
        assert name == "1"


def test_a_job_that_is_killed_leaves_its_device(machine, caplog):
    process = SPAWN.Process(target=compute, args=(0, machine, "7", 600))
    process.start()
    while not (machine / "0-0").exists():
        time.sleep(0.05)
    with caplog.at_level("INFO", "fsasd.runtime.devices"):
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with leased(["7"]) as name:
            assert name == "7"
    assert os.environ[VISIBLE] == "7"
    assert "this job computes on GPU 7" in caplog.text


def test_a_job_that_has_to_wait_says_so_once(machine, caplog, monkeypatch):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            held.__exit__(None, None, None)

    monkeypatch.setattr(devices.time, "sleep", pause)
    held = leased(["0"])
    held.__enter__()
    with caplog.at_level("INFO", "fsasd.runtime.devices"), leased(["0"]) as name:
        assert name == "0"
    assert caplog.text.count("waiting for one of 1 GPUs") == 1


def test_two_allocations_of_slurm_may_number_their_gpus_alike(monkeypatch):
    with leased(["0"]):
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        with leased(["0"]) as name:
            assert name == "0"
