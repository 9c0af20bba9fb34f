import errno
import json
import logging
import multiprocessing
import os
import queue
import re
import shutil
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

import fsasd.runtime.ranks
import fsasd.store.store
from fsasd.runtime.ranks import rank
from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE, StoreError
from fsasd.store.store import Store

# Starts processes that have loaded torch already.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["fsasd.store.store"])
# Their standard error is captured.
SPAWN = multiprocessing.get_context("spawn")

WANTED = Description("stage", 1, {"a": 1})


def wanted(stage="stage", version=1, section="", inputs=(), **spec):
    return Description(stage, version, spec, dict(inputs), section)


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


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_artifact_is_built_once(store):
    build = Build()
    paths = [store.build(WANTED, build) for _ in range(3)]
    assert build.runs == 1
    assert set(paths) == {store.path(WANTED)}
    assert (paths[0] / "answer").read_text() == "42"


def test_the_log_says_what_is_built_and_reused(store, caplog):
    with caplog.at_level(logging.INFO, "fsasd.store.store"):
        path = store.build(wanted(section="fan section 00"), Build())
        store.build(wanted(section="fan section 00"), Build())
    assert caplog.messages == [
        f"stage fan section 00: building {path}",
        f"stage fan section 00: reusing {path}",
    ]


def test_the_log_says_why_an_artifact_is_built(store, caplog):
    store.build(wanted(trainer={"max_steps": 400}), Build())
    with caplog.at_level(logging.INFO, "fsasd.store.store"):
        path = store.build(wanted(trainer={"max_steps": 800}), Build())
    assert caplog.messages == [f"stage: building {path} (trainer.max_steps 400 -> 800)"]


def test_another_store_object_finds_the_artifact(store):
    path = store.build(WANTED, Build())
    assert Store(store.root).find(WANTED) == path


def test_what_was_not_built_is_not_found_and_nothing_is_written(store):
    assert store.find(WANTED) is None
    assert not store.root.exists()


def test_artifacts_of_sections_are_in_folders_of_their_own(store):
    fan, valve = (wanted(section=f"{machine} section 00") for machine in ("fan", "valve"))
    store.build(fan, Build("fan"))
    store.build(valve, Build("valve"))
    assert names(store.root / "stage") == ["fan section 00", "valve section 00"]
    assert (store.find(valve) / "answer").read_text() == "valve"


def test_an_artifact_that_is_built_again_has_nothing_of_the_old_one(store):
    path = store.build(WANTED, Build(1))
    (path / "old").touch()
    assert store.build(WANTED, Build(2), again=True) == path
    assert (path / "answer").read_text() == "2"
    assert names(path) == ["answer", PROVENANCE]


def test_an_artifact_that_is_built_again_begins_in_an_empty_folder(store):
    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(WANTED, fail)
    assert names(store.build(WANTED, Build(), again=True)) == ["answer", PROVENANCE]


def test_an_artifact_whose_second_build_fails_is_kept(store):
    path = store.build(WANTED, Build(1))
    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(WANTED, fail, again=True)
    assert store.find(WANTED) == path
    assert (path / "answer").read_text() == "1"


def test_nothing_is_visible_before_it_is_complete(store):
    path = store.path(WANTED)

    def build(folder):
        assert folder != path
        assert folder.parent == path.parent
        (folder / "answer").write_text("42")
        assert not path.exists()

    assert store.build(WANTED, build) == path
    assert names(path) == ["answer", PROVENANCE]
    assert names(path.parent) == [path.name, f"{path.name}.lock"]


def test_a_build_that_fails_leaves_no_artifact_and_is_tried_again(store):
    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(WANTED, fail)
    assert not store.path(WANTED).exists()
    build = Build()
    store.build(WANTED, build)
    assert build.runs == 1


def test_an_interrupted_build_goes_on_where_it_was(store):
    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(WANTED, fail)

    def go_on(folder):
        assert (folder / "half").read_text() == "half"
        (folder / "rest").touch()

    assert names(store.build(WANTED, go_on)) == ["half", PROVENANCE, "rest"]


