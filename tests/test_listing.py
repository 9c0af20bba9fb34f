import errno
import os

import pytest
from filelock import FileLock

from fsasd.store.key import Description
from fsasd.store.listing import artifacts, entry, folder_bytes, is_locked, lock_path
from fsasd.store.store import Store

WANTED = Description("stage", 1, {}, section="fan section 00")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_an_unfinished_artifact_says_what_it_is_and_whether_it_is_being_built(store):
    states = []

    def build(folder):
        states.extend(artifacts(store.root))
        raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        store.build(WANTED, build)
    states.extend(artifacts(store.root))
    assert [artifact.state for artifact in states] == ["building", "unfinished"]
    assert {artifact.description for artifact in states} == {WANTED}
    assert {artifact.final for artifact in states} == {store.path(WANTED)}


def test_other_files_and_folders_are_no_artifacts(store):
    store.build(WANTED, lambda folder: None)
    (store.root / "features" / ("a" * 24)).mkdir(parents=True)
    (store.root / "features" / ("a" * 24) / ("b" * 64 + ".npy")).touch()
    (store.root / "notes.txt").touch()
    (store.root / "stage" / ".DS_Store").touch()
    assert [artifact.key for artifact in artifacts(store.root)] == [WANTED.key]


def test_a_path_of_another_name_is_no_entry(tmp_path):
    with pytest.raises(ValueError, match="expected a name that begins with a key of 16 hex"):
        entry(tmp_path / "features")


def test_a_lock_that_is_held_is_one_in_this_process_too(store):
    path = store.build(WANTED, lambda folder: None)
    assert not is_locked(path)
    with FileLock(lock_path(path)):
        assert is_locked(path)
    assert not is_locked(path)


def test_nothing_is_locked_in_a_store_that_cannot_be_written(store, monkeypatch):
    path = store.build(WANTED, lambda folder: None)

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("fsasd.store.listing.file_lock", refuse)
    assert not is_locked(path)


def test_files_that_are_linked_twice_count_once(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_bytes(b"1")
    assert folder_bytes(tmp_path) == 4
