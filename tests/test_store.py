import errno
import json
import logging
import queue
import re
import shutil
import time

import pytest
import several_ranks

from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE, StoreError
from fsasd.store.store import Store
from fsasd.store.verifying import forget

FORKSERVER = several_ranks.CONTEXT
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


def test_the_log_says_that_a_build_is_forced_or_goes_on(store, caplog):
    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(WANTED, fail)
    with caplog.at_level(logging.INFO, "fsasd.store.store"):
        path = store.build(WANTED, Build())
        store.build(WANTED, Build(), again=True)
    assert caplog.messages == [
        f"stage: building {path} (an unfinished build goes on)",
        f"stage: building {path} (forced)",
    ]


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
    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(WANTED, fail)
    assert store.artifacts("stage") == [store.path(fan), store.path(valve)]
    assert store.artifacts("other") == []


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
    # Some versions of filelock remove the lock.
    assert {*names(path.parent)} - {f"{path.name}.lock"} == {path.name}


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


def test_an_artifact_that_one_process_builds_is_published_by_any_rank(store, monkeypatch):
    build = Build()
    for number in ("1", "0", "2"):
        monkeypatch.setenv("RANK", number)
        assert store.build(WANTED, build) == store.path(WANTED)
    assert build.runs == 1


def build_late(number, root):
    """Ask for an artifact; rank 1 does when it has been published."""
    time.sleep(number / 2)
    build = Build()
    Store(root).build(WANTED, build, together=True)
    return build.runs


def test_another_rank_reuses_what_the_first_has_built(tmp_path):
    assert several_ranks.run(build_late, tmp_path) == ([0, 0], [(0, 1), (1, 0)])


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


def build_together(number, root, begun, messages):
    """Build as a rank that is started with the others: none is done before all have begun."""

    def build(folder):
        begun.wait(60)
        messages.put("built")

    Store(root).build(WANTED, build, together=True)
    messages.put("has it")


@pytest.fixture(params=several_ranks.LAUNCHERS)
def ranks_of_one_job(store, other_job, request):
    """Two ranks that are started at once, while another job builds what they need."""
    begun, messages = several_ranks.CONTEXT.Barrier(2), several_ranks.CONTEXT.Queue()
    ranks, _ = several_ranks.start(
        build_together, store.root, begun, messages, launcher=request.param
    )
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


def build_alone(number, root):
    """Fail alone at what one rank builds, then build together."""
    store, messages = Store(root), []
    if number == 0:
        try:
            store.build(wanted("detect"), fail)
        except RuntimeError as error:
            messages.append(str(error))
    store.build(WANTED, lambda folder: messages.append("built"), together=True)
    return messages[:-1]


def test_what_the_first_rank_builds_alone_may_fail(tmp_path):
    codes, results = several_ranks.run(build_alone, tmp_path)
    assert codes == [0, 0]
    assert results == [(0, ["out of memory"]), (1, [])]


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
    forget()
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
    forget()
    assert store.find(WANTED)
    monkeypatch.setattr(
        "fsasd.store.provenance.Provenance.damage", lambda *_: pytest.fail("read twice")
    )
    assert store.find(WANTED)


def test_a_store_that_cannot_be_written_says_so(store, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system", "store/stage")

    monkeypatch.setattr("fsasd.store.store.file_lock", refuse)
    with pytest.raises(StoreError, match=r"stage: .* cannot be built: Read-only file system"):
        store.build(WANTED, Build())


# Why, and the newest.


def test_why_compares_with_the_nearest_artifact_of_the_section(store):
    fan = {"trainer": {"max_steps": 400, "lr": 0.1}, "seed": 0}
    store.build(wanted(section="fan section 00", **fan), Build())
    store.build(wanted(section="fan section 00", **fan | {"seed": 1}), Build())
    store.build(wanted(section="valve section 00", trainer={"max_steps": 800, "lr": 0.1}), Build())
    longer = fan | {"trainer": {"max_steps": 800, "lr": 0.1}}
    assert store.why(wanted(section="fan section 00", **longer)) == ["trainer.max_steps 400 -> 800"]
    assert store.why(wanted(version=2, section="fan section 00", **longer)) == [
        "version 1 -> 2", "trainer.max_steps 400 -> 800"
    ]  # fmt: skip
    assert store.why(wanted(section="pump section 00", **longer)) == []
    assert store.why(wanted(section="fan section 00", **fan)) == []


def test_why_says_what_an_input_differs_in(store):
    finetune, longer = (wanted("finetune", max_steps=steps) for steps in (400, 800))
    for description in (finetune, longer):
        store.build(description, Build())
    synthesise = wanted("synthesise", inputs={"finetune": finetune.key})
    store.build(synthesise, Build())
    other = wanted("synthesise", inputs={"finetune": longer.key})
    assert Store(store.root).why(other) == ["input finetune: max_steps 400 -> 800"]
    # Of inputs of inputs, too, and of those that are only planned.
    store.build(wanted("detect", inputs={"synthetic": synthesise.key}), Build())
    store.path(other)
    assert store.why(wanted("detect", inputs={"synthetic": other.key})) == [
        "input synthetic: input finetune: max_steps 400 -> 800"
    ]


def test_why_counts_inputs_and_names_those_that_are_not_known(store):
    store.build(wanted("rule", inputs={f"fan {n}": "0" * 16 for n in range(9)}), Build())
    assert store.why(wanted("rule", inputs={f"fan {n}": "1" * 16 for n in range(9)})) == [
        "9 inputs changed (fan 0, fan 1, fan 2, ...)"
    ]
    assert store.why(wanted("rule", inputs={f"fan {n}": "0" * 16 for n in range(1, 10)})) == [
        f"input fan 9 (none) -> {'0' * 16}", f"input fan 0 {'0' * 16} -> (none)"
    ]  # fmt: skip


def test_the_newest_is_equal_apart_from_the_entries_that_are_named(store):
    spec = {"clips": ["a.wav"], "lr": 0.1}
    old = store.build(wanted("finetune", **spec), Build())
    time.sleep(0.005)
    new = store.build(wanted("finetune", **spec | {"clips": ["a.wav", "b.wav"]}), Build())
    store.build(wanted("finetune", **spec | {"lr": 1}), Build())
    asked = spec | {"clips": ["c.wav"]}
    assert store.newest("finetune", 1, asked, ignoring=["clips"]) == new
    (new / "answer").unlink()
    forget()
    assert store.newest("finetune", 1, asked, ignoring=["clips"]) == old
    assert store.newest("finetune", 1, asked) is None
    assert store.newest("finetune", 2, asked, ignoring=["clips"]) is None
    assert store.why(wanted("finetune", 2, **asked), ignoring=["clips"]) == ["version 1 -> 2"]
    assert store.newest("train", 1, asked, ignoring=["clips"]) is None
