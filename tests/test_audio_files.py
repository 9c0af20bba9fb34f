import logging
from pathlib import Path

import pytest
import soundfile

from fsasd.data.audio_files import (
    AUDIO_SUFFIXES,
    folders_in,
    is_foreign,
    is_recording,
    recordings_below,
    recordings_in,
    warn_of_left_out,
)
from fsasd.data.recording import decode

FOREIGN = [
    ".ipynb_checkpoints", "@eaDir", "__MACOSX", ".Trash-1000", "#recycle", "$RECYCLE.BIN",
    "System Volume Information", "lost+found", ".git", "__pycache__",
]  # fmt: skip


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("name", [*FOREIGN, "._a.wav", "Thumbs.db", "desktop.ini", ".DS_Store"])
def test_what_other_programs_leave_is_foreign(name):
    assert is_foreign(name)


@pytest.mark.parametrize("name", ["#1 pump", "@home", "recycled pump", "macosx", "~a", "a.wav"])
def test_what_people_name_is_not(name):
    assert not is_foreign(name)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".aif", {"format": "AIFF"}), (".au", {}), (".caf", {}), (".flac", {}), (".mp3", {}),
        (".ogg", {}), (".opus", {"format": "OGG", "subtype": "OPUS"}), (".w64", {}), (".wav", {}),
        (".WAV", {}), (".aiff", {"format": "AIFF"}), (".snd", {"format": "AU"}),
    ],
)  # fmt: skip
def test_a_recording_is_what_soundfile_reads(tmp_path, suffix, options):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, [0.1, 0.2] * 4000, 16_000, **options)
    assert is_recording(path)
    assert decode(path)[1] in (16_000, 48_000)
    assert suffix.lower() in AUDIO_SUFFIXES


def test_recordings_are_found_below_and_foreign_folders_are_not_entered(tmp_path):
    touch(tmp_path, "b.wav", "a/x.mp3", "a/deep/y.AIFF", "a/._x.mp3", "notes.txt")
    touch(tmp_path, *(f"{name}/z.wav" for name in FOREIGN))
    names = [path.relative_to(tmp_path).as_posix() for path in recordings_below(tmp_path)]
    assert names == ["a/deep/y.AIFF", "a/x.mp3", "b.wav"]
    assert [path.name for path in recordings_in(tmp_path)] == ["b.wav"]
    assert [path.name for path in folders_in(tmp_path)] == ["a"]


def test_a_link_that_leads_back_is_followed_once(tmp_path):
    touch(tmp_path, "a/x.wav")
    (tmp_path / "a/up").symlink_to(tmp_path)
    assert recordings_below(tmp_path) == [tmp_path / "a/x.wav"]


def test_what_looks_like_audio_and_is_left_out_is_told_in_one_line(tmp_path, caplog):
    touch(tmp_path, "a.wav", "b.m4a", "c/d.flac", "c/e.wma", "c/f.txt", "@eaDir/g.wav")
    with caplog.at_level(logging.WARNING, "fsasd"):
        warn_of_left_out(tmp_path, [tmp_path], [tmp_path / "a.wav"])
    (line,) = caplog.messages
    assert line == (
        f"{tmp_path}: 3 files that look like audio left out (.m4a, .wma cannot be read): "
        f"b.m4a, {Path('c/d.flac')}, {Path('c/e.wma')}"
    )
    caplog.clear()
    warn_of_left_out(tmp_path, [tmp_path / "@eaDir"], [tmp_path / "@eaDir/g.wav"])
    assert not caplog.messages


def test_a_link_to_itself_is_a_recording_that_cannot_be_read(tmp_path):
    loop = tmp_path / "loop.wav"
    loop.symlink_to("loop.wav")
    assert recordings_in(tmp_path) == recordings_below(tmp_path) == [loop]
    assert folders_in(tmp_path) == []
