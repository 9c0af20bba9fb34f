"""The gap between synthetic and real normal clips, of recordings."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hash
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.bands import BANDS
from fsasd.generation.encoder_space import RealClips
from fsasd.generation.gap import Gap, gap_tables, measure_gap


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Forty recordings of a machine, each a little louder or quieter than another."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(0)
    clips = []
    for number in range(40):
        noise = rng.uniform(0.04, 0.06) * rng.standard_normal(SAMPLE_RATE)
        soundfile.write(folder / f"{number}.wav", noise, SAMPLE_RATE, subtype="FLOAT")
        clips.append(Clip(folder / f"{number}.wav", "fan", split="train", label="normal"))
    return Clips(clips, FeatureCache())


def low_passed(clip, folder):
    spectrum = np.fft.rfft(soundfile.read(clip.path)[0])
    spectrum[np.fft.rfftfreq(SAMPLE_RATE, 1 / SAMPLE_RATE) > 5000] *= 0.25
    path = folder / clip.path.name
    soundfile.write(path, np.fft.irfft(spectrum), SAMPLE_RATE, subtype="FLOAT")
    return replace(clip, path=path, split=None, synthetic=True)


def test_recordings_that_lack_high_frequencies_are_distinguished_by_these(noises, tmp_path):
    synthetic = Clips([low_passed(clip, tmp_path) for clip in noises[20:]])
    gap, table = measure_gap(noises[:20], synthetic)
    assert gap.exceeds(0.75)
    assert (gap.synthetic, gap.real) == (20, 20)
    assert gap.p_value == pytest.approx(0.002)
    assert 0.1 < gap.energy < 1
    assert re.fullmatch(r"\d+.\d dB quieter above 4.7 kHz", gap.words.split("; ")[0])
    assert "over all bands" not in gap.words
    assert str(gap).endswith(f"0.5: not distinguished; {gap.words})")
    assert len(table) == 2 * (1 + BANDS)


def test_recordings_of_the_same_machine_are_not_distinguished(noises):
    gap, _ = measure_gap(noises[:20], noises[20:])
    assert gap.low < 0.5 < gap.high
    assert gap.p_value > 0.05
    assert gap.words == ""


def test_copies_that_name_their_source_leave_no_gap(noises):
    copies = [replace(clip, source=content_hash(clip.path)) for clip in noises]
    gap, table = measure_gap(noises, Clips(copies, noises.cache))
    assert (gap.auc, gap.words) == (pytest.approx(0.5), "")
    assert not table["difference"].any()
    assert gap.p_value == 1


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_clips_leave_what_they_cannot_tell_unknown(noises, count):
    gap, table = measure_gap(noises[:count], noises[:20])
    assert np.isnan([gap.auc, gap.low, gap.high]).all()
    assert gap.real == count
    assert table.empty == (count == 0)


def test_tables_have_the_kept_normal_clips_of_each_section(noises, tmp_path):
    clips = [low_passed(clip, tmp_path) for clip in noises[20:32]]
    manifest = pd.DataFrame(
        {
            "wav": [clip.path.name for clip in clips],
            "machine": "fan", "section": "", "domain": "", "attributes": "{}", "raw_label": "",
            "fault": "", "strength": "", "donor": "", "pair": "", "source_sha256": "",
            "derived": False,
            "label": ["anomaly"] * 2 + ["normal"] * 10,
            "kept": [True] * 10 + [False] * 2,
        }
    )  # fmt: skip
    real = RealClips(noises[:20], ["a normal fan"] * 20)
    (row,) = (gap := gap_tables(manifest, tmp_path, real))[0].to_dict("records")
    assert (row["machine"], row["section"], row["synthetic"], row["real"]) == ("fan", "00", 8, 20)
    assert gap[1][["machine", "section"]].drop_duplicates().to_numpy().tolist() == [["fan", "00"]]
    nothing, without = gap_tables(manifest.assign(kept=False), tmp_path, real)
    assert nothing["synthetic"].tolist() == [0]
    assert without.empty
    assert Path(tmp_path / clips[0].path.name).is_file()


def test_a_gap_that_is_not_known_exceeds_no_limit():
    assert not Gap(np.nan, np.nan, np.nan, 9, 1).exceeds(0.75)
