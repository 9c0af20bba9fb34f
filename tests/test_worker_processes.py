"""Worker processes: what they may use, what they log, and that nothing of them is left."""

import importlib.util
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import joblib
import numpy as np
import psutil
import pytest
import threadpoolctl
import torch

from fsasd.runtime import workers
from fsasd.runtime.launchers import begin_job
from fsasd.runtime.supervision import Supervisor
from fsasd.runtime.workers import Joblib, Ray, Serial, WorkerKilledError

SHARED = pickle.dumps("shared")
RANK = {"RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "SLURM_NTASKS": "2"}


def shared():
    return SHARED


def state(what, name):
    """What a worker sees of its surroundings."""
    logging.getLogger("fsasd.task").info("%s begins", name)
    logging.getLogger("fsasd.task").debug("%s is not logged", name)
    blas = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    threads = [joblib.cpu_count(), torch.get_num_threads(), *blas]
    return what, max(threads), {*RANK} & {*os.environ}, sys.argv, os.getpid()


def die(folder, name):
    """Be killed, once or always."""
    begun = Path(folder) / name
    if name == "always" or (name == "once" and not begun.exists()):
        begun.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def grow(_, name):
    """Keep 400 MB more than before, from the worker's second task on."""
    if _kept:
        time.sleep(1.1)
    _kept.append(np.ones(50_000_000 if _kept else 1))
    return name


_kept = []


def sleep(_, name):
    time.sleep(600)


def ended(pids):
    return all(
        not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie" for pid in pids
    )


def wait_for_end(pids, seconds=20):
    deadline = time.monotonic() + seconds
    while not ended(pids):
        assert time.monotonic() < deadline, f"{pids} go on"
        time.sleep(0.1)


# Both start Python anew for each worker.
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) for name in ("joblib", "ray")],
)
def runner(request):
    if request.param == "joblib":
        yield Joblib(2)
        return
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    ray = importlib.import_module("ray")
    # One for all tests: to start it takes seconds.
    ray.init(address="local", num_cpus=2, log_to_driver=False)
    yield Ray(2)
    ray.shutdown()


