import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fsasd.data import content
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import TABLE, content_hash, content_hashes
from fsasd.data.description import describe_clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import AudioError


@pytest.fixture
def file(tmp_path):
    return old(tmp_path / "a.wav", b"abc")


def old(path, data):
    """Write a file that was changed long ago."""
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18 + len(list(path.parent.iterdir()))))
    return path


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read, in order; other processes' memory is forgotten first."""
    names = []
    sha256 = content._sha256

    def counting(path, strict):
        names.append(path.name)
        return sha256(path, strict)

    monkeypatch.setattr(content, "_sha256", counting)
    return names


def another_process():
    content._table.cache_clear()


def test_it_is_the_sha256_of_the_bytes(file):
    assert content_hash(file) == content_hash(str(file)) == hashlib.sha256(b"abc").hexdigest()


def test_a_file_is_read_once_by_all_processes_that_share_a_folder(file, tmp_path, reads):
    other = old(tmp_path / "b.wav", b"abd")
    first = content_hashes([file, other, file], tmp_path / "cache")
    another_process()
    assert content_hashes([file, other, file], tmp_path / "cache") == first
    assert sorted(reads) == ["a.wav", "b.wav"]


def test_a_file_is_read_once_without_a_folder(file, reads):
    assert content_hash(file) == content_hash(file)
    assert reads == ["a.wav"]


@pytest.mark.parametrize("change", ["size", "time", "path"])
def test_a_file_that_may_have_changed_is_read_anew(file, tmp_path, reads, change):
    before = content_hash(file, tmp_path / "cache")
    if change == "size":
        stat = file.stat()
        file.write_bytes(b"abcd")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    else:
        file = file.rename(tmp_path / "b.wav")
    assert (content_hash(file, tmp_path / "cache") == before) == (change != "size")
    assert len(reads) == 2


@pytest.mark.parametrize("unit", [1, 10**9])
def test_what_was_written_a_moment_ago_may_change_again_without_another_time(tmp_path, unit):
    path = tmp_path / "a.wav"
    path.write_bytes(b"abc")
    time = path.stat().st_mtime_ns // unit * unit
    os.utime(path, ns=(time, time))
    before = content_hash(path, tmp_path)
    path.write_bytes(b"abd")
    os.utime(path, ns=(time, time))
    assert content_hash(path, tmp_path) != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: b"x" + data[1:],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: b"\x00" * len(data),
        lambda data: b"",
    ],
)
def test_a_damaged_table_costs_no_more_than_reading_again(file, tmp_path, reads, damage):
    before = content_hash(file, tmp_path)
    table = tmp_path / TABLE
    table.write_bytes(damage(table.read_bytes()))
    for _ in range(2):
        another_process()
        assert content_hash(file, tmp_path) == before
    assert len(reads) in (2, 3)


