"""What all ranks do together, they all do, or none; also where one of them dies or is far ahead."""

import os
import signal
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from several_ranks import CONTEXT, run, start

from fsasd.runtime import joint
from fsasd.runtime.joint import Joint
from fsasd.runtime.processes import end_with_other_ranks
from fsasd.runtime.ranks import RankError, add


def do(number, work, needed=True, name="work"):
    """Do a rank's part in something."""
    if number > 0:
        Joint(name).follow(work)
        return
    with Joint(name) as together:
        if needed:
            together.run(work)


def works(number, needed):
    calls = []

    def work():
        calls.append(number)
        add("calls", 1)
        # As in a collective, none is done before all have begun.
        while add("calls", 0) < 3:
            time.sleep(0.02)

    do(number, work, needed)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("needed", [True, False])
def test_all_ranks_do_what_the_first_decides(needed):
    codes, results = run(works, needed, ranks=3)
    assert codes == [0, 0, 0]
    assert results == [(n, [n] if needed else []) for n in range(3)]


def comes_late(number, outcome):
    if number > 0:
        time.sleep(1)
    works = []

    def work():
        works.append(number)
        if outcome == "error":
            raise ValueError("no space left")

    try:
        do(number, work)
    except Exception as error:
        works.append(str(error))
    do(number, lambda: works.append("next"))
    return works


def test_who_comes_late_repeats_nothing_that_is_done():
    """A process that Lightning starts for one job of a sweep begins with the first job."""
    _, results = run(comes_late, "done")
    assert results == [(0, [0, "next"]), (1, [])]


def test_who_comes_late_learns_what_failed():
    _, results = run(comes_late, "error")
    assert results == [(0, [0, "no space left", "next"]), (1, ["rank 0 failed: no space left"])]


def two_jobs(number, folder, failing, patience):
    """Two jobs of a sweep, in the first of which some ranks fail."""
    joint._GRACE = 1.0
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=number, world_size=2,
        timeout=timedelta(seconds=patience),
    )  # fmt: skip

    def work():
        if number in failing:
            raise ValueError("no space left")
        dist.barrier()

    outcomes = []
    for _ in range(2):
        try:
            do(number, work)
            outcomes.append("done")
        except (ValueError, RankError) as error:
            # A rank that has not begun does not begin.
            outcomes.append(str(error).removeprefix("rank 0 failed: "))
        failing = ()
        if number == 0:
            # It detects, for longer than a collective would wait.
            time.sleep(patience + 0.5)
    return outcomes


def test_a_rank_that_is_ahead_waits_for_the_first_longer_than_a_collective_would(tmp_path):
    # More than a busy machine is late by.
    codes, results = run(two_jobs, tmp_path, (), 3)
    assert codes == [0, 0]
    assert results == [(0, ["done", "done"]), (1, ["done", "done"])]


def test_a_job_that_fails_on_all_ranks_is_followed_by_the_next(tmp_path):
    # More than a busy machine is late by.
    codes, results = run(two_jobs, tmp_path, (0, 1), 5)
    assert codes == [0, 0]
    assert results == [(0, ["no space left", "done"]), (1, ["no space left", "done"])]


def test_a_rank_that_fails_alone_ends_all(tmp_path):
    codes, results = run(two_jobs, tmp_path, (1,), 50)
    assert 0 not in codes
    assert results == []


def fails_beside_one_that_hangs(number):
    """A rank that waits in a kernel returns to no Python; a thread of it does."""
    joint._GRACE = 0.5
    end_with_other_ranks()

    def work():
        if number == 1:
            raise ValueError("no space left")
        time.sleep(300)

    do(number, work)


def test_a_rank_that_hangs_ends_with_one_that_failed():
    codes, results = run(fails_beside_one_that_hangs)
    assert (codes, results) == ([1, 1], [])


def hangs_until_killed(number, ready):
    end_with_other_ranks()

    def work():
        ready.put(os.getpid())
        time.sleep(300)

    do(number, work)


def test_ranks_end_when_the_first_is_killed():
    """Also on other nodes, where it is nobody's parent."""
    ready = CONTEXT.Queue()
    processes, results = start(hangs_until_killed, ready)
    for _ in processes:
        ready.get(timeout=60)
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[1].join(20)
    assert processes[1].exitcode == 1
    assert results.empty()


def first_fails_alone(number, when):
    def work():
        pass

    if number > 0:
        with pytest.raises(RankError, match="rank 0 failed: the disk is full"):
            Joint("work").follow(work)
        return "knows"
    try:
        with Joint("work") as together:
            if when == "after":
                together.run(work)
            raise OSError("the disk is full")
    except OSError:
        return "failed"


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_fails_on_the_first_rank_beside_the_work_is_known_to_all(when):
    _, results = run(first_fails_alone, when)
    assert results == [(0, "failed"), (1, "knows")]


def test_alone_an_error_is_raised_at_once():
    begin = time.monotonic()
    with pytest.raises(ValueError, match="no space left"), Joint("alone") as together:
        together.run(lambda: int("no space left"))
    assert time.monotonic() - begin < 1
