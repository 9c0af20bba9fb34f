"""Faults of a store: killed processes, full disks, damaged files, other users, no rights."""

import errno
import json
import os
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from several_ranks import CONTEXT

from fsasd.store import atomic
from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE, StoreError
from fsasd.store.store import Store
from fsasd.store.verifying import forget

STAGES = [Description("synthesise", 1, {"stage": n}, section=f"fan section {n:02}") for n in (0, 1)]
STAGES += [Description("detect", 1, {"stage": n}) for n in range(2)]
FILES = 6


def wanted(**spec):
    return Description("stage", 1, spec)


def content(n):
    return f"{n}" * 1000


def resumable(folder):
    """Write files, those that are there left out, as a synthesis does."""
    for n in range(FILES):
        path = folder / "clips" / f"{n}.wav"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            with atomic.replacing(path) as unfinished:
                unfinished.write_text(content(n))
            time.sleep(0.002)


def build_all(root):
    store = Store(root)
    for description in STAGES:
        store.build(description, resumable)


def is_complete(path):
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return files == [*(f"clips/{n}.wav" for n in range(FILES)), PROVENANCE] and all(
        (path / "clips" / f"{n}.wav").read_text() == content(n) for n in range(FILES)
    )


def run(function, *arguments):
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


# Killed processes.


def test_killed_builds_go_on_and_nothing_that_was_finished_is_built_again(tmp_path):
    store, draw = Store(tmp_path), random.Random(0)
    run(build_all, tmp_path / "warm").join()
    finished = {}
    for _ in range(20):
        process = run(build_all, tmp_path)
        time.sleep(draw.uniform(0, 0.12))
        process.kill()
        process.join()
        for description in STAGES:
            if path := store.find(description):
                assert is_complete(path)
                written = (path / PROVENANCE).stat().st_mtime_ns
                assert finished.setdefault(path, written) == written
    forget()
    build_all(tmp_path)
    paths = [store.find(description) for description in STAGES]
    assert all(map(is_complete, paths))
    assert all((path / PROVENANCE).stat().st_mtime_ns == n for path, n in finished.items())
    assert not [*tmp_path.rglob("*.partial"), *tmp_path.rglob("*.unfinished")]


def test_a_build_that_was_killed_before_it_was_renamed_is_only_renamed(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fsasd.store.building.replace_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            store.build(wanted(), resumable)
    path = store.build(wanted(), lambda folder: pytest.fail("built again"))
    assert is_complete(path)


def test_a_killed_build_that_was_to_be_renamed_but_is_damaged_goes_on(tmp_path, monkeypatch):
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("fsasd.store.building.replace_folder", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.build(wanted(), resumable)
    partial = store.path(wanted()).with_suffix(".partial")
    (partial / "clips" / "3.wav").unlink()
    path = store.build(wanted(), resumable)
    assert is_complete(path)


def test_the_time_of_killed_builds_counts(tmp_path):
    path = Store(tmp_path).path(wanted())
    process = run(_build_slowly, tmp_path)
    partial = path.with_suffix(".partial")
    deadline = time.monotonic() + 30
    while not (partial / "late").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    Store(tmp_path).build(wanted(), lambda folder: None)
    assert 0.2 < Store(tmp_path).provenance(path).seconds < 5


def _build_slowly(root):
    def build(folder):
        time.sleep(0.3)
        (folder / "late").touch()
        time.sleep(60)

    Store(root).build(wanted(), build)


# Several processes at once.


def _build_counted(root, counts):
    def build(folder):
        with (counts / os.fsencode(folder.name).hex()).open("a") as file:
            file.write("x")
        resumable(folder)

    for description in STAGES:
        Store(root).build(description, build)


def test_what_several_processes_need_at_once_is_built_once(tmp_path):
    counts = tmp_path / "counts"
    counts.mkdir()
    processes = [run(_build_counted, tmp_path / "store", counts) for _ in range(4)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [path.read_text() for path in counts.iterdir()] == ["x"] * len(STAGES)
    assert all(is_complete(Store(tmp_path / "store").find(wanted)) for wanted in STAGES)


# Full disks.


@pytest.mark.parametrize("limit", [0, 1, 100, 200, 400, 900])
def test_files_that_find_no_room_leave_nothing_that_blocks_the_next_run(tmp_path, limit):
    store = Store(tmp_path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.build(wanted(), resumable)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert store.find(wanted()) is None
    assert is_complete(store.build(wanted(), resumable))
    assert not list(tmp_path.rglob("*.unfinished"))


CALLS = [
    (Path, "mkdir"), (Path, "open"), (Path, "write_text"), (Path, "replace"), (Path, "rename"),
    (Path, "chmod"), (os, "fsync"),
]  # fmt: skip


def test_a_disk_that_is_full_at_any_call_leaves_nothing_that_blocks_the_next_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(f"{__name__}.FILES", 2)
    failures, left = 0, [-1]
    for call in range(300):
        store, left[0] = Store(tmp_path / str(call)), call
        # One that is new, and one that takes the place of a damaged artifact.
        (store.build(wanted(n=1), resumable) / "clips" / "0.wav").unlink()
        forget()
        with monkeypatch.context() as patch:
            for owner, name in CALLS:
                patch.setattr(owner, name, _failing(getattr(owner, name), left))
            failures += sum(_fails(store, wanted(n=n)) for n in range(2))
        forget()
        for n in range(2):
            assert is_complete(store.build(wanted(n=n), resumable))
        assert not [*store.root.rglob("*.partial"), *store.root.rglob("*.replaced")]
        shutil.rmtree(store.root)
        if left[0] >= 0:
            break
    assert left[0] >= 0
    assert failures > 30


def _fails(store, description):
    try:
        store.build(description, resumable)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return True
    return False


def _failing(function, left):
    def fails_once(*arguments, **options):
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*arguments, **options)

    return fails_once


@pytest.mark.parametrize("name", ["building.json", ".clips.1-2.unfinished", PROVENANCE])
@pytest.mark.parametrize("text", ["", "{", "[1]", '{"started": null}'])
def test_what_a_full_disk_left_of_a_file_blocks_nothing(tmp_path, name, text):
    store = Store(tmp_path)
    partial = store.path(wanted()).with_suffix(".partial")
    partial.mkdir(parents=True)
    (partial / name).write_text(text)
    partial.with_suffix(".lock").write_text(text)
    assert is_complete(store.build(wanted(), resumable))


# Damaged files.


def _cut(path):
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-2])


def _flip(path):
    path.chmod(0o644)
    before = path.read_bytes()
    middle = len(before) // 2
    path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])


