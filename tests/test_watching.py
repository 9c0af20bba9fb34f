"""Recordings are scored when they are complete, once, whatever happens to the folder."""

import os
import shutil
import threading

import pytest

from fsasd.deployment import watching
from fsasd.deployment.watching import SETTLED, Watcher, watch


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    (folder / "inner").mkdir(parents=True)
    return folder


def names(paths):
    return [path.name for path in paths]


def test_what_is_unchanged_for_two_seconds_is_complete(folder):
    watcher = Watcher(folder)
    path = folder / "inner/a.wav"
    path.write_bytes(b"1")
    assert watcher.complete(10.0) == []
    path.write_bytes(b"12")
    assert watcher.complete(11.0) == []
    assert watcher.complete(10.9 + SETTLED) == []
    assert watcher.complete(11.0 + SETTLED) == [path]
    assert watcher.complete(99.0) == []


def test_what_is_closed_is_complete_at_once(folder):
    watcher = Watcher(folder)
    for name in ("b.wav", "a.wav", "c.txt"):
        (folder / name).write_bytes(b"1")
    watcher.closed(folder / "a.wav")
    watcher.closed(folder / "c.txt")
    assert names(watcher.complete(0.0)) == ["a.wav"]
    assert names(watcher.complete(SETTLED)) == ["b.wav"]


def test_what_is_there_at_the_start_is_left_alone_until_it_changes(folder):
    path = folder / "a.wav"
    path.write_bytes(b"1")
    watcher = Watcher(folder)
    assert watcher.complete(0.0) == watcher.complete(9.0) == []
    path.write_bytes(b"12")
    assert watcher.complete(10.0) == []
    assert watcher.complete(12.0) == [path]


def test_a_recording_that_is_rotated_is_scored_again(folder):
    watcher = Watcher(folder)
    path = folder / "a.wav"
    for turn in range(3):
        path.write_bytes(b"1" * turn)
        watcher.closed(path)
        assert watcher.complete(turn) == [path]
        path.rename(folder / f"a.{turn}.old")
        assert watcher.complete(turn + 0.5) == []


def test_deleted_recordings_are_forgotten(folder):
    watcher = Watcher(folder)
    for number in range(50):
        path = folder / f"{number}.wav"
        path.write_bytes(b"1")
        watcher.closed(path)
        assert watcher.complete(number) == [path]
        path.unlink()
    watcher.complete(99)
    assert not watcher._files


def test_a_folder_may_go_and_come_back(folder, caplog):
    watcher = Watcher(folder)
    (folder / "a.wav").write_bytes(b"1")
    assert names(watcher.complete(0.0)) == []
    assert names(watcher.complete(5.0)) == ["a.wav"]
    away = folder.rename(folder.with_name("away"))
    for now in (6.0, 7.0):
        assert watcher.complete(now) == []
    assert caplog.text.count("is gone: waiting for it") == 1
    # A share that is mounted again holds what has been scored.
    away.rename(folder)
    assert watcher.complete(8.0) == watcher.complete(20.0) == []
    shutil.rmtree(folder)
    watcher.complete(21.0)
    folder.mkdir()
    (folder / "b.wav").write_bytes(b"1")
    watcher.complete(22.0)
    assert names(watcher.complete(24.0)) == ["b.wav"]


def test_a_link_that_leads_nowhere_costs_nothing(folder):
    watcher = Watcher(folder)
    (folder / "link.wav").symlink_to("nowhere.wav")
    (folder / "a.wav").write_bytes(b"1")
    watcher.complete(0.0)
    assert names(watcher.complete(5.0)) == ["a.wav"]


@pytest.mark.parametrize("way", ["written", "renamed"])
def test_the_operating_system_tells_of_closed_and_renamed_files(folder, way, monkeypatch):
    # Far longer than it takes: what comes before has been told.
    monkeypatch.setattr(watching, "SETTLED", 1e9)
    stop = threading.Event()
    seen = watch(folder, stop)
    assert next(seen) == []
    path = folder / "inner" / "a.wav"
    if way == "written":
        path.write_bytes(b"1")
    else:
        (folder.parent / "a.part").write_bytes(b"1")
        (folder.parent / "a.part").rename(folder / "a.part")
        (folder / "a.part").rename(path)
    assert next(paths for paths in seen if paths) == [path]
    stop.set()
    assert list(seen) in ([], [[]])


def test_a_file_system_that_tells_nothing_is_looked_at(folder, monkeypatch, caplog):
    from watchdog.observers import Observer

    def refuse(self, *args, **options):
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(Observer, "schedule", refuse)
    monkeypatch.setattr(watching, "POLL", 0.01)
    monkeypatch.setattr(watching, "SETTLED", 0.0)
    stop = threading.Event()
    seen = watch(folder, stop)
    assert next(seen) == []
    assert "cannot be observed (inotify watch limit reached)" in caplog.text
    (folder / "a.wav").write_bytes(b"1")
    assert next(paths for paths in seen if paths) == [folder / "a.wav"]
    stop.set()


def test_only_a_folder_can_be_watched(tmp_path):
    with pytest.raises(NotADirectoryError, match="expected a folder to watch"):
        next(watch(tmp_path / "no"))


def test_names_that_are_not_utf_8(folder):
    watcher = Watcher(folder)
    path = folder / os.fsdecode(b"L\xfcfter.wav")
    path.write_bytes(b"1")
    watcher.closed(path)
    assert watcher.complete(0.0) == [path]
