"""Which faults are put into which clips, and what is said of them."""

import re
from collections import Counter

import hydra
import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_module

from fsasd.data.captions import caption
from fsasd.data.clips import Clips
from fsasd.data.content import content_hash
from fsasd.data.metadata import Clip, MetadataError
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.generation.faults import FAULTS
from fsasd.generation.filters import mark_duplicates
from fsasd.generation.prompts import make_prompts
from fsasd.generation.synthesis import SynthesisFolder
from fsasd.generation.synthetic_clips import clips_of, read_table
from fsasd.generation.transforms import FaultTransforms

LEAK = {"leak": {"strength": [0.1, 0.5], "above": [1000, 3000]}}
SWING = {"modulation": {"strength": [0.2, 0.8], "rate": [2, 20]}}


@pytest.fixture(scope="module")
def shipped():
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", ["generator=transforms"])
    return hydra.utils.instantiate(cfg.generator, _convert_="all")


@pytest.fixture(scope="module")
def normals(factory_clips):
    return factory_clips.where(split="train", label="normal", machine="bearing")


def prompts_of(generator, clips, count=8, **options):
    texts = [caption(clip) for clip in clips]
    return generator.prepare(make_prompts(clips, texts, count, **options))


def written(generator, clips, folder, count=8):
    prompts = prompts_of(generator, clips, count)
    synthesis = SynthesisFolder(folder)
    for prompt, waveform in zip(prompts, generator.generate(prompts), strict=True):
        synthesis.write(prompt, waveform.numpy())
    manifest = mark_duplicates(synthesis.close(prompts))
    return Clips(clips_of(manifest[manifest["kept"]], folder))


def by_content(clips):
    return {content_hash(clip.path): clip.path for clip in clips}


def test_normal_clips_are_their_sources_as_they_are(shipped, normals, tmp_path):
    synthetic = written(shipped, normals, tmp_path).where(label="normal")
    assert len(synthetic) == 8
    for clip in synthetic:
        real = by_content(normals)[clip.source]
        # 16-bit files are written on a scale that differs by one part in 32768.
        np.testing.assert_allclose(read(clip.path), read(real), atol=1.5 / 2**15)


def test_anomalous_clips_are_their_sources_with_something_wrong(shipped, normals, tmp_path):
    synthetic = written(shipped, normals, tmp_path).where(label="anomaly")
    assert len(synthetic) == 8
    for clip in synthetic:
        source = read(by_content(normals)[clip.source])
        assert read(clip.path).shape == source.shape
        assert np.abs(read(clip.path) - source).max() > 0.02 * np.abs(source).max()


def test_the_manifest_names_the_faults_that_were_put_in(shipped, normals, tmp_path):
    written(shipped, normals, tmp_path)
    for row in read_table(tmp_path).to_dict("records"):
        kinds = row["fault"].split("+") if row["fault"] else []
        assert len(kinds) == row["caption"].count("(strength ")
        assert set(kinds) <= set(FAULTS)
        assert bool(kinds) == (row["label"] == "anomaly")


def test_a_normal_clip_that_comes_up_again_is_not_kept_twice(shipped, normals, tmp_path):
    synthetic = written(shipped, normals[:5], tmp_path, count=12)
    assert Counter(clip.label for clip in synthetic) == {"normal": 5, "anomaly": 12}


def test_the_silence_of_a_machine_is_not_taken_away(tmp_path, make_wav):
    pauses = np.concatenate([np.zeros(8000), 0.1 * np.sin(np.arange(8000))])
    clip = Clip(make_wav("pauses.wav", pauses), "valve", label="normal")
    generator = FaultTransforms(SWING)
    prompts = generator.prepare(make_prompts(Clips([clip]), ["A normal valve."], 1))
    SynthesisFolder(tmp_path).write(prompts[0], generator.generate(prompts)[0].numpy())
    assert len(read(tmp_path / prompts[0].wav)) == len(pauses)


def test_captions_describe_the_faults(shipped, normals):
    captions = [p.caption for p in prompts_of(shipped, normals, 40) if p.label == "anomaly"]
    form = r"This is the anomaly sound of .+, with .+ \(strength 0\.\d+\|1\)( and .+)?\."
    assert all(re.fullmatch(form.replace(r"0\.\d+\|1", r"(0\.\d+|1)"), text) for text in captions)
    counts = Counter(text.count("(strength") for text in captions)
    assert set(counts) == {1, 2}
    for prompt in prompts_of(shipped, normals, 4):
        if prompt.label == "normal":
            assert "strength" not in prompt.caption


