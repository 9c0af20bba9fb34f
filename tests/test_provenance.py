import errno
import json
import os
import re
import subprocess

import pytest

import fsasd
from fsasd.store import provenance
from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE, Provenance, StoreError, commit, versions

DESCRIPTION = Description("detect", 3, {"r": 0.5}, {"train": "0" * 16}, "fan section 00")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1234")
    (tmp_path / "scores.csv").write_text("score\n1\n")
    (tmp_path / ".scores.csv.1-2.unfinished").write_text("sco")
    (tmp_path / "building.json").write_text("{}")
    return tmp_path


@pytest.fixture
def written(folder):
    Provenance.of(DESCRIPTION, folder, "2026-01-01T00:00:00+00:00", 1.25).write(folder / PROVENANCE)
    return folder / PROVENANCE


def test_what_is_written_is_read(folder, written):
    read = Provenance.read(written)
    assert read.description == DESCRIPTION
    assert read.key == DESCRIPTION.key
    assert (read.started, read.seconds, read.bytes) == ("2026-01-01T00:00:00+00:00", 1.25, 12)
    assert list(read.files) == ["model/weights", "scores.csv"]
    assert read.versions == versions()
    assert read.damage(folder) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"stage": "detect"}', "\0" * 100],
)
def test_a_damaged_provenance_is_an_error_that_names_the_file(written, text):
    written.write_text(text)
    with pytest.raises(StoreError, match=r"provenance\.json: expected a provenance that is whole"):
        Provenance.read(written)


@pytest.mark.parametrize("field", ["spec", "version", "seconds", "files", "host", "sha256"])
def test_a_provenance_of_which_anything_was_changed_is_damaged(written, field):
    fields = json.loads(written.read_text())
    fields[field] = "another"
    written.write_text(json.dumps(fields))
    with pytest.raises(StoreError, match=r"provenance\.json: expected a provenance"):
        Provenance.read(written)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1235", "model/weights: expected the SHA-256 03ac674216f3.*, found 310ced37"),
        (b"123", "model/weights: expected 4 bytes, found 3"),
        (None, "model/weights: expected 4 bytes, found no file"),
    ],
)
def test_the_first_damaged_file_is_named(folder, written, content, message):
    if content is None:
        (folder / "model" / "weights").unlink()
    else:
        (folder / "model" / "weights").write_bytes(content)
    damage = Provenance.read(written).damage(folder)
    assert damage is not None
    assert re.match(message, damage)


def test_of_large_files_the_size_is_compared_unless_all_is_asked_for(folder, written):
    (folder / "model" / "weights").write_bytes(b"1235")
    read = Provenance.read(written)
    assert read.damage(folder, hashed=3) is None
    assert read.damage(folder, hashed=4)
    assert provenance.HASHED == 64 * 2**20


def test_a_file_that_cannot_be_opened_is_an_error_and_no_damage(folder, written, monkeypatch):
    read = Provenance.read(written)

    def fails(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(provenance, "_sha256", fails)
    number = errno.EMFILE
    with pytest.raises(OSError, match="Too many open files"):
        read.damage(folder)
    number = errno.EIO
    assert read.damage(folder) == (
        "model/weights: expected a file that can be read (Input/output error)"
    )


def test_files_that_were_added_are_no_damage(folder, written):
    (folder / ".DS_Store").touch()
    assert Provenance.read(written).damage(folder) is None


def test_the_commit_is_that_of_fsasds_repository(monkeypatch, tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(fsasd, "__file__", str(tmp_path / "fsasd" / "__init__.py"))
    commit.cache_clear()
    assert commit() is None
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-m", "first")
    commit.cache_clear()
    first = commit()
    assert len(first) == 40
    (tmp_path / "file").write_text("2")
    commit.cache_clear()
    assert commit() == f"{first}-dirty"
    commit.cache_clear()
