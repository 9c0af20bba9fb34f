import contextlib
import csv
import hashlib
import io
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest

from fsasd.data.captions import caption
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.cleaning import Cleaning
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.prompts import Prompt, make_prompts
from fsasd.generation.synthesis import SynthesisFolder, _end_of_rows, synthesise
from fsasd.generation.synthetic_clips import (
    COLUMNS,
    read_manifest,
    read_table,
    rejections,
    write_table,
)
from fsasd.generation.transforms import FaultTransforms

# The folder


def prompt(number, label="normal", machine="fan", gain=2.0):
    return Prompt(
        wav=f"{machine}/{label}_{number:04d}.wav",
        machine=machine,
        section="00",
        domain="source",
        label=label,
        caption=f'This is the {label} sound of a fan with "speed" 3, recorded somewhere.',
        seconds=1.0,
        gain=gain,
        seed=2 * number + (label == "anomaly"),
        source=f"real/{number}.wav",
        attributes='{"speed": "3", "mic": "1"}',
        raw_label="speed_3_mic_1",
    )


PROMPTS = [prompt(n, label) for n in range(3) for label in ("normal", "anomaly")]


def sound(seed=0, seconds=1.0):
    rng = np.random.default_rng(seed)
    return (0.5 * rng.uniform(-1, 1, round(seconds * SAMPLE_RATE))).astype(np.float32)


def finish(folder, prompts, rank=0):
    for one in prompts:
        SynthesisFolder(folder, rank).write(one, sound(one.seed))


def test_a_clip_is_written_at_its_level(tmp_path):
    SynthesisFolder(tmp_path).write(PROMPTS[0], sound())
    written = read(tmp_path / PROMPTS[0].wav)
    np.testing.assert_allclose(written, sound() / 2, atol=1 / 2**15)


def test_silence_is_removed_from_what_is_written(tmp_path):
    padded = np.concatenate([sound()[:10_240], np.zeros(5120, np.float32)])
    SynthesisFolder(tmp_path).write(PROMPTS[0], padded)
    assert len(read(tmp_path / PROMPTS[0].wav)) == 10_240


def test_the_manifest_has_a_row_for_each_prompt_in_their_order(tmp_path):
    finish(tmp_path, PROMPTS[3:], rank=1)
    finish(tmp_path, PROMPTS[:3])
    SynthesisFolder(tmp_path).close(PROMPTS)
    manifest = pd.read_csv(tmp_path / "manifest.csv")
    assert list(manifest.columns) == [
        *("wav", "machine", "section", "domain", "label", "caption"),
        *("seconds", "gain", "seed", "source", "source_sha256", "negative", "derived"),
        *("attributes", "raw_label", "fault", "strength", "donor", "pair"),
        *("region_start", "region_end", "sha256", "kept", "reason"),
    ]
    assert manifest["wav"].tolist() == [one.wav for one in PROMPTS]
    assert manifest["caption"].tolist() == [one.caption for one in PROMPTS]
    assert manifest["seed"].tolist() == [one.seed for one in PROMPTS]
    assert manifest["kept"].all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fan", "manifest.csv"]


def test_closing_before_the_end_tells_how_much_is_missing(tmp_path):
    finish(tmp_path, PROMPTS[:4])
    with pytest.raises(RuntimeError, match=r"2 of 6 clips were not .* fan/normal_0002"):
        SynthesisFolder(tmp_path).close(PROMPTS)
    assert not (tmp_path / "manifest.csv").exists()


def test_what_any_rank_has_finished_is_not_asked_for_again(tmp_path):
    finish(tmp_path, PROMPTS[:2], rank=0)
    finish(tmp_path, PROMPTS[4:5], rank=1)
    for rank in (0, 1, 2):
        remaining = SynthesisFolder(tmp_path, rank).remaining(PROMPTS)
        assert remaining == [PROMPTS[2], PROMPTS[3], PROMPTS[5]]


def test_nothing_remains_once_the_folder_is_closed(tmp_path):
    finish(tmp_path, PROMPTS)
    folder = SynthesisFolder(tmp_path)
    first = folder.close(PROMPTS)
    assert folder.remaining(PROMPTS) == []
    pd.testing.assert_frame_equal(folder.close(PROMPTS), first)


def test_at_first_everything_remains(tmp_path):
    assert SynthesisFolder(tmp_path / "not yet there").remaining(PROMPTS) == PROMPTS


CUTS = ["in the name", "in the quoted caption", "before the reason", "before the line's end"]