@pytest.mark.nightly
def test_a_worker_has_its_share_of_the_cores_and_is_no_rank(runner, monkeypatch, caplog):
    for name, value in RANK.items():
        monkeypatch.setenv(name, value)
    # Whatever is asked for here, a worker has no more than its share.
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    caplog.set_level("INFO", "fsasd.task")
    with runner.pool(9, shared) as pool:
        # More than joblib takes at once.
        results = dict(pool.run(state, {name: name for name in "abcdefghi"}))
    assert sorted(results) == [*"abcdefghi"]
    assert pool.cores == max(joblib.cpu_count() // 2, 1)
    for what, most, ranks, arguments, pid in results.values():
        assert (what, most, ranks, arguments) == ("shared", pool.cores, set(), sys.argv)
        assert pid != os.getpid()
    assert sorted(r.getMessage() for r in caplog.records if r.name == "fsasd.task") == [
        f"{name} begins" for name in "abcdefghi"
    ]
    wait_for_end({pid for *_, pid in results.values()})


@pytest.mark.nightly
@pytest.mark.slow
def test_a_worker_that_has_grown_is_replaced_and_no_task_is_lost():
    """Where joblib's warning of it is an error, nobody would take the results any more."""
    with Joblib(2).pool(9, shared) as pool:
        assert sorted(dict(pool.run(grow, {name: name for name in "abcdef"}))) == [*"abcdef"]


@pytest.mark.nightly
def test_a_task_whose_worker_is_killed_costs_no_other(runner, tmp_path, caplog):
    tasks = {name: name for name in ("a", "always", "b", "once", "c")}
    with runner.pool(9, lambda: pickle.dumps(str(tmp_path))) as pool:
        results = dict(pool.run(die, tasks))
        killed = results.pop("always")
        assert results == {name: name for name in ("a", "b", "once", "c")}
        assert isinstance(killed, WorkerKilledError)
        assert "was killed, alone as well, as happens where memory is short" in str(killed)
        # What is left of the pool goes on.
        assert dict(pool.run(die, {"d": "d", "e": "e"})) == {"d": "d", "e": "e"}
    assert "a worker process was killed, as happens where memory is short" in caplog.text


def die_beside_another(folder, name):
    """Be killed while another task is at work; once."""
    begun = Path(folder) / name
    first = not begun.exists()
    begun.touch()
    if name == "waits" and first:
        time.sleep(10)
    while not (Path(folder) / "waits").exists():
        time.sleep(0.1)
    if name == "killed" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


@pytest.mark.nightly
def test_which_tasks_are_in_question_where_a_worker_is_killed(runner, tmp_path, caplog):
    with runner.pool(2, lambda: pickle.dumps(str(tmp_path))) as pool:
        results = dict(pool.run(die_beside_another, {"killed": "killed", "waits": "waits"}))
    assert results == {"killed": "killed", "waits": "waits"}
    # joblib ends all its workers with the one; which of them was the first to end is not known.
    suspects = "killed" if isinstance(runner, Ray) else "killed, waits"
    assert caplog.messages[-1].endswith(f"built again, one at a time: {suspects}")


@pytest.mark.slow
def test_a_cluster_of_ray_is_ended_by_those_who_started_it():
    ray = pytest.importorskip("ray")
    ray.shutdown()
    with Ray(2).pool(2, shared) as pool:
        (result,) = dict(pool.run(state, {"a": "a"})).values()
        assert ray.is_initialized()
    assert not ray.is_initialized()
    wait_for_end([result[-1]])
    ray.init(address="local", num_cpus=2, log_to_driver=False)
    with Ray(2).pool(2, shared):
        pass
    assert ray.is_initialized()
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGKILL]
)
def test_workers_end_with_their_command(number, tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        "import pickle, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_worker_processes import shared, sleep, state\n"
        "from fsasd.runtime.workers import Joblib\n"
        "with Joblib(2).pool(9, shared) as pool:\n"
        "    pids = {pid for *_, pid in dict(pool.run(state, dict.fromkeys('abcd'))).values()}\n"
        "    print(*pids, flush=True)\n"
        "    dict(pool.run(sleep, dict.fromkeys('abcd')))\n"
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as command:
        pids = [int(pid) for pid in command.stdout.readline().split()]
        assert pids
        time.sleep(1)
        command.send_signal(number)
        command.wait(20)
    wait_for_end(pids)


def test_how_many_workers_there_are(monkeypatch, caplog):
    monkeypatch.setattr(workers.joblib, "cpu_count", lambda only_physical_cores=False: 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert workers.default_workers(400) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [workers.default_workers(tasks) for tasks in (3, 14, 80, 400)] == [1, 1, 10, 16]
    monkeypatch.setattr(workers.joblib, "cpu_count", lambda only_physical_cores=False: 2)
    assert Joblib().pool(14, shared) is None
    assert Serial().pool(14, shared) is None
    assert Joblib(8).pool(1, shared) is None
    caplog.set_level("INFO")
    begin_job("joblib")
    try:
        assert Joblib(8).pool(14, shared) is None
    finally:
        begin_job("")
    assert "one after the other, since hydra/launcher=joblib runs other jobs beside" in caplog.text


def test_ray_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"runner=ray needs .*pip install 'fsasd\[ray\]'"):
        Ray(2).pool(2, shared)


def test_what_connects_and_says_nothing_holds_up_no_worker():
    supervisor = Supervisor("127.0.0.1", 1, SHARED)
    try:
        silent = [socket.create_connection(supervisor.start.address, timeout=5) for _ in range(5)]
        worker = Client(supervisor.start.address, authkey=supervisor.start.secret)
        assert worker.poll(5)
        assert worker.recv_bytes() == SHARED
        worker.send(("begun", "fan section 00"))
        worker.close()
        begun = time.monotonic()
        assert supervisor.unfinished() == ["fan section 00"]
        assert time.monotonic() - begun < 4
    finally:
        for one in silent:
            one.close()
        supervisor.close()
    assert not any(thread.is_alive() for thread in supervisor._threads)


def test_tasks_that_were_cut_are_in_the_order_in_which_their_workers_ended():
    supervisor = Supervisor("127.0.0.1", 1, SHARED)
    try:
        address, secret = supervisor.start.address, supervisor.start.secret
        connections = [Client(address, authkey=secret) for _ in range(3)]
        for name, connection in zip("abc", connections, strict=True):
            assert connection.recv_bytes() == SHARED
            connection.send(("begun", name))
        connections[1].send(("done", "b"))
        for number in (2, 1, 0):
            connections[number].close()
            deadline = time.monotonic() + 20
            while len(supervisor._ended) < 3 - number and time.monotonic() < deadline:
                time.sleep(0.01)
        assert supervisor.unfinished() == ["c", "a"]
        assert supervisor.unfinished() == []
    finally:
        supervisor.close()


def test_of_what_connects_only_workers_get_what_is_shared():
    supervisor = Supervisor("127.0.0.1", 1, SHARED)
    try:
        with pytest.raises(AuthenticationError):
            Client(supervisor.start.address, authkey=b"another")
    finally:
        supervisor.close()
