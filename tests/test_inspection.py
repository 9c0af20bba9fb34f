"""Recordings are read once, and what was found is kept as long as they stay as they are."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fsasd.data import recording
from fsasd.data.check import inspection
from fsasd.data.check.inspection import inspect, inspect_once
from fsasd.data.check.measures import BANDS
from fsasd.data.metadata import Clip


@pytest.fixture
def reads(monkeypatch):
    """Name the recordings that are decoded."""
    names = []
    blocks = inspection.blocks

    def counted(path):
        names.append(path.name)
        return blocks(path)

    monkeypatch.setattr(inspection, "blocks", counted)
    return names


@pytest.fixture
def clips(make_wav):
    return [Clip(make_wav(f"{i}.wav"), "press", split="train") for i in range(3)]


def test_what_is_kept_is_what_was_found(clips, make_wav, tmp_path):
    bad = make_wav("bad.wav")
    bad.write_bytes(b"")
    clips = [*clips, Clip(bad, "press"), Clip(make_wav("silent.wav", np.zeros(99)), "press")]
    expected = inspect(clips)
    for _ in range(2):
        pd.testing.assert_frame_equal(
            inspect_once(clips, tmp_path / "cache"), expected, check_dtype=False, rtol=1e-12
        )
    pd.testing.assert_frame_equal(inspect_once(clips, None), expected)


def test_what_did_not_change_is_not_read_again(clips, reads, tmp_path, make_wav):
    inspect_once(clips[:2], tmp_path)
    assert sorted(reads) == ["0.wav", "1.wav"]
    reads.clear()
    os.utime(clips[0].path, (1, 1))
    make_wav("1.wav", np.full(400, 0.3))
    assert len(inspect_once([*clips, clips[2]], tmp_path)) == 4
    assert sorted(reads) == ["1.wav", "2.wav"]
    reads.clear()
    inspect_once(clips, tmp_path)
    inspect_once(clips[::-1], tmp_path)
    moved = [replace(c, path=c.path.rename(tmp_path / f"moved_{c.path.name}")) for c in clips]
    inspect_once(moved, tmp_path)
    assert reads == []


def test_metadata_are_not_kept(clips, tmp_path):
    inspect_once(clips, tmp_path)
    other = [replace(clip, machine="mill", section="01") for clip in clips]
    again = inspect_once(other, tmp_path)
    assert set(again["machine"]) == {"mill"}
    assert set(again["section"]) == {"01"}


def test_another_channel_is_another_recording(make_wav, tmp_path):
    stereo = np.stack([np.full(400, 0.5), np.zeros(400)], axis=1)
    clips = [Clip(make_wav("stereo.wav", stereo), "press")]
    assert inspect_once(clips, tmp_path, "near")["peak"].item() == pytest.approx(0.5, abs=1e-4)
    assert inspect_once(clips, tmp_path, "far")["peak"].item() == 0
    assert "found 2 channels" in inspect_once(clips, tmp_path)["problem"].item()


def test_what_could_not_be_opened_is_tried_again_by_the_first_rank(clips, reads, tmp_path):
    gone = Clip(tmp_path / "gone.wav", "press")
    bad = clips[0].path
    bad.write_bytes(b"no audio")
    found = inspect_once([*clips, gone], tmp_path)
    assert found["problem"].notna().tolist() == [True, False, False, True]
    reads.clear()
    inspect_once([*clips, gone], tmp_path, again=False)
    assert reads == []
    inspect_once([*clips, gone], tmp_path, again=True)
    assert reads == ["gone.wav"]


def test_a_damaged_table_is_told_and_made_anew(clips, reads, tmp_path, caplog):
    inspect_once(clips, tmp_path)
    (table,) = tmp_path.glob("recordings-*.csv")
    for damage in (b"", b"\xff\xfe", table.read_bytes()[:40]):
        table.write_bytes(damage)
        reads.clear()
        caplog.clear()
        inspect_once(clips, tmp_path)
        assert len(reads) == 3
        assert f"{table} is damaged" in caplog.text


def test_a_full_disk_is_told(clips, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match=r"could not be written to .* \(No space left on device\)"):
        inspect_once(clips, tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_no_recordings_are_no_rows(tmp_path):
    assert inspect_once([], tmp_path / "cache").empty
    assert not Path(tmp_path / "cache").exists()


def test_a_long_recording_is_measured_in_pieces(make_wav, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    path = make_wav("long.wav", 0.1 * rng.standard_normal(50_000), subtype="FLOAT")
    whole = inspect([Clip(path, "press")])
    monkeypatch.setattr(recording, "_BLOCK", 10_000)
    pieces = inspect([Clip(path, "press")])
    exact = ["seconds", "peak", "silent", "clipped", "content", "problem"]
    pd.testing.assert_frame_equal(pieces[exact], whole[exact])
    assert pieces["level"].item() == pytest.approx(whole["level"].item(), abs=0.01)
    np.testing.assert_allclose(pieces[[*BANDS]], whole[[*BANDS]], atol=1.5)


def test_a_name_that_is_not_utf_8_is_written_with_escapes(make_wav, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/L\xfcfter.wav"))
    make_wav("a.wav").rename(path)
    for found in (inspect([Clip(path, "press")]), inspect_once([Clip(path, "press")], tmp_path)):
        assert found["path"].item() == f"{tmp_path}/L\\xfcfter.wav"
        assert found["problem"].isna().all()


def test_where_nothing_can_be_written_recordings_are_read_all_the_same(clips, reads, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    pd.testing.assert_frame_equal(inspect_once(clips, tmp_path / "cache"), inspect(clips))