def test_the_caption_holds_the_numbers_that_were_used(normals):
    generator = FaultTransforms(SWING)
    prompt = prompts_of(generator, normals, 1)[1]
    rate, strength = map(float, re.findall(r"(?:swinging|strength) ([\d.]+)", prompt.caption))
    source = read(prompt.source) * np.float32(prompt.gain)
    rng = np.random.default_rng([prompt.seed, 1])
    expected = FAULTS["modulation"].apply(source, rng, strength=strength, rate=rate)
    np.testing.assert_array_equal(generator.generate([prompt])[0].numpy(), expected)


def test_values_are_drawn_evenly_on_a_scale_of_ratios(normals):
    ranges = {"modulation": {"strength": [0.01, 1.0], "rate": [1, 100]}}
    prompts = prompts_of(FaultTransforms(ranges), normals, 200)
    rates = [float(r) for p in prompts for r in re.findall(r"swinging ([\d.]+)", p.caption)]
    assert len(rates) == 200
    assert min(rates) >= 1
    assert max(rates) <= 100
    assert np.mean(np.array(rates) < 10) == pytest.approx(0.5, abs=0.12)


def strengths_in(caption):
    return [float(s) for s in re.findall(r"\(strength ([\d.]+)\)", caption)]


def test_strengths_of_a_clip_are_of_one_third_of_each_range(shipped, normals):
    prompts = [p for p in prompts_of(shipped, normals, 300) if p.label == "anomaly"]
    assert Counter(p.strength for p in prompts) == {1 / 3: 100, 2 / 3: 100, 1.0: 100}
    for prompt in prompts:
        strengths = strengths_in(prompt.caption)
        for fault, strength in zip(prompt.fault.split("+"), strengths, strict=True):
            low, high = np.log(shipped.common[fault]["strength"])
            place = (np.log(strength) - low) / (high - low)
            # Rounded to three digits.
            assert prompt.strength - 1 / 3 - 0.01 <= place <= prompt.strength + 0.01
    assert {len(strengths_in(p.caption)) for p in prompts} == {1, 2}
    # Within a rung they are drawn, and other parameters are of all rungs alike.
    weakest = [strengths_in(p.caption)[0] for p in prompts if p.strength == 1 / 3]
    assert len(set(weakest)) > 50


def test_rungs_differ_in_strength_only(normals):
    ranges = {"modulation": {"strength": [0.01, 1.0], "rate": [1, 100]}}
    prompts = [p for p in prompts_of(FaultTransforms(ranges), normals, 300) if p.label == "anomaly"]
    for rung in (1 / 3, 2 / 3, 1.0):
        captions = [p.caption for p in prompts if p.strength == rung]
        rates = [float(r) for c in captions for r in re.findall(r"swinging ([\d.]+)", c)]
        assert np.mean(np.array(rates) < 10) == pytest.approx(0.5, abs=0.15)


def test_one_rung_is_the_whole_range(normals):
    ranges = {"modulation": {"strength": [0.01, 1.0], "rate": [1, 100]}}
    prompts = prompts_of(FaultTransforms(ranges, rungs=1), normals, 100)
    assert {p.strength for p in prompts if p.label == "anomaly"} == {1.0}
    assert {p.strength for p in prompts if p.label == "normal"} == {None}
    strengths = np.array([s for p in prompts for s in strengths_in(p.caption)])
    assert len(strengths) == 100
    assert np.mean(strengths < 0.1) == pytest.approx(0.5, abs=0.15)
    assert strengths.min() < 0.03 < 0.3 < strengths.max()


def test_the_manifest_has_the_rungs(shipped, normals, tmp_path):
    clips = written(shipped, normals, tmp_path, 9).where(label="anomaly")
    rungs = Counter(clip.strength for clip in clips)
    assert rungs == {1 / 3: 3, 2 / 3: 3, 1.0: 3}


def test_an_anomaly_without_a_rung_is_named(shipped, normals):
    prompt = prompts_of(shipped, normals, 1)[1]._replace(strength=None)
    with pytest.raises(ValueError, match=r"anomaly_0000\.wav: expected a prompt with a strength"):
        shipped.generate([prompt])


