import errno
import stat

import pytest

from fsasd.pipeline import run_folder
from fsasd.pipeline.run_folder import copy, link, unlink
from fsasd.store.provenance import PROVENANCE


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "store" / "artifact"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.csv", "inner/b.wav", PROVENANCE):
        (folder / name).write_text(name)
        (folder / name).chmod(0o444)
    return folder


def test_a_run_has_files_of_its_own(artifact, tmp_path):
    run = tmp_path / "run"
    link(artifact, run, "synthetic")
    (run / "synthetic/a.csv").write_text("changed")
    assert (artifact / "a.csv").read_text() == "a.csv"
    assert (run / "synthetic/inner/b.wav").read_text() == "inner/b.wav"
    assert not (run / "synthetic" / PROVENANCE).exists()


def test_its_files_can_be_written_by_their_owner(artifact, tmp_path):
    copy(artifact / "a.csv", tmp_path / "copy")
    mode = stat.S_IMODE((tmp_path / "copy").stat().st_mode)
    (tmp_path / "new").touch()
    assert mode == stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert (tmp_path / "copy").stat().st_ino != (artifact / "a.csv").stat().st_ino


def test_files_are_copied_where_blocks_cannot_be_shared(artifact, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("not supported")

    monkeypatch.setattr(run_folder, "_share_blocks", refuse)
    copy(artifact / "a.csv", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "a.csv"


def test_a_run_is_repeated_in_its_folder_without_what_was_there(artifact, tmp_path):
    run = tmp_path / "run"
    link(artifact, run)
    link(artifact, run, "models/fan")
    (run / "report.html").touch()
    (run / "notes.txt").touch()
    unlink(run)
    left = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert left == ["notes.txt"]
    assert not (run / "models").exists()


def test_what_a_killed_run_has_copied_is_taken_away(artifact, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def copy_one(source, target):
        copy(source, target)
        raise Killed

    run = tmp_path / "run"
    monkeypatch.setattr(run_folder, "copy", copy_one)
    with pytest.raises(Killed):
        link(artifact, run, "synthetic")
    assert list((run / "synthetic").iterdir())
    unlink(run)
    assert not list(run.iterdir())


def test_a_copy_that_finds_no_room_names_its_file(artifact, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "copy", refuse)
    with pytest.raises(OSError, match=r"run/synthetic/\S+: .*No space left on device"):
        link(artifact, tmp_path / "run", "synthetic")


def test_what_a_run_made_itself_stays_where_nothing_was_linked(tmp_path):
    (tmp_path / "report.html").touch()
    unlink(tmp_path)
    assert (tmp_path / "report.html").is_file()