@pytest.mark.parametrize("where", CUTS)
def test_a_run_killed_while_it_wrote_a_row_goes_on(tmp_path, where):
    finish(tmp_path, PROMPTS[:2], rank=1)
    finish(tmp_path, PROMPTS[2:4])
    table = tmp_path / "rows-0.csv"
    whole = table.read_bytes()
    last = whole[: whole.rstrip().rfind(b"\n") + 1]
    half = whole[len(last) :]
    at = [5, half.index(b"speed"), half.rindex(b"True") + 5, len(half) - 1][CUTS.index(where)]
    table.write_bytes(last + half[:at])

    remaining = SynthesisFolder(tmp_path).remaining(PROMPTS)
    assert remaining == PROMPTS[3:]
    finish(tmp_path, remaining)
    manifest = SynthesisFolder(tmp_path).close(PROMPTS)
    assert manifest["wav"].tolist() == [one.wav for one in PROMPTS]
    assert manifest["caption"].tolist() == [one.caption for one in PROMPTS]
    assert manifest["kept"].all()


def test_a_run_killed_in_its_tables_header_goes_on(tmp_path):
    finish(tmp_path, PROMPTS[:1])
    table = tmp_path / "rows-0.csv"
    table.write_bytes(table.read_bytes()[:11])
    assert SynthesisFolder(tmp_path).remaining(PROMPTS) == PROMPTS
    finish(tmp_path, PROMPTS)
    assert len(SynthesisFolder(tmp_path).close(PROMPTS)) == 6


def test_a_clip_resumed_after_closing_an_earlier_part_joins_it(tmp_path):
    finish(tmp_path, PROMPTS[:2])
    SynthesisFolder(tmp_path).close(PROMPTS[:2])
    finish(tmp_path, PROMPTS[2:], rank=3)
    assert len(SynthesisFolder(tmp_path).close(PROMPTS)) == 6


# What is kept

BAD = {
    "silent": np.zeros(SAMPLE_RATE, np.float32),
    "not finite": np.full(SAMPLE_RATE, np.nan, np.float32),
    "clipped": np.full(SAMPLE_RATE, 3.0, np.float32),
    "shorter than 0.5 s without its silence": np.pad(sound(seconds=0.2), 8000),
}


@pytest.fixture
def mixed(tmp_path):
    """A folder of one good clip and one of each bad kind."""
    prompts = [prompt(n) for n in range(1 + len(BAD))]
    folder = SynthesisFolder(tmp_path)
    for one, waveform in zip(prompts, [sound(), *BAD.values()], strict=True):
        folder.write(one, waveform)
    folder.close(prompts)
    return tmp_path


def test_bad_clips_are_listed_with_the_reason(mixed):
    with (mixed / "manifest.csv").open() as file:
        rows = [(row["kept"], row["reason"]) for row in csv.DictReader(file)]
    assert rows == [("True", ""), *(("False", reason) for reason in BAD)]


def test_only_good_clips_are_read_back(mixed):
    (clip,) = read_manifest(mixed)
    assert clip == Clip(
        mixed / "fan/normal_0000.wav",
        "fan",
        section="00",
        domain="source",
        label="normal",
        attributes={"speed": "3", "mic": "1"},
        raw_label="speed_3_mic_1",
        synthetic=True,
    )


def test_rejected_clips_can_be_listened_to(mixed):
    clips = read_manifest(mixed, kept=False)
    assert len(clips) == 1 + len(BAD)
    for clip in clips:
        assert np.isfinite(read(clip.path)).all()


def test_rejections_are_counted_by_machine(mixed):
    assert rejections(mixed, "fan") == dict.fromkeys(BAD, 1)
    assert rejections(mixed, "pump") == {}


def test_what_was_unknown_of_a_clip_stays_unknown(tmp_path):
    one = prompt(0)._replace(section=None, domain=None)
    SynthesisFolder(tmp_path).write(one, sound())
    SynthesisFolder(tmp_path).close([one])
    (clip,) = read_manifest(tmp_path)
    assert (clip.section, clip.domain) == (None, None)


def test_only_derived_clips_have_a_source(tmp_path):
    prompts = [prompt(0), prompt(1)._replace(derived=True, source_sha256="ab12")]
    finish(tmp_path, prompts)
    SynthesisFolder(tmp_path).close(prompts)
    assert [clip.source for clip in read_manifest(tmp_path)] == [None, "ab12"]
    # The table names the real clip whose caption, level and length a clip has in any case.
    assert read_table(tmp_path)["source"].tolist() == ["real/0.wav", "real/1.wav"]


def test_nothing_asked_for_is_an_empty_manifest(tmp_path):
    SynthesisFolder(tmp_path).close([])
    assert read_manifest(tmp_path) == []


def test_a_folder_cleans_by_its_settings(tmp_path):
    padded = np.concatenate([sound()[:10_240], np.zeros(5760, np.float32)])
    SynthesisFolder(tmp_path, cleaning=Cleaning(silence_db=None)).write(PROMPTS[0], padded)
    SynthesisFolder(tmp_path, cleaning=Cleaning(match_duration=True)).write(PROMPTS[1], padded)
    as_it_is, repeated = (read(tmp_path / one.wav) for one in PROMPTS[:2])
    np.testing.assert_allclose(as_it_is, padded / 2, atol=1 / 2**15)
    assert len(repeated) == len(padded)
    assert repeated[-1000:].std() == pytest.approx(repeated[:1000].std(), rel=0.2)


