import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from filelock import FileLock

from fsasd.store.collecting import collect, forget_runs, garbage
from fsasd.store.key import Description
from fsasd.store.listing import COLLECTED, artifacts, lock_path
from fsasd.store.provenance import Provenance
from fsasd.store.registry import RUNS, registered
from fsasd.store.store import Store

FINETUNE = Description("finetune", 1, {"steps": 400})
SYNTHESISE = Description("synthesise", 1, {}, {"finetune": FINETUNE.key}, "fan section 00")
DETECT = Description("detect", 1, {}, {"synthetic": SYNTHESISE.key}, "fan section 00")
OTHER = Description("finetune", 1, {"steps": 800})


def write(folder):
    (folder / "model").write_text("1" * 100)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for description in (FINETUNE, SYNTHESISE, DETECT, OTHER):
        store.build(description, write)
    return store


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def keys(unused):
    return {artifact.key for artifact in unused.artifacts}


def test_all_is_unused_without_a_run(store):
    assert len(keys(garbage(store.root))) == 4


def test_what_a_run_uses_and_what_that_is_built_from_is_no_garbage(store, run):
    store.use(run, DETECT)
    assert keys(garbage(store.root)) == {OTHER.key}


def test_a_run_folder_that_is_gone_uses_nothing(store, run):
    store.use(run, DETECT, store.path(OTHER))
    assert keys(garbage(store.root)) == set()
    run.rmdir()
    unused = garbage(store.root)
    assert len(keys(unused)) == 4
    assert forget_runs(store.root) == []
    assert all(map(collect, unused.artifacts))
    assert [gone.folder for gone in forget_runs(store.root)] == [run]
    assert list(registered(store.root)) == []


def test_what_a_run_used_in_earlier_calls_is_used(store, run):
    store.use(run, FINETUNE)
    store.use(run, OTHER)
    (registered_run,) = registered(store.root)
    assert set(registered_run.artifacts) == {FINETUNE.key, OTHER.key}
    assert (registered_run.folder, registered_run.hosts) == (run, {socket.gethostname()})


def test_what_was_used_a_short_time_ago_is_not_old(store, run):
    for path in store.root.rglob("*"):
        os.utime(path, (0, time.time() - 10 * 86400))
    store.use(run, OTHER)
    run.rmdir()
    assert len(keys(garbage(store.root, days=9))) == 3
    assert keys(garbage(store.root, days=11)) == set()


def test_what_was_collected_leaves_its_key_and_provenance(store):
    path = store.find(FINETUNE)
    for artifact in garbage(store.root).artifacts:
        assert collect(artifact)
    assert store.find(FINETUNE) is None
    left = Provenance.read(path.with_name(path.name + COLLECTED))
    assert left.description == FINETUNE
    assert left.files["model"].size == 100
    assert left.collected
    assert {artifact.state for artifact in artifacts(store.root)} == {"collected"}
    assert keys(garbage(store.root)) == set()
    # It is built again like any other.
    assert store.why(FINETUNE) == [f"it was collected {left.collected}"]
    assert store.build(FINETUNE, write) == path
    assert not path.with_name(path.name + COLLECTED).exists()


def test_a_collected_artifact_is_one_to_differ_from(store):
    for artifact in garbage(store.root).artifacts:
        collect(artifact)
    wanted = Description("finetune", 1, {"steps": 500})
    assert store.why(wanted)[0].startswith("steps ")
    later = Description("synthesise", 1, {}, {"finetune": OTHER.key}, "fan section 00")
    assert store.why(later) == ["input finetune: steps 400 -> 800"]


def test_what_is_being_built_is_not_collected_nor_what_it_is_built_from(store):
    (listed,) = [a for a in garbage(store.root).artifacts if a.key == DETECT.key]
    partial = store.path(DETECT).with_suffix(".partial")
    store.path(DETECT).rename(partial)
    (partial / "provenance.json").rename(partial / "building.json")
    with FileLock(lock_path(store.path(DETECT))):
        assert keys(garbage(store.root)) == {OTHER.key}
        assert not collect(listed)
    assert len(keys(garbage(store.root))) == 4


def test_what_was_built_anew_meanwhile_is_not_collected(store):
    listed = garbage(store.root).artifacts
    for description in (FINETUNE, SYNTHESISE, DETECT, OTHER):
        time.sleep(0.002)
        store.build(description, write, again=True)
    assert not any(map(collect, listed))
    assert store.find(FINETUNE)


def test_unfinished_damaged_and_replaced_ones_are_garbage(store):
    (store.path(OTHER) / "provenance.json").unlink()
    path = store.path(FINETUNE)
    path.with_name(f"{path.name}.partial").mkdir()
    shutil.copytree(path, path.with_name(f"{path.name}.replaced"))
    states = sorted(artifact.state for artifact in garbage(store.root).artifacts)
    assert states == ["damaged", "replaced", "unfinished", "whole", "whole", "whole"]
    for artifact in garbage(store.root).artifacts:
        collect(artifact)
    assert [p.name for p in store.root.glob("finetune/*") if p.is_dir()] == []


def test_a_disk_that_is_full_is_made_room_on(store, monkeypatch):
    (artifact,) = [a for a in garbage(store.root).artifacts if a.key == FINETUNE.key]
    write_provenance = Provenance.write

    def write_if_there_is_room(provenance, path):
        if (artifact.path / "model").exists():
            raise OSError(28, "No space left on device")
        write_provenance(provenance, path)

    monkeypatch.setattr(Provenance, "write", write_if_there_is_room)
    assert collect(artifact)
    assert artifact.path.with_name(artifact.key + COLLECTED).is_file()


def test_damaged_lines_of_the_registry_are_left_out(store, run):
    store.use(run, FINETUNE)
    (file,) = (store.root / RUNS).iterdir()
    with file.open("a") as lines:
        lines.write('\n{"folder": "/half')
    store.use(run, OTHER)
    (registered_run,) = registered(store.root)
    assert set(registered_run.artifacts) == {FINETUNE.key, OTHER.key}


@pytest.fixture
def elsewhere(store, run, monkeypatch):
    """A run of another machine, whose folder is not there."""
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "node7")
        store.use(run, FINETUNE)
    run.rmdir()


def test_a_folder_of_another_machine_is_gone_if_its_file_system_is_the_stores(store, elsewhere):
    assert FINETUNE.key in keys(garbage(store.root))


def test_a_folder_of_another_machine_on_another_file_system_may_be_there(store, elsewhere):
    (file,) = (store.root / RUNS).iterdir()
    line = json.loads(file.read_text())
    file.write_text(json.dumps(line | {"folder": "/proc/no/such/run"}))
    unused = garbage(store.root)
    assert FINETUNE.key not in keys(unused)
    assert [str(run.folder) for run in unused.unknown] == ["/proc/no/such/run"]
    assert forget_runs(store.root) == []


def test_a_folder_that_is_closed_may_be_there(store, run, monkeypatch):
    def fails(path):
        raise PermissionError(13, "Permission denied")

    store.use(run, FINETUNE)
    (registered_run,) = registered(store.root)
    monkeypatch.setattr(Path, "exists", fails)
    assert registered_run.exists(store.root) is None
