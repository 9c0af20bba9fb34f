import json
import logging
import multiprocessing
import os
import queue
import shutil
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

import fsasd.store.store
from fsasd.runtime.ranks import rank
from fsasd.store.store import Store

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


class Build:
    """A stage that writes a number, and counts how often it is run."""

    def __init__(self, answer=42):
        self.answer = answer
        self.runs = 0

    def __call__(self, folder):
        self.runs += 1
        (folder / "answer").write_text(str(self.answer))


def fail(folder):
    (folder / "half").write_text("half")
    raise RuntimeError("out of memory")


def test_an_artifact_is_built_once(store):
    build = Build()
    made = [store.make("stage", {"a": 1}, build) for _ in range(3)]
    assert build.runs == 1
    assert set(made) == {store.path("stage", {"a": 1})}
    assert (made[0] / "answer").read_text() == "42"


def test_reuse_is_told(store, caplog):
    with caplog.at_level(logging.INFO, "fsasd.store.store"):
        path = store.make("stage", {}, Build())
        store.make("stage", {}, Build())
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"stage: building {path}", f"stage: reusing {path}"]


def test_another_store_object_finds_the_artifact(store):
    store.make("stage", {"a": 1}, Build())
    build = Build()
    Store(store.root).make("stage", {"a": 1}, build)
    assert build.runs == 0


@pytest.mark.parametrize("other", [{"a": 2}, {"b": 1}, {"a": "1"}, {"a": 1, "b": None}, {}])
def test_another_recipe_has_another_place(store, other):
    assert store.path("stage", {"a": 1}) != store.path("stage", other)
    first, second = store.make("stage", {"a": 1}, Build(1)), store.make("stage", other, Build(2))
    assert [(path / "answer").read_text() for path in (first, second)] == ["1", "2"]


def test_the_order_of_a_recipe_does_not_matter(store):
    assert store.path("s", {"a": 1, "b": {"c": 2, "d": 3}}) == store.path(
        "s", {"b": {"d": 3, "c": 2}, "a": 1}
    )


def test_two_stages_of_one_recipe_lie_apart(store):
    assert store.path("train", {}).parent.name == "train"
    assert store.path("train", {}).parent != store.path("test", {}).parent


def test_the_recipe_stands_beside_the_result(store, tmp_path):
    made = store.make("stage", {"lr": 0.1, "root": tmp_path}, Build())
    assert json.loads((made / "recipe.json").read_text()) == {"lr": 0.1, "root": str(tmp_path)}


def test_force_builds_anew_and_leaves_nothing_old(store):
    made = store.make("stage", {}, Build(1))
    (made / "old").touch()
    assert store.make("stage", {}, Build(2), force=True) == made
    assert (made / "answer").read_text() == "2"
    assert not (made / "old").exists()


def test_force_does_not_go_on_in_what_was_interrupted(store):
    with pytest.raises(RuntimeError, match="out of memory"):
        store.make("stage", {}, fail)
    made = store.make("stage", {}, Build(), force=True)
    assert not (made / "half").exists()


def test_a_forced_build_that_fails_leaves_the_old_artifact(store):
    made = store.make("stage", {}, Build(1))
    with pytest.raises(RuntimeError, match="out of memory"):
        store.make("stage", {}, fail, force=True)
    assert (made / "answer").read_text() == "1"


def test_nothing_is_visible_before_it_is_complete(store):
    path = store.path("stage", {})

    def build(folder):
        assert folder != path
        assert folder.parent == path.parent
        (folder / "answer").write_text("42")
        assert not path.exists()

    assert store.make("stage", {}, build) == path
    assert sorted(p.name for p in path.iterdir()) == ["answer", "built.json", "recipe.json"]
    assert not list(path.parent.glob("*.partial"))


def test_a_build_that_fails_leaves_no_artifact_and_is_tried_again(store):
    with pytest.raises(RuntimeError, match="out of memory"):
        store.make("stage", {}, fail)
    assert not store.path("stage", {}).exists()
    build = Build()
    store.make("stage", {}, build)
    assert build.runs == 1