def test_a_manifest_without_attributes_is_refused(tmp_path):
    finish(tmp_path, PROMPTS)
    SynthesisFolder(tmp_path).close(PROMPTS)
    table = read_table(tmp_path).drop(columns=["attributes", "fault"])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    expected = r"manifest\.csv: expected the columns wav, .* none named attributes, fault\. .*anew"
    with pytest.raises(ValueError, match=expected):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.csv does not exist: was the synthesis"):
        read_manifest(tmp_path)


def test_recordings_may_be_in_another_folder_than_the_manifest(tmp_path):
    finish(tmp_path / "synthetic", PROMPTS)
    manifest = SynthesisFolder(tmp_path / "synthetic").close(PROMPTS)
    (tmp_path / "judged").mkdir()
    write_table(manifest.assign(kept=manifest["label"] == "normal"), tmp_path / "judged")
    clips = read_manifest(tmp_path / "judged", tmp_path / "synthetic")
    assert [clip.path for clip in clips] == [
        tmp_path / "synthetic" / one.wav for one in PROMPTS if one.label == "normal"
    ]


# One call


LEAK = {"leak": {"strength": [0.2, 0.5], "above": [2e3, 4e3]}}


def trainer(folder, **options):
    return L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder, **options,
    )  # fmt: skip


@pytest.fixture
def asked(factory_clips):
    """Three normal and three anomalous prompts of a machine, shortened."""
    normal = factory_clips.where(machine="bearing", split="train", label="normal")
    prompts = make_prompts(normal, [caption(clip) for clip in normal], 3)
    return [prompt._replace(seconds=0.6) for prompt in prompts]


def test_synthesise_leaves_recordings_and_their_manifest(asked, tmp_path):
    generator = AudioLDM("nano", sampler=Sampler(steps=1))
    synthesise(generator, asked, tmp_path / "out", trainer(tmp_path), Cleaning(silence_db=None), 4)
    table = read_table(tmp_path / "out")
    assert table["wav"].tolist() == [prompt.wav for prompt in asked]
    for wav, digest in zip(table["wav"], table["sha256"], strict=True):
        assert hashlib.sha256((tmp_path / "out" / wav).read_bytes()).hexdigest() == digest
        assert len(read(tmp_path / "out" / wav)) == 0.6 * SAMPLE_RATE
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"bearing", "manifest.csv"}


def test_synthesise_prepares_prompts_for_the_generator(asked, tmp_path):
    synthesise(FaultTransforms(LEAK), asked, tmp_path / "out", trainer(tmp_path))
    table = read_table(tmp_path / "out")
    assert table["derived"].all()
    assert table["fault"].tolist() == ["", "leak"] * 3
    assert table["source"].tolist() == [prompt.source for prompt in asked]
    for path, digest in zip(table["source"], table["source_sha256"], strict=True):
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest


def test_synthesise_generates_with_the_average_of_the_weights(asked, tmp_path):
    average = []

    class Averaged(FaultTransforms):
        @contextlib.contextmanager
        def averaged_weights(self):
            average.append(True)
            yield
            average.append(False)

        def generate(self, prompts):
            assert average == [True]
            return super().generate(prompts)

    synthesise(Averaged(LEAK), asked, tmp_path / "out", trainer(tmp_path))
    assert average == [True, False]


def test_synthesise_leaves_the_trainer_as_it_was(asked, tmp_path):
    player = trainer(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        before = player.callbacks
        synthesise(FaultTransforms(LEAK), asked, folder, player)
        assert player.callbacks is before
    assert (one / "manifest.csv").read_bytes() == (two / "manifest.csv").read_bytes()


def test_a_finished_synthesis_generates_nothing(asked, tmp_path, monkeypatch):
    synthesise(FaultTransforms(LEAK), asked, tmp_path / "out", trainer(tmp_path))
    before = (tmp_path / "out/manifest.csv").read_bytes()
    monkeypatch.setattr(FaultTransforms, "generate", None)
    synthesise(FaultTransforms(LEAK), asked, tmp_path / "out", trainer(tmp_path))
    assert (tmp_path / "out/manifest.csv").read_bytes() == before


def test_to_append_a_row_the_end_of_a_table_is_read(tmp_path):
    read = []

    class Counted(io.BytesIO):
        def read(self, size=-1):
            read.append(len(found := super().read(size)))
            return found

    header = ",".join(COLUMNS).encode() + b"\n"
    table = header + 10_000 * b"fan/normal_0000.wav,fan\n"
    assert _end_of_rows(Counted(table + b"cut")) == len(table)
    assert sum(read) < 10_000
    # A row that is longer than what is read at a time.
    assert _end_of_rows(Counted(table + b"c" * 50_000)) == len(table)
    assert _end_of_rows(Counted(header[:-1] + b"c" * 50_000)) == 0
    assert _end_of_rows(Counted(b"wav,machine\n")) == 0