def test_a_folder_that_cannot_be_made_is_no_error(file, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert content_hashes([file, file], tmp_path / "cache") == [content_hash(file)] * 2
    other = old(tmp_path / "b.wav", b"abd")
    assert content_hashes([file, other], tmp_path / "cache")[0] == content_hash(file)


def test_a_folder_that_cannot_be_written_is_read(file, tmp_path):
    """As a user who is not root: nothing is refused to root."""
    if os.getuid():
        pytest.skip("expected root, who can become somebody else")
    other = old(tmp_path / "b.wav", b"abd")
    expected = content_hashes([file], tmp_path)[0]
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(0o755)
    script = (
        "import os, sys; from fsasd.data import content; os.setuid(65534); "
        "print(content.content_hashes(sys.argv[2:], sys.argv[1]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path, file, other],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert expected in ran.stdout
    assert (tmp_path / TABLE).read_text().count("\n") == 1


def test_threads_may_append_at_once(tmp_path):
    files = [old(tmp_path / f"{i}.wav", b"%d" % i) for i in range(40)]
    with ThreadPoolExecutor(8) as threads:
        hashes = list(threads.map(lambda path: content_hash(path, tmp_path), files))
    another_process()
    assert content_hashes(files, tmp_path) == hashes
    assert {hashlib.sha256(b"%d" % i).hexdigest() for i in range(40)} == set(hashes)
    assert threading.active_count() < 8


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav does not exist"):
        content_hash(tmp_path / "gone.wav")
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match=r"folder\.wav: expected a file, found a folder"):
        content_hash(tmp_path / "folder.wav")
    with pytest.raises(AudioError, match=r"pipe\.wav: expected a file, found a pipe"):
        content_hash(tmp_path / "pipe.wav")
    names = ["gone.wav", "folder.wav", "pipe.wav"]
    assert content_hashes([tmp_path / name for name in names], strict=False) == [""] * 3


@pytest.fixture
def clips(tmp_path):
    def clip(name, data, **known):
        return Clip(old(tmp_path / name, data), "fan", "reference", section="00", **known)

    return [
        clip("a.wav", b"a", split="train", label="normal"),
        clip("b.wav", b"b", split="train", label="normal", attributes={"spd": "1"}),
        clip("c.wav", b"c", split="test"),
    ]


def test_clips_are_described_by_machine_section_and_split(clips):
    description = describe_clips(Clips(clips))
    assert list(description) == ["fan 00 train", "fan 00 test", "order"]
    assert description["fan 00 train"].startswith("2 clips, ")
    assert describe_clips(Clips(clips[:1])).keys() == {"fan 00 train"}
    assert describe_clips(Clips([])) == {}


def test_where_clips_lie_is_no_part_of_their_description(clips, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    moved = [replace(c, path=c.path.rename(folder / c.path.name)) for c in clips]
    expected = describe_clips(Clips(moved))
    for clip in moved:
        os.utime(clip.path)
    assert describe_clips(Clips(moved)) == expected


@pytest.mark.parametrize(
    "known",
    [
        {"machine": "pump"}, {"role": "target"}, {"split": "test"}, {"section": "01"},
        {"domain": "target"}, {"label": "anomaly"}, {"attributes": {"spd": "2"}},
        {"raw_label": "spd_2"}, {"synthetic": True},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_is_known_of_a_clip_is_described(clips, known):
    before = describe_clips(Clips(clips))
    assert describe_clips(Clips([replace(clips[0], **known), *clips[1:]])) != before
    ignoring = describe_clips(Clips(clips), without=known)
    altered = describe_clips(Clips([replace(clips[0], **known), *clips[1:]]), without=known)
    # Groups are named after these.
    assert (altered == ignoring) == (not known.keys() & {"machine", "section", "split"})


def test_another_content_name_number_order_or_channel_is_described(clips, tmp_path):
    before = describe_clips(Clips(clips))
    altered = [
        Clips(clips[:2]),
        Clips([clips[1], clips[0], clips[2]]),
        Clips([clips[0], clips[2], clips[1]]),
        Clips(clips, FeatureCache(channel="near")),
    ]
    descriptions = [describe_clips(some) for some in altered]
    renamed = replace(clips[0], path=clips[0].path.rename(tmp_path / "z.wav"))
    descriptions.append(describe_clips(Clips([renamed, *clips[1:]])))
    assert before not in descriptions
    assert {key for key in before if descriptions[0].get(key) != before[key]} == {
        "fan 00 test",
        "order",
    }
    old(tmp_path / "z.wav", b"another")
    assert describe_clips(Clips([renamed, *clips[1:]])) not in descriptions


def test_a_file_is_known_by_where_it_lies_whatever_links_lead_there(tmp_path, monkeypatch):
    folder, other = tmp_path / "v1", tmp_path / "v2"
    for place, text in ((folder, b"one"), (other, b"two")):
        place.mkdir()
        (place / "a.wav").write_bytes(text)
        # Files of archives may have one size and one time.
        os.utime(place / "a.wav", (1_000_000_000, 1_000_000_000))
    (tmp_path / "data").symlink_to(folder)
    (tmp_path / "b.wav").symlink_to(folder / "a.wav")
    monkeypatch.chdir(folder)
    ways = [folder / "a.wav", tmp_path / "data" / "a.wav", tmp_path / "b.wav", Path("a.wav")]
    assert len({content._key(path, strict=True) for path in ways}) == 1
    # The link leads to another folder: what is cached of it does not hold.
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to(other)
    assert content_hash(tmp_path / "data" / "a.wav") != content_hash(folder / "a.wav")