def test_a_machine_can_have_other_faults(normals, factory_clips):
    changed = {
        "fan": {"leak": None, **SWING},
        "valve": {"leak": {**LEAK["leak"], "above": [6e3, 6e3]}},
    }
    generator = FaultTransforms(LEAK, changed)

    def phrase(machine):
        clips = factory_clips.where(split="train", machine=machine)
        return {p.caption.split(", with ")[1][:12] for p in prompts_of(generator, clips, 8)[1::2]}

    assert phrase("fan") == {"its level sw"}
    captions = [
        p.caption
        for p in prompts_of(generator, factory_clips.where(split="train", machine="valve"))[1::2]
    ]
    assert all("above 6000 Hz" in text for text in captions)
    assert phrase("bearing") == {"a hiss above"}


def test_every_shipped_fault_comes_up(shipped, normals):
    text = " ".join(p.caption for p in prompts_of(shipped, normals, 200))
    for fault in FAULTS.values():
        assert fault.phrase.split("{")[0] in text


def test_the_chosen_channel_is_read(tmp_path):
    both = np.stack([np.zeros(16_000), 0.1 * np.sin(np.arange(16_000))], axis=1)
    soundfile.write(tmp_path / "two.wav", both, SAMPLE_RATE)
    prompt = make_prompts(Clips([Clip(_mono(tmp_path), "fan", label="normal")]), ["normal"], 1)[0]
    prompt = prompt._replace(source=str(tmp_path / "two.wav"), gain=1.0)
    (waveform,) = FaultTransforms(SWING, channel=1).generate([prompt])
    np.testing.assert_allclose(waveform.numpy(), both[:, 1], atol=1e-4)


def _mono(folder):
    soundfile.write(folder / "one.wav", 0.1 * np.sin(np.arange(16_000)), SAMPLE_RATE)
    return folder / "one.wav"


def test_a_shorter_clip_can_be_asked_for(shipped, normals):
    prompts = [p._replace(seconds=0.5) for p in prompts_of(shipped, normals, 2)]
    assert [len(waveform) for waveform in shipped.generate(prompts)] == [8000] * 4


def test_a_prompt_without_a_source_is_named(shipped, normals):
    prompt = prompts_of(shipped, normals, 1)[0]._replace(source=None)
    with pytest.raises(ValueError, match=r"bearing/normal_0000\.wav: expected a prompt with a sou"):
        shipped.generate([prompt])


BAD = [
    ({"leek": {}}, {}, MetadataError, "'leek' is not among the faults: .* Did you mean 'leak'"),
    ({"leak": {"strength": [0.1, 1]}}, {}, ValueError, r"leak: expected ranges of strength, above"),
    (
        {"leak": {**LEAK["leak"], "rate": [1, 2]}},
        {},
        ValueError,
        r"found \['strength', 'above', 'r",
    ),
    ({"leak": {**LEAK["leak"], "strength": [0, 1]}}, {}, ValueError, r"positive .* found \[0, 1\]"),
    ({"leak": {**LEAK["leak"], "strength": [1, 3]}}, {}, ValueError, r"at most 1, found \[1, 3"),
    ({"leak": {**LEAK["leak"], "above": [2e3, 1e3]}}, {}, ValueError, "above is drawn between two"),
    ({"leak": {**LEAK["leak"], "above": [2e3]}}, {}, ValueError, r"found \[2000\.0\]"),
    ({}, {}, ValueError, "expected faults to add to clips, found none"),
    ({"leak": None}, {}, ValueError, "expected faults to add to clips, found none"),
    (LEAK, {"fan": {"leak": None}}, ValueError, "fan: every fault was removed"),
    (LEAK, {"fan": {"leek": None}}, MetadataError, "'leek' is not among the faults"),
]


@pytest.mark.parametrize(("faults", "machines", "error", "message"), BAD)
def test_faults_that_cannot_be_put_in_are_named(faults, machines, error, message):
    with pytest.raises(error, match=message):
        FaultTransforms(faults, machines)


def test_at_least_one_fault_goes_into_an_anomalous_clip():
    with pytest.raises(ValueError, match="expected 1 fault in a clip or more, found 0"):
        FaultTransforms(LEAK, at_most=0)
    with pytest.raises(ValueError, match="rungs: expected 1 part of a range or more, found 0"):
        FaultTransforms(LEAK, rungs=0)
