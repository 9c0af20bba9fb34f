"""A generator of another package: other latents, conditions and rate, in under 80 lines."""

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
from waveform_diffusion import Convolutions, WaveformDiffusion

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.generation.diffusion.adaptation import SelectedComponents
from fsasd.generation.diffusion.cost import training_cost
from fsasd.generation.diffusion.editing import Sources
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.prompts import make_prompts
from fsasd.generation.rates import resample
from fsasd.generation.synthesis import synthesise
from fsasd.generation.synthetic_clips import read_manifest
from fsasd.testing import check_generator


def generator(folder="random", steps=4, **options):
    options = {"warmup_steps": 1, "crop_seconds": 0.32, **options}
    scheduler = options.pop("scheduler", "euler")
    strength = options.pop("strength", 1.0)
    sampler = Sampler(steps=steps, guidance=2.0, scheduler=scheduler, strength=strength)
    return WaveformDiffusion(str(folder), sampler=sampler, **options)


@pytest.fixture
def prompts(make_wav):
    clips = Clips([Clip(make_wav("fan.wav", seconds=1.0), "fan", label="normal")])
    return make_prompts(clips, ["The normal sound of a fan."], clips_per_label=1)


@pytest.mark.parametrize("train", [None, SelectedComponents(["blocks.*"])])
def test_it_keeps_the_rules_of_a_generator(train):
    check_generator(generator(train=train), reload=generator)


def test_its_edits_keep_the_rules_of_a_generator():
    check_generator(
        generator(strength=0.3), reload=lambda folder: generator(folder=folder, strength=0.3)
    )


def test_the_writer_keeps_its_rate(prompts, tmp_path):
    tone = np.sin(2 * np.pi * 1000 * np.arange(24_000) / 24_000)

    class Tone(WaveformDiffusion):
        def generate(self, prompts):
            return [0.4 * torch.from_numpy(tone).float() for _ in prompts]

    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    synthesise(Tone("random", crop_seconds=0.32), prompts, tmp_path, trainer)
    for clip in read_manifest(tmp_path):
        sound, rate = soundfile.read(clip.path)
        spectrum = np.abs(np.fft.rfft(sound))
        assert (rate, len(sound)) == (24_000, 24_000)
        assert np.argmax(spectrum) * rate / len(sound) == pytest.approx(1000, abs=1)


def test_an_edit_of_little_strength_is_nearly_its_source(prompts):
    edits = generator(strength=1e-4)
    (prompt, *_) = edits.prepare(prompts)
    (waveform,) = edits.generate([prompt])
    latent = Sources([prompt], edits.model, 24_000).latents[0]
    assert latent.shape == (240, 100)
    source = edits.model.decode(latent[None])[0]
    # What is above 8 kHz goes, and with it what the ends ring.
    torch.testing.assert_close(waveform[200:-200], source[200:-200], atol=1e-2, rtol=0)


def test_its_cost_is_counted():
    model = generator()
    cost = training_cost(model.model, model.unconditional, model.adaptation, 2, 32)
    assert cost.trained == sum(p.numel() for p in Convolutions().parameters())
    # Three passes over the convolutions, a multiplication and an addition each.
    into, inner, out = 3 * 64 * 258, 2 * 3 * 64 * 64, 3 * 64 * 240
    passes = 3 * (into + inner + out) - into
    assert cost.flops == pytest.approx(2 * passes * 2 * 32, rel=0.02)


@pytest.mark.parametrize("scheduler", ["dpm++", "ddim"])
def test_a_sampler_of_diffusion_is_refused(scheduler):
    expected = rf"'{scheduler}'.* is not for a model of flow matching: .*generator/sampler=flow"
    with pytest.raises(ValueError, match=expected.replace("+", "[+]")):
        generator(scheduler=scheduler)


def test_a_rate_of_its_own_changes_nothing_but_the_rate():
    sound = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    there = resample(sound, 16_000, 44_100)
    assert (len(there), there.dtype) == (44_100, np.float32)
    back = resample(there, 44_100, 16_000)
    np.testing.assert_allclose(back[500:-500], sound[500:-500], atol=1e-2)
    assert resample(sound, 16_000, 16_000) is sound
