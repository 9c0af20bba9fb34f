"""Which synthetic clips are kept, in a folder apart from that of the recordings."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.encoder_space import RealClips
from fsasd.generation.gap import read_gap
from fsasd.generation.judging import judge
from fsasd.generation.prompts import make_prompts, with_candidates
from fsasd.generation.synthesis import SynthesisFolder
from fsasd.generation.synthetic_clips import read_manifest, read_table, rejections


def noise(seed):
    return 0.1 * np.random.default_rng(seed).standard_normal(SAMPLE_RATE).astype(np.float32)


@pytest.fixture
def real(tmp_path):
    clips = []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, noise(number), SAMPLE_RATE)
        clips.append(Clip(path, "fan", "target", "train", label="normal"))
    return RealClips(Clips(clips, FeatureCache()), ["The normal sound of a fan."] * 4)


@pytest.fixture
def synthesised(tmp_path, real):
    """Two clips of each label, two candidates each; the first two are the same recording."""
    prompts = with_candidates(make_prompts(real.clips, real.captions, 2), 2)
    folder = SynthesisFolder(tmp_path / "synthetic")
    for number, prompt in enumerate(prompts):
        seed = max(number - 1, 0)
        folder.write(prompt, 0.0 * noise(0) if number == 7 else noise(20 + seed) * prompt.gain)
    folder.close(prompts)
    return tmp_path / "synthetic"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_judgement_is_written_apart_from_the_recordings(synthesised, real, tmp_path):
    before = contents(synthesised)
    manifest = judge(synthesised, tmp_path / "judged", real)
    assert contents(synthesised) == before
    assert sorted(path.name for path in (tmp_path / "judged").iterdir()) == [
        *("differences.csv", "gap.csv", "manifest.csv", "quality.csv")
    ]
    pd.testing.assert_frame_equal(read_table(tmp_path / "judged"), manifest)
    clips = read_manifest(tmp_path / "judged", synthesised)
    assert len(clips) == manifest["kept"].sum() == 4
    assert all(clip.path.is_file() for clip in clips)


def test_every_rule_has_its_reason(synthesised, real, tmp_path):
    judge(synthesised, tmp_path / "judged", real)
    assert rejections(tmp_path / "judged", "fan") == {
        "silent": 1,
        "the same recording as an earlier clip": 1,
        "another candidate was better": 2,
    }
    assert rejections(synthesised, "fan") == {"silent": 1}


def test_quality_is_that_of_the_clips_that_are_kept(synthesised, real, tmp_path):
    judge(synthesised, tmp_path / "judged", real)
    quality = pd.read_csv(tmp_path / "judged/quality.csv", dtype={"section": str})
    assert quality[["machine", "section", "label", "synthetic"]].to_numpy().tolist() == [
        ["fan", "00", "normal", 2],
        ["fan", "00", "anomaly", 2],
    ]


def test_the_gap_is_that_of_the_normal_clips_that_are_kept(synthesised, real, tmp_path):
    judge(synthesised, tmp_path / "judged", real)
    gap = read_gap(tmp_path / "judged")
    assert (gap.synthetic, gap.real) == (2, 4)
    assert 0 <= gap.auc <= 1
    judge(synthesised, tmp_path / "none", real, reject_all)
    assert np.isnan(read_gap(tmp_path / "none").auc)
    assert read_gap(tmp_path / "none").words == ""


def reject_all(manifest, folder, real):
    return manifest.assign(kept=False, reason="not today")


def test_filters_decide_what_is_kept(synthesised, real, tmp_path):
    judge(synthesised, tmp_path / "judged", real, reject_all)
    assert read_manifest(tmp_path / "judged", synthesised) == []
    assert pd.read_csv(tmp_path / "judged/quality.csv").empty


def test_a_judgement_can_be_repeated_with_other_filters(synthesised, real, tmp_path):
    judge(synthesised, tmp_path / "one", real)
    judge(synthesised, tmp_path / "two", real, reject_all)
    judge(synthesised, tmp_path / "two", real)
    for name in ("manifest.csv", "quality.csv", "gap.csv", "differences.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_synthesis_that_is_not_finished_is_not_judged(real, tmp_path):
    with pytest.raises(FileNotFoundError, match="was the synthesis finished"):
        judge(tmp_path / "synthetic", tmp_path / "judged", real)
    assert not (tmp_path / "judged").exists()