def test_an_interrupted_build_goes_on_where_it_was(store):
    with pytest.raises(RuntimeError, match="out of memory"):
        store.make("stage", {}, fail)

    def go_on(folder):
        assert (folder / "half").read_text() == "half"
        (folder / "rest").touch()

    made = store.make("stage", {}, go_on)
    assert sorted(p.name for p in made.iterdir()) == ["built.json", "half", "recipe.json", "rest"]


def test_the_time_of_all_attempts_is_kept(store):
    def interrupted(folder):
        time.sleep(0.3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make("stage", {}, interrupted)
    store.make("stage", {}, lambda folder: time.sleep(0.2))
    store.make("stage", {}, lambda folder: pytest.fail("built again"))
    assert 0.5 <= store.seconds("stage", {}) < 5
    assert store.seconds("stage", {"another": 1}) == 0


def test_an_artifact_that_was_deleted_is_built_again(store):
    build = Build()
    shutil.rmtree(store.make("stage", {}, build))
    store.make("stage", {}, build)
    assert build.runs == 2


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"])
def test_the_launcher_tells_the_rank(monkeypatch, variable):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert rank() == 0
    monkeypatch.setenv(variable, "3")
    assert rank() == 3


def test_what_one_process_builds_is_published_by_any_rank_and_used_by_the_others(
    store, monkeypatch
):
    build = Build()
    for number in ("1", "0", "2"):
        monkeypatch.setenv("RANK", number)
        assert store.make("stage", {}, build, alone=True) == store.path("stage", {})
    assert build.runs == 1


def test_another_rank_builds_beside_the_first_and_publishes_nothing(store, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    path = store.path("stage", {})
    partial = path.with_name(f"{path.name}.partial")
    partial.mkdir(parents=True)
    assert store.make("stage", {}, Build()) == path
    assert (partial / "answer").exists()
    assert not path.exists()


def test_another_rank_reuses_what_is_there(store, monkeypatch):
    made = store.make("stage", {}, Build())
    monkeypatch.setenv("RANK", "1")
    build = Build()
    assert store.make("stage", {}, build) == made
    assert build.runs == 0


def test_a_process_that_lightning_started_in_an_interactive_slurm_job_is_not_the_first(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert rank() == 2


def build_until(root, started, proceed):
    """What another job does: build, and finish when it is told to."""

    def build(folder):
        (folder / "half").write_text("from the other job")
        started.set()
        assert proceed.wait(60)
        (folder / "answer").write_text("from the other job")

    Store(root).make("stage", {}, build)


@pytest.fixture
def other_job(store):
    started, proceed = SPAWN.Event(), SPAWN.Event()
    job = SPAWN.Process(target=build_until, args=(store.root, started, proceed))
    job.start()
    assert started.wait(60)
    yield job, proceed
    job.kill()
    job.join()


def test_a_second_job_waits_for_the_first_and_uses_its_result(store, other_job, caplog):
    job, proceed = other_job
    told = []

    def note(record):
        told.append(record.getMessage())
        if told[-1].startswith("waiting"):
            assert not store.path("stage", {}).exists()
            proceed.set()
        return True

    caplog.set_level(logging.INFO, "fsasd.store.store")
    caplog.handler.addFilter(note)
    build = Build("from this job")
    made = store.make("stage", {}, build)
    caplog.handler.removeFilter(note)
    job.join(60)
    assert job.exitcode == 0
    assert build.runs == 0
    assert (made / "answer").read_text() == "from the other job"
    assert told == [
        f"waiting for another job that is building {made}",
        f"stage: reusing {made}",
    ]


def test_what_a_killed_job_has_made_is_found_again(store, other_job):
    job, _ = other_job
    job.kill()
    job.join()

    def go_on(folder):
        assert (folder / "half").read_text() == "from the other job"

    made = store.make("stage", {}, go_on)
    assert sorted(p.name for p in made.iterdir()) == ["built.json", "half", "recipe.json"]


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
LAUNCHERS = [
    ("SLURM_PROCID", {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}),
    ("RANK", TORCHRUN),
    ("NODE_RANK", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}),
]


def build_together(root, told, begun, heard):
    """What a rank does that is started with the others: none is done before all have begun."""
    os.environ.update(told)

    def build(folder):
        begun.wait(60)
        heard.put("built")

    try:
        Store(root).make("stage", {}, build)
        heard.put("has it")
    except Exception as error:
        heard.put(repr(error))


@pytest.fixture(params=LAUNCHERS, ids=["slurm", "torchrun", "by hand"])
def ranks_of_one_job(store, other_job, request):
    """Two ranks that are started at once, while another job builds what they need."""
    name, told = request.param
    begun, heard = SPAWN.Barrier(2), SPAWN.Queue()
    ranks = [
        SPAWN.Process(
            target=build_together,
            args=(store.root, told | {name: str(number)}, begun, heard),
        )
        for number in range(2)
    ]
    for process in ranks:
        process.start()
    with pytest.raises(queue.Empty):
        heard.get(timeout=8)
    yield heard
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0


def test_ranks_that_are_started_at_once_wait_for_another_job_and_use_its_result(
    ranks_of_one_job, other_job
):
    other_job[1].set()
    assert [ranks_of_one_job.get(timeout=60) for _ in range(2)] == ["has it"] * 2


def test_ranks_that_are_started_at_once_build_together_when_the_other_job_is_gone(
    ranks_of_one_job, other_job, store
):
    other_job[0].kill()
    found = [ranks_of_one_job.get(timeout=60) for _ in range(4)]
    assert sorted(found) == ["built", "built", "has it", "has it"]
    assert store.path("stage", {}).is_dir()
    assert not list(store.root.glob("*/*.turn"))


def two_jobs(root, number, failing, patience, heard):
    """What a rank does of two jobs of a sweep, in the first of which some ranks fail."""
    dist.init_process_group(
        "gloo", f"file://{root}/meeting", rank=number, world_size=2,
        timeout=timedelta(seconds=patience),
    )  # fmt: skip
    fsasd.store.store._GRACE = 3.0

    def build(folder):
        if number in failing:
            raise ValueError("no space left")
        dist.barrier()

    for _ in range(2):
        try:
            Store(root).make("stage", {}, build)
            heard.put((number, "has it"))
        except ValueError as error:
            heard.put((number, str(error)))
        failing = ()
        if number == 0:
            # It detects, for longer than a collective would wait.
            time.sleep(patience + 2)


def of_two_ranks(root, failing, patience):
    heard = SPAWN.Queue()
    arguments = [(root, number, failing, patience, heard) for number in range(2)]
    ranks = [SPAWN.Process(target=two_jobs, args=given) for given in arguments]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    found = []
    while not heard.empty():
        found.append(heard.get())
    return [process.exitcode for process in ranks], sorted(found)


def test_a_rank_that_is_ahead_waits_for_the_first_longer_than_a_collective_would(tmp_path):
    codes, found = of_two_ranks(tmp_path, (), patience=2)
    assert codes == [0, 0]
    assert found == [(0, "has it"), (0, "has it"), (1, "has it"), (1, "has it")]


def test_a_job_that_fails_on_all_ranks_is_followed_by_the_next(tmp_path):
    codes, found = of_two_ranks(tmp_path, (0, 1), patience=2)
    assert codes == [0, 0]
    assert found == [(0, "has it"), (0, "no space left"), (1, "has it"), (1, "no space left")]


def detect_alone(root, number, heard):
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=number, world_size=2)
    store = Store(root)
    if number == 0:
        try:
            store.make("detect", {}, fail, alone=True)
        except RuntimeError as error:
            heard.put((number, str(error)))
    store.make("stage", {}, lambda folder: dist.barrier())
    heard.put((number, "has it"))


def test_what_the_first_rank_does_alone_may_fail(tmp_path):
    heard = SPAWN.Queue()
    ranks = [SPAWN.Process(target=detect_alone, args=(tmp_path, n, heard)) for n in range(2)]
    for process in ranks:
        process.start()
    found = sorted(heard.get(timeout=60) for _ in range(3))
    assert found == [(0, "has it"), (0, "out of memory"), (1, "has it")]
    for process in ranks:
        process.join(60)


def test_a_rank_that_fails_alone_ends_and_no_other_waits_for_it(tmp_path, capfd):
    codes, found = of_two_ranks(tmp_path, (1,), patience=50)
    assert 0 not in codes
    assert found == []
    told = "rank 1 failed, and other ranks did not: ending all. no space left"
    assert told in capfd.readouterr().err
