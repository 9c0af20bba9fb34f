"""Inpainting: a drawn region of a recording is generated anew, the rest is the recording."""

import lightning as L
import numpy as np
import pytest
import torch
from diffusers import StableAudio3InpaintPipeline
from small_pipelines import stable_audio3

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.diffusion.adaptation import Untrained
from fsasd.generation.diffusion.editing import edited_recording
from fsasd.generation.diffusion.inpainting import insert, with_regions
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.pipelines.stable_audio3 import StableAudio3
from fsasd.generation.prompts import make_prompts, with_candidates
from fsasd.generation.rates import resample
from fsasd.generation.synthesis import synthesise
from fsasd.generation.synthetic_clips import read_table
from fsasd.testing import check_generator

FRAME = 128 / 44_100
CAPTION = "This is the normal sound of a fan."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stable_audio3(tmp_path_factory.mktemp("stable-audio-3"))


@pytest.fixture
def prompts(make_wav):
    clips = Clips([Clip(make_wav("fan.wav", seconds=0.6), "fan", label="normal")])
    return make_prompts(clips, [CAPTION], clips_per_label=2)


def generator(folder, guidance=3.0, region_seconds=(0.1, 0.2)):
    sampler = Sampler(
        steps=2, guidance=guidance, scheduler="euler", region_seconds=list(region_seconds)
    )
    return StableAudio3(folder, crop_seconds=0.32, train=Untrained(), sampler=sampler).eval()


@pytest.mark.nightly
@pytest.mark.slow
def test_it_keeps_the_rules_of_a_generator(folder):
    check_generator(generator(folder), reload=generator)


def test_what_is_generated_is_the_pipelines(folder, prompts):
    model = generator(folder, guidance=1.0)
    (prompt,) = model.prepare(prompts[:1])
    # The pipeline does not put what it generates into the recording.
    model._put_into_sources = lambda prompts, sources, edits: list(edits)
    encoded, encode = [], model.model.encode
    model.model.encode = lambda sound: encoded.append(sound) or encode(sound)
    (waveform,) = model.generate([prompt])
    pipeline = StableAudio3InpaintPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    middle = FRAME / 2  # It rounds seconds down to frames.
    wanted = pipeline(
        prompt.caption, audio=torch.from_numpy(encoded[0]).expand(1, 2, -1),
        duration=prompt.seconds, num_inference_steps=2,
        mask_start_seconds=prompt.region_start + middle,
        mask_end_seconds=prompt.region_end + middle,
        generator=torch.Generator().manual_seed(prompt.seed),
    ).audios[0].mean(0)  # fmt: skip
    torch.testing.assert_close(waveform, wanted, atol=1e-5, rtol=0)


def test_the_rest_of_a_clip_is_the_recording(folder, prompts):
    model = generator(folder)
    asked = model.prepare(prompts)
    for prompt, waveform in zip(asked, model.generate(asked), strict=True):
        recording = edited_recording(prompt, round(prompt.seconds * SAMPLE_RATE))
        difference = waveform.numpy() - resample(recording, SAMPLE_RATE, model.sampling_rate)
        time = np.arange(len(difference)) / model.sampling_rate
        # Resampling spreads the region by a few samples.
        outside = (time < prompt.region_start - 0.002) | (time > prompt.region_end + 0.002)
        inside = (time > prompt.region_start + 0.005) & (time < prompt.region_end - 0.005)
        assert outside.mean() > 0.5
        assert np.abs(difference[outside]).max() < 1e-3
        assert np.sqrt(np.mean(difference[inside] ** 2)) > 0.05


def test_a_pair_has_one_region_and_the_manifest_names_it(folder, prompts, tmp_path):
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    synthesise(generator(folder), prompts, tmp_path / "synthetic", trainer)
    table = read_table(tmp_path / "synthetic")
    regions = table.groupby("pair")[["region_start", "region_end"]].nunique()
    assert (regions == 1).all().all()
    assert len(regions) == 2
    assert table.region_start.nunique() == 2
    start, end = table.region_start.astype(float), table.region_end.astype(float)
    assert (start >= 0).all()
    assert (end <= 0.6).all()
    assert (end - start).between(0.1 - FRAME, 0.2 + FRAME).all()


def test_candidates_have_other_regions(prompts):
    regions = {
        (prompt.region_start, prompt.region_end)
        for prompt in with_regions(with_candidates(prompts[:1], 8), (0.1, 0.4), FRAME)
    }
    assert len(regions) > 4


def test_a_region_is_within_its_clip(prompts):
    for longest in (0.01, 0.6, 5.0):
        for prompt in with_regions(prompts, (0.0001, longest), FRAME):
            assert 0 <= prompt.region_start < prompt.region_end <= prompt.seconds
    (one,) = with_regions([prompts[0]._replace(seconds=0.001)], (0.1, 0.2), FRAME)
    assert (one.region_start, one.region_end) == (0, FRAME)


def test_a_region_begins_and_ends_at_the_recording():
    recording, generated = np.zeros(1000), np.ones(1000)
    clip = insert(recording, generated, slice(200, 800), SAMPLE_RATE)
    assert not clip[:200].any()
    assert not clip[800:].any()
    assert np.abs(np.diff(clip)).max() < 0.02
    assert (clip[300:700] == 1).all()
    assert (insert(recording, generated, slice(0, 1000), SAMPLE_RATE) == 1).all()


# What is refused


def test_a_model_without_an_input_for_the_rest_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nano has no trained input .* generator/sampler=edit"):
        AudioLDM("nano", sampler=Sampler(region_seconds=[0.1, 0.2]))
    # Of the published models those that are not for inpainting have it, too, all zero.
    folder = stable_audio3(tmp_path / "untrained", inpaints=False)
    with pytest.raises(ValueError, match="has no trained input for the rest of a clip"):
        generator(folder)


@pytest.mark.parametrize("seconds", [[0.0, 0.2], [0.3, 0.2], [0.1], [0.1, 0.2, 0.3]])
def test_what_are_no_lengths_of_a_region(seconds):
    with pytest.raises(ValueError, match=r"region_seconds: expected .*, found \["):
        Sampler(region_seconds=seconds)


def test_a_region_has_no_strength():
    with pytest.raises(ValueError, match=r"sampler\.strength: .* expected 1 .* found 0\.5"):
        Sampler(region_seconds=[0.1, 0.2], strength=0.5)


def test_a_prompt_without_a_region_is_refused(folder, prompts):
    with pytest.raises(ValueError, match=r"expected a region to inpaint: call 'prepare' first"):
        generator(folder).generate(prompts[:1])