def test_the_time_of_all_builds_is_kept(store):
    def interrupted(folder):
        time.sleep(0.3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build(WANTED, interrupted)
    path = store.build(WANTED, lambda folder: time.sleep(0.2))
    store.build(WANTED, lambda folder: pytest.fail("built again"))
    assert 0.5 <= store.provenance(path).seconds < 5


def test_an_artifact_that_was_deleted_is_built_again(store):
    build = Build()
    shutil.rmtree(store.build(WANTED, build))
    store.build(WANTED, build)
    assert build.runs == 2


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"])
def test_the_launcher_sets_the_rank(monkeypatch, variable):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert rank() == 0
    monkeypatch.setenv(variable, "3")
    assert rank() == 3


def test_an_artifact_that_one_process_builds_is_published_by_any_rank(store, monkeypatch):
    build = Build()
    for number in ("1", "0", "2"):
        monkeypatch.setenv("RANK", number)
        assert store.build(WANTED, build) == store.path(WANTED)
    assert build.runs == 1


def test_another_rank_builds_with_the_first_and_publishes_nothing(store, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    path = store.path(WANTED)
    partial = path.with_name(f"{path.name}.partial")
    partial.mkdir(parents=True)
    assert store.build(WANTED, Build(), together=True) == path
    assert (partial / "answer").exists()
    assert not path.exists()


def test_another_rank_reuses_an_artifact(store, monkeypatch):
    path = store.build(WANTED, Build())
    monkeypatch.setenv("RANK", "1")
    build = Build()
    assert store.build(WANTED, build, together=True) == path
    assert build.runs == 0


def test_a_process_that_lightning_started_in_an_interactive_slurm_job_is_not_the_first(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert rank() == 2


def build_until(root, started, proceed):
    """Build as another job does, and finish when an event is set."""

    def build(folder):
        (folder / "half").write_text("from the other job")
        started.set()
        assert proceed.wait(60)
        (folder / "answer").write_text("from the other job")

    Store(root).build(WANTED, build)


@pytest.fixture
def other_job(store):
    started, proceed = FORKSERVER.Event(), FORKSERVER.Event()
    job = FORKSERVER.Process(target=build_until, args=(store.root, started, proceed))
    job.start()
    assert started.wait(60)
    yield job, proceed
    job.kill()
    job.join()


def test_a_second_job_waits_for_the_first_and_uses_its_result(store, other_job, caplog):
    job, proceed = other_job
    messages = []

    def note(record):
        messages.append(record.getMessage())
        if messages[-1].startswith("waiting"):
            assert not store.path(WANTED).exists()
            proceed.set()
        return True

    caplog.set_level(logging.INFO, "fsasd.store.store")
    caplog.handler.addFilter(note)
    build = Build("from this job")
    path = store.build(WANTED, build)
    caplog.handler.removeFilter(note)
    job.join(60)
    assert job.exitcode == 0
    assert build.runs == 0
    assert (path / "answer").read_text() == "from the other job"
    assert messages == [
        f"waiting for another job that is building {path}",
        f"stage: reusing {path}",
    ]


def test_a_build_goes_on_with_what_a_killed_job_left(store, other_job):
    job, _ = other_job
    time.sleep(0.5)
    job.kill()
    job.join()

    def go_on(folder):
        assert (folder / "half").read_text() == "from the other job"
        (folder / "rest").touch()

    assert names(store.build(WANTED, go_on)) == ["half", PROVENANCE, "rest"]


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
LAUNCHERS = [
    ("SLURM_PROCID", {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}),
    ("RANK", TORCHRUN),
    ("NODE_RANK", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}),
]


def build_together(root, environment, begun, messages):
    """Build as a rank that is started with the others: none is done before all have begun."""
    os.environ.update(environment)

    def build(folder):
        begun.wait(60)
        messages.put("built")

    try:
        Store(root).build(WANTED, build, together=True)
        messages.put("has it")
    except Exception as error:
        messages.put(repr(error))


@pytest.fixture(params=LAUNCHERS, ids=["slurm", "torchrun", "by hand"])
def ranks_of_one_job(store, other_job, request):
    """Two ranks that are started at once, while another job builds what they need."""
    name, environment = request.param
    begun, messages = FORKSERVER.Barrier(2), FORKSERVER.Queue()
    ranks = [
        FORKSERVER.Process(
            target=build_together,
            args=(store.root, environment | {name: str(number)}, begun, messages),
        )
        for number in range(2)
    ]
    for process in ranks:
        process.start()
    with pytest.raises(queue.Empty):
        messages.get(timeout=2)
    yield messages
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
    messages = [ranks_of_one_job.get(timeout=60) for _ in range(4)]
    assert sorted(messages) == ["built", "built", "has it", "has it"]
    assert store.path(WANTED).is_dir()
    assert not list(store.root.glob("*/*.turn"))


def two_jobs(root, number, failing, patience, messages):
    """Run two jobs of a sweep as a rank; in the first of them some ranks fail."""
    dist.init_process_group(
        "gloo", f"file://{root}/meeting", rank=number, world_size=2,
        timeout=timedelta(seconds=patience),
    )  # fmt: skip
    fsasd.runtime.ranks._GRACE = 3.0

    def build(folder):
        if number in failing:
            raise ValueError("no space left")
        dist.barrier()

    for _ in range(2):
        try:
            Store(root).build(WANTED, build, together=True)
            messages.put((number, "has it"))
        except ValueError as error:
            messages.put((number, str(error)))
        failing = ()
        if number == 0:
            # It detects, for longer than a collective would wait.
            time.sleep(patience + 2)


def two_ranks(root, failing, patience):
    messages = SPAWN.Queue()
    arguments = [(root, number, failing, patience, messages) for number in range(2)]
    ranks = [SPAWN.Process(target=two_jobs, args=given) for given in arguments]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    received = []
    while not messages.empty():
        received.append(messages.get())
    return [process.exitcode for process in ranks], sorted(received)


def test_a_rank_that_is_ahead_waits_for_the_first_longer_than_a_collective_would(tmp_path):
    codes, messages = two_ranks(tmp_path, (), patience=2)
    assert codes == [0, 0]
    assert messages == [(0, "has it"), (0, "has it"), (1, "has it"), (1, "has it")]


def test_a_job_that_fails_on_all_ranks_is_followed_by_the_next(tmp_path):
    codes, messages = two_ranks(tmp_path, (0, 1), patience=2)
    assert codes == [0, 0]
    assert messages == [(0, "has it"), (0, "no space left"), (1, "has it"), (1, "no space left")]


def detect_alone(root, number, messages):
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=number, world_size=2)
    store = Store(root)
    if number == 0:
        try:
            store.build(wanted("detect"), fail)
        except RuntimeError as error:
            messages.put((number, str(error)))
    store.build(WANTED, lambda folder: dist.barrier(), together=True)
    messages.put((number, "has it"))


def test_what_the_first_rank_builds_alone_may_fail(tmp_path):
    messages = FORKSERVER.Queue()
    ranks = [
        FORKSERVER.Process(target=detect_alone, args=(tmp_path, n, messages)) for n in range(2)
    ]
    for process in ranks:
        process.start()
    received = sorted(messages.get(timeout=60) for _ in range(3))
    assert received == [(0, "has it"), (0, "out of memory"), (1, "has it")]
    for process in ranks:
        process.join(60)


def test_a_rank_that_fails_alone_ends_and_no_other_waits_for_it(tmp_path, capfd):
    codes, messages = two_ranks(tmp_path, (1,), patience=50)
    assert 0 not in codes
    assert messages == []
    message = "rank 1 failed, and other ranks did not: ending all. no space left"
    assert message in capfd.readouterr().err


# Provenance.


def test_the_provenance_says_what_an_artifact_is_and_how_it_was_built(store):
    description = wanted("detect", 3, "fan section 00", {"train": "0123456789abcdef"}, r=0.5)
    provenance = store.provenance(store.build(description, Build()))
    assert provenance.description == description
    assert provenance.bytes == 2
    assert list(provenance.files) == ["answer"]
    assert {"python", "torch", "numpy", "fsasd"} <= set(provenance.versions)
    fields = json.loads((store.path(description) / PROVENANCE).read_text())
    assert fields["key"] == description.key
    assert fields["files"]["answer"]["size"] == 2


def test_files_are_read_only(store):
    def build(folder):
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("1")

    path = store.build(WANTED, build)
    modes = {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()}
    assert modes == {0o444}


# Damage.


def forget(store):
    """Behave like a new process, which has verified nothing."""
    fsasd.store.store._verified.clear()


def damage_content(path):
    (path / "answer").chmod(0o644)
    (path / "answer").write_text("43")


def damage_size(path):
    (path / "answer").chmod(0o644)
    (path / "answer").write_text("")


DAMAGES = {
    "content": (damage_content, "answer: expected the SHA-256 73475cb.*, found 44cb730"),
    "size": (damage_size, "answer: expected 2 bytes, found 0"),
    "file": (lambda path: (path / "answer").unlink(), "answer: expected 2 bytes, found no file"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_artifact_is_named_and_built_again(store, kind, caplog):
    damage, message = DAMAGES[kind]
    path = store.build(WANTED, Build())
    damage(path)
    forget(store)
    assert store.find(WANTED) is None
    assert caplog.records[-1].levelname == "ERROR"
    assert caplog.messages[-1].startswith(f"stage: {path} is damaged and not used: ")
    (reason,) = store.why(WANTED)
    assert re.search(message, reason)
    build = Build()
    assert store.build(WANTED, build) == path
    assert build.runs == 1
    assert (path / "answer").read_text() == "42"


def test_an_artifact_is_read_once_in_a_process(store, monkeypatch):
    store.build(WANTED, Build())
    forget(store)
    assert store.find(WANTED)
    monkeypatch.setattr(
        "fsasd.store.provenance.Provenance.damage", lambda *_: pytest.fail("read twice")
    )
    assert store.find(WANTED)


def test_a_store_that_cannot_be_written_says_so(store, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system", "store/stage")

    monkeypatch.setattr("fsasd.store.store.FileLock", refuse)
    with pytest.raises(StoreError, match=r"stage: .* cannot be built: Read-only file system"):
        store.build(WANTED, Build())
