"""The state of a sweep's jobs, as other processes read it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from run_folders import STARTED, write_status, write_sweep

from fsasd.report.runs.status import Status, Sweep, is_alive, job_folders, jobs_of, process_id


@pytest.fixture
def process():
    """A process of this machine that sleeps."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()
    child.stdin.close()


def test_a_state_is_read_back(tmp_path):
    status = write_status(tmp_path, 3, "failed", overrides=["seed=1"], reason="no weights")
    assert Status.read(tmp_path) == status
    assert (status.state, status.reason, status.overrides) == ("failed", "no weights", ["seed=1"])
    assert 0 <= status.seconds < 10


def test_a_job_during_which_the_clock_was_put_back_took_no_negative_time():
    later = replace(Status.begin(STARTED, 0, []), started="2999-01-01T00:00:00+00:00")
    assert later.seconds == later.ending("done").seconds == 0


def test_a_job_whose_process_was_killed_does_not_run(tmp_path, process):
    status = Status.begin(STARTED, 0, [])
    named = process_id(process.pid)
    running = Status(**{**vars(status), "process": named})
    assert running.current().state == "running"
    process.send_signal(signal.SIGKILL)
    # Until somebody waits for it, a process that ended has its number.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert running.current().state == "interrupted"
    process.wait()
    assert running.current().state == "interrupted"
    assert not is_alive(named)


def test_another_process_with_the_number_of_a_job_is_not_it():
    assert is_alive(process_id())
    assert not is_alive(f"{os.getpid()} 12")


def test_what_runs_on_another_machine_is_believed():
    status = Status.begin(STARTED, 0, [])
    elsewhere = Status(**{**vars(status), "host": "node7", "process": "4194305 1"})
    assert elsewhere.current().state == "running"


def test_a_state_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({"sweep": ""}))
    with pytest.raises(ValueError, match=r"status.json: expected the state that fsasd wrote"):
        Status.read(tmp_path)


def test_runs_are_listed_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "2", "1", "a=b/c=d"):
        (tmp_path / "sweep" / name / ".hydra").mkdir(parents=True)
    # Within a run there is none, and a store holds none.
    (tmp_path / "sweep" / "1" / "validation" / ".hydra").mkdir(parents=True)
    (tmp_path / "store" / "runs").mkdir(parents=True)
    (tmp_path / "store" / "runs" / "1.jsonl").touch()
    (tmp_path / "store" / "finetune" / ".hydra").mkdir(parents=True)
    names = [str(run.relative_to(tmp_path)) for run in job_folders(tmp_path)]
    assert names == ["sweep/1", "sweep/2", "sweep/10", "sweep/a=b/c=d"]
    assert job_folders(tmp_path / "sweep" / "2") == [tmp_path / "sweep" / "2"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent: there is no such folder"):
        job_folders(tmp_path / "absent")


def test_jobs_of_an_earlier_sweep_in_the_folder_do_not_count(tmp_path):
    sweep = write_sweep(tmp_path, [["seed=0"], ["seed=1"]])
    write_status(tmp_path / "0", 0)
    write_status(tmp_path / "1", 1, sweep="2025-01-01T00:00:00+00:00")
    write_status(tmp_path / "7", 7, sweep="2025-01-01T00:00:00+00:00")
    assert list(jobs_of(tmp_path, sweep)) == [0]
    assert Sweep.read(tmp_path) == sweep
    assert sweep.n_jobs == 2


def test_a_state_without_what_is_optional_is_read(tmp_path):
    status = write_status(tmp_path, 0, "running")
    read = json.loads((tmp_path / "status.json").read_text())
    del read["reason"], read["result"]
    (tmp_path / "status.json").write_text(json.dumps(read))
    assert Status.read(tmp_path) == status
