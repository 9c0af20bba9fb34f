"""Messages between ranks, whatever has started them."""

import os
import socket
import time

import pytest
import several_ranks
from several_ranks import CONTEXT, LAUNCHERS, run

from fsasd.runtime import ranks
from fsasd.runtime.ranks import RankError, add, agree, broadcast, failure, rank, receive


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"])
def test_the_launcher_sets_the_rank(monkeypatch, variable):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert rank() == 0
    monkeypatch.setenv(variable, "3")
    assert rank() == 3


def test_a_process_that_lightning_started_in_an_interactive_slurm_job_is_not_the_first(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert rank() == 2


def ask(number):
    if number == 0:
        # It comes late, and answers another question in between.
        time.sleep(0.3)
        broadcast("other", "no")
        broadcast("question", "yes")
        return add("count", 1) > 0
    answer = receive("question")
    add("count", 1)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_that_are_started_at_once_find_the_first(launcher):
    assert run(ask, launcher=launcher, ranks=3) == ([0, 0, 0], [(0, True), (1, "yes"), (2, "yes")])


def test_processes_that_lightning_starts_inherit_the_address(monkeypatch):
    """Also where Lightning has set the address of its rendezvous, as it does."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "NODE_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSASD_RANKS", "node-7:4711")
    assert ranks._address(ranks._cluster()) == ("node-7", 4711)


def test_alone_a_process_listens_to_its_own_machine_only(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert ranks._address(ranks._cluster()) == ("127.0.0.1", 0)


def test_a_rank_without_an_address_is_an_error(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "FSASD_RANKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(RankError, match=r"rank 1: expected the address of rank 0 in FSASD_RANKS"):
        ranks._address(ranks._cluster())


def test_one_task_of_slurm_shares_nothing(monkeypatch):
    monkeypatch.setattr(ranks, "_shared", None)
    for name, value in several_ranks.environment("slurm", 0, 4711, ranks=1).items():
        monkeypatch.setenv(name, value)
    broadcast("question", "yes")
    assert receive("question") == "yes"
    assert type(ranks._shared).__name__ == "HashStore"


def test_a_port_that_is_taken_is_named(monkeypatch):
    port = several_ranks.free_port()
    monkeypatch.setattr(ranks, "_shared", None)
    for name, value in several_ranks.environment("by hand", 0, port).items():
        monkeypatch.setenv(name, value)
    expected = rf"rank 0 cannot listen at port {port + 10_000} .*: set MASTER_PORT"
    with socket.create_server(("", port + 10_000)), pytest.raises(OSError, match=expected):
        broadcast("question", "yes")


def agreed(number):
    return agree("folder", f"of rank {number}")


@pytest.mark.parametrize("launcher", ["slurm", "torchrun"])
def test_ranks_agree_on_what_the_first_has(launcher):
    _, results = run(agreed, launcher=launcher)
    assert results == [(0, "of rank 0"), (1, "of rank 0")]


def test_a_process_alone_agrees_with_itself_and_listens_nowhere(monkeypatch):
    monkeypatch.setattr(ranks, "_shared", None)
    assert agree("folder", "a") == "a"
    assert ranks._shared is None


def wait_for_the_dead(number):
    if number == 0:
        broadcast("ready", "yes")
        time.sleep(1)
        os._exit(9)
    receive("ready")
    assert not failure()
    return receive("what never comes")


def test_whoever_waits_for_a_rank_that_was_killed_has_an_error():
    codes, results = run(wait_for_the_dead, seconds=180)
    assert codes == [9, 0]
    ((number, error),) = results
    assert number == 1
    assert error.startswith("rank 0 is gone")


def end_while_the_other_waits(number):
    if number == 0:
        broadcast("ready", "yes")
        while not failure():
            time.sleep(0.05)
        return failure()
    receive("ready")
    return ranks.end_all("the disk is full")


def test_a_rank_that_ends_says_so_to_all():
    codes, results = run(end_while_the_other_waits)
    assert codes[1] == 1
    assert results == [(0, ("rank 1: the disk is full", 1))]


def end_by_a_signal_while_the_other_waits(number):
    if number == 0:
        broadcast("ready", "yes")
        while not failure():
            time.sleep(0.05)
        seen = failure()
        ranks.leave()
        return seen, failure()
    receive("ready")
    return ranks.leave_and_end_others("ended by SIGTERM", 143)


def test_a_signal_to_one_rank_ends_the_others_as_by_that_signal_except_those_that_leave():
    _, results = run(end_by_a_signal_while_the_other_waits)
    assert sorted(results) == [(0, (("rank 1: ended by SIGTERM", 143), None)), (1, None)]


def leave_together(number):
    if number == 0:
        broadcast("ready", "yes")
        while not add("left by agreement", 0):
            time.sleep(0.05)
        return failure()
    receive("ready")
    ranks.leave()
    ranks.leave_and_end_others("ended by SIGTERM", 143)
    return add("left by agreement", 1)


def test_ranks_that_leave_together_do_not_end_one_another():
    _, results = run(leave_together)
    assert sorted(results) == [(0, None), (1, 1)]


def read_late(number):
    if number == 0:
        broadcast("answer", "42")
        return "gone first"
    time.sleep(1.5)
    return receive("answer")


def test_the_first_rank_stays_until_the_others_have_read():
    codes, results = run(read_late, launcher="slurm")
    assert results == [(0, "gone first"), (1, "42")]
    assert codes == [0, 0]


def serve(port, ready, proceed):
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    ready.set()
    proceed.wait(60)
    del store


def ask_torchruns(number):
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "2"
    result = ask(number)
    return result, "FSASD_RANKS" in os.environ


def test_the_store_of_torchrun_is_used():
    port, ready, proceed = several_ranks.free_port(), CONTEXT.Event(), CONTEXT.Event()
    agent = CONTEXT.Process(target=serve, args=(port, ready, proceed))
    agent.start()
    assert ready.wait(60)
    _, results = run(ask_torchruns, launcher="torchrun", port=port)
    proceed.set()
    agent.join(60)
    assert results == [(0, (True, False)), (1, ("yes", False))]