def _empty(path):
    path.chmod(0o644)
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, Path.unlink])
@pytest.mark.parametrize("name", ["clips/3.wav", PROVENANCE])
def test_any_damage_is_noticed_and_built_anew(tmp_path, damage, name, caplog):
    store = Store(tmp_path)
    path = store.build(wanted(), resumable)
    damage(path / name)
    forget()
    assert store.find(wanted()) is None
    assert f"{path} is damaged and not used: " in caplog.text
    assert name in caplog.text
    assert is_complete(store.build(wanted(), resumable))


def test_an_artifact_under_the_key_of_another_is_noticed(tmp_path, caplog):
    store = Store(tmp_path)
    store.build(wanted(n=0), resumable).rename(store.path(wanted(n=1)))
    forget()
    assert store.find(wanted(n=1)) is None
    assert f"expected that of {wanted(n=1).key}, found that of {wanted(n=0).key}" in caplog.text


# Rights. Whoever is root may write everything.

NOBODY = 65534


def as_user(user, function, *arguments):
    """Run a function in a process of a user that is not root; return what it returns."""
    results = CONTEXT.Queue()
    process = CONTEXT.Process(target=_as_user, args=(user, function, arguments, results))
    process.start()
    result = results.get(timeout=60)
    process.join()
    return result


def _as_user(user, function, arguments, results):
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(user)
        os.umask(0o002)
    try:
        results.put(function(*arguments))
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")


@pytest.fixture
def shared():
    """A folder that every user can reach, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def _read_and_build(root):
    before = _state(root)
    answers = []
    for n in (0, 1, 2):
        try:
            path = Store(root).build(wanted(n=n), resumable)
            Store(root).use(root / "run", wanted(n=n))
            answers.append(is_complete(path))
        except StoreError as error:
            answers.append(str(error))
    return answers, _state(root) == before


def _state(root):
    return sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))


def test_a_complete_store_that_cannot_be_written_is_used_and_an_incomplete_one_says_so(shared):
    for n in (0, 2):
        Store(shared).build(wanted(n=n), resumable)
    (Store(shared).path(wanted(n=2)) / "clips" / "0.wav").unlink()
    for path in [shared, *shared.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (complete, missing, damaged), unchanged = as_user(NOBODY, _read_and_build, shared)
    assert complete is True
    assert unchanged
    path = Store(shared).path(wanted(n=1))
    assert f"stage: {path} is not in the store, and cannot be built: " in missing
    assert "Permission denied" in missing
    assert "Expected a store that can be written, or one that is complete" in missing
    reason = "clips/0.wav: expected 1000 bytes, found no file"
    assert f"{Store(shared).path(wanted(n=2))} is damaged ({reason}), and cannot be" in damaged


def _replace_file(path):
    path.write_text("other")


def test_files_cannot_be_written_by_their_owner(shared):
    if os.getuid() == 0:
        os.chown(shared, NOBODY, NOBODY)
    path = as_user(NOBODY, _build_one, shared)
    answer = as_user(NOBODY, _replace_file, Path(path) / "clips" / "0.wav")
    assert answer.startswith("PermissionError")


def _build_one(root):
    return str(Store(root).build(wanted(), resumable))


def _build_and_fail(root):
    def fail(folder):
        resumable(folder)
        raise ValueError("out of memory")

    Store(root).build(wanted(), fail)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two other users")
def test_two_users_of_a_group_build_in_one_store(shared):
    os.chown(shared, 0, NOBODY)
    shared.chmod(0o2775)
    failure = as_user(NOBODY, _build_and_fail, shared)
    assert failure == "ValueError: out of memory"
    path = Path(as_user(NOBODY - 1, _build_one, shared))
    assert is_complete(path)
    # Another one may build it anew, too.
    (path / "clips" / "0.wav").unlink()
    assert is_complete(Path(as_user(NOBODY, _build_one, shared)))


def test_folders_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        path = Store(tmp_path).build(wanted(), resumable)
    finally:
        os.umask(before)
    assert {folder.stat().st_mode & 0o777 for folder in (path, path.parent)} == {0o750}
    assert json.loads((path / PROVENANCE).read_text())["stage"] == "stage"
    assert {file.stat().st_mode & 0o777 for file in path.rglob("*.*")} == {0o444}
