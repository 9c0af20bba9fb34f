"""Edits: begun at the noised source, paired, with strengths in turn; pure noise is as it was."""

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from diffusers import DPMSolverMultistepScheduler
from hydra import compose, initialize_config_module
from runs import Run
from torch import nn

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm.checkpoint import build_scheduler
from fsasd.generation.audioldm.mel import AUDIOLDM_MEL, encode
from fsasd.generation.base import Generator, read_source
from fsasd.generation.diffusion.editing import Sources, put_into, with_strengths
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.level import normalise
from fsasd.generation.prompts import make_prompts
from fsasd.generation.spectra import band_levels, spectra
from fsasd.generation.synthetic_clips import read_manifest
from fsasd.testing import check_generator

pytestmark = pytest.mark.slow

SHAPE = (4, 16, 16)
NORMAL = "This is the normal sound of a fan."


@pytest.fixture(scope="module")
def normal(tmp_path_factory):
    """Three recordings of 0.8 s: tones in noise, the middle one loudest at its end."""
    folder = tmp_path_factory.mktemp("fan")
    rng, time = np.random.default_rng(0), np.arange(12_800) / SAMPLE_RATE
    clips = []
    for number in range(3):
        wave = 0.05 * np.sin(2 * np.pi * 200 * (number + 1) * time)
        wave += 0.01 * rng.standard_normal(len(time))
        wave[-1600:] *= 1 + 4 * (number == 1)
        path = folder / f"{number}.wav"
        soundfile.write(path, wave, SAMPLE_RATE, subtype="FLOAT")
        clips.append(Clip(path, "fan", section="00", domain="source", label="normal"))
    return Clips(clips)


def prompts_of(normal, pairs=3, **options):
    return make_prompts(normal, [NORMAL] * len(normal), pairs, **options)


def model(**sampler):
    return AudioLDM("nano", sampler=Sampler(**sampler)).eval()


class Plain(nn.Module):
    """In the place of a vocoder: a log-mel, its values as samples. It amplifies no rounding."""

    def forward(self, mel):
        return nn.functional.pad(mel, (0, 96)).flatten(1)


@pytest.fixture(scope="module")
def to_mel():
    """The nano model, whose waveforms hold its log-mels."""
    nano = AudioLDM("nano").eval()
    nano.components.vocoder = Plain()
    return nano


# The sampler


class Untrained(nn.Module):
    """A small network with random weights in the place of the UNet."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.caption = nn.Linear(8, 4)

    def forward(self, latents, t, embeddings):
        moved = torch.tanh(self.conv(latents) + self.caption(embeddings)[..., None, None])
        return moved * (1 + t / 1000)


def given(n=2):
    random = torch.Generator().manual_seed(3)
    return (
        torch.randn(n, 8, generator=random),
        torch.randn(8, generator=random),
        torch.randn(n, *SHAPE, generator=random),
    )


def img2img(denoise, sampler, schedule, embeddings, unconditional, sources, seeds):
    """Diffusers' image-to-image pipelines, and DDIM (Song et al., equation 12), as formulas."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(SHAPE, generator=g) for g in generators])
    stride = 1000 // sampler.steps
    timesteps = [1 + stride * i for i in reversed(range(sampler.steps))]
    t_start = sampler.steps - int(sampler.steps * sampler.strength)
    alphas = schedule.alphas_cumprod
    alpha = alphas[timesteps[t_start]]
    latents = alpha.sqrt() * sources + (1 - alpha).sqrt() * noise
    for t in timesteps[t_start:]:
        alpha, before = alphas[t], alphas[max(t - stride, 0)]
        without = denoise(latents, t, unconditional.expand_as(embeddings))
        within = denoise(latents, t, embeddings)
        predicted = without + sampler.guidance * (within - without)
        clean = (latents - (1 - alpha).sqrt() * predicted) / alpha.sqrt()
        sigma = sampler.eta * ((1 - before) / (1 - alpha) * (1 - alpha / before)).sqrt()
        fresh = torch.stack([torch.randn(SHAPE, generator=g) for g in generators])
        latents = (
            before.sqrt() * clean
            + (1 - before - sigma**2).clamp(min=0).sqrt() * predicted
            + sigma * fresh
        )
    return latents


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("strength", [0.2, 0.4, 0.7])
@torch.no_grad()
def test_equals_the_image_to_image_formula(strength, eta):
    sampler = Sampler(20, 2.5, "ddim", eta, strength)
    denoise, schedule, seeds = Untrained(), build_scheduler("epsilon"), [5, 6]
    embeddings, unconditional, sources = given()
    ours = sampler(
        denoise, schedule, embeddings, unconditional, SHAPE, seeds, sources, sampler.strength
    )
    theirs = img2img(denoise, sampler, schedule, embeddings, unconditional, sources, seeds)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_default_solver_takes_its_last_steps_from_the_noised_source():
    denoise, schedule, visited = Untrained(), build_scheduler("epsilon"), []
    embeddings, unconditional, sources = given()

    def watched(latents, t, condition):
        visited.append((int(t), latents[-2:]))
        return denoise(latents, t, condition)

    Sampler()(watched, schedule, embeddings, unconditional, SHAPE, [5, 6], sources, 0.4)
    theirs = DPMSolverMultistepScheduler.from_config(schedule.config, use_karras_sigmas=True)
    theirs.set_timesteps(25)
    assert [t for t, _ in visited] == [t for t in theirs.timesteps.tolist() if t < 400]
    noise = torch.stack(
        [torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)]
    )
    first, latents = visited[0]
    alpha = schedule.alphas_cumprod[first]
    # Karras' noise levels lie between those of the timesteps, which they are rounded to.
    expected = alpha.sqrt() * sources + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(latents, expected, atol=0.02, rtol=0.02)


def exact(std, schedule):
    """The best prediction of noise, for latents that are Gaussian with this standard deviation."""

    def denoise(latents, t, embeddings):
        alpha = schedule.alphas_cumprod[int(t)]
        return latents * (1 - alpha).sqrt() / (alpha * std**2 + 1 - alpha)

    return denoise


@pytest.mark.parametrize("scheduler", ["dpm++", "ddim"])
def test_edits_keep_the_spread_and_follow_the_source_the_less_the_stronger(scheduler):
    schedule, std = build_scheduler("epsilon"), 0.7
    sources = std * torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    likeness = []
    for strength in (0.1, 0.3, 0.6, 1.0):
        sampler = Sampler(50, 1.0, scheduler)
        edits = sampler(
            exact(std, schedule), schedule, torch.zeros(64, 1), torch.zeros(1), SHAPE,
            range(64), sources, strength,
        )  # fmt: skip
        assert float(edits.std()) == pytest.approx(std, rel=0.12)
        likeness.append(
            float(torch.corrcoef(torch.stack([edits.flatten(), sources.flatten()]))[0, 1])
        )
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] > 0.8
    assert likeness[-1] < 0.1


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan"), [], [0.4, 0.0], [0.4, 2]])
def test_strengths_that_are_no_share_are_refused(strength):
    with pytest.raises(ValueError, match=r"strength: expected a number above 0 and at most 1, or"):
        Sampler(strength=strength)


# The model


def test_from_pure_noise_clips_are_those_of_the_plain_sampler(normal):
    plain, ladder = model(steps=2), model(steps=2, strength=[1.0, 0.5])
    assert (plain.derived, ladder.derived, model(strength=1).derived) == (False, True, False)
    prompts = ladder.prepare(prompts_of(normal))
    whole = [prompt for prompt in prompts if prompt.strength == 1]
    assert len(whole) == 4
    for prompt in whole:
        (one,), (other,) = plain.generate([prompt]), ladder.generate([prompt])
        assert torch.equal(one, other)


def test_an_edit_of_no_strength_is_its_source(normal):
    """What the round trip through VAE and vocoder loses is not lost."""
    edits = model(steps=4, strength=1e-9)
    prompts = edits.prepare(prompts_of(normal))
    for prompt, waveform in zip(prompts, edits.generate(prompts), strict=True):
        source, _ = normalise(soundfile.read(prompt.source, dtype="float32")[0])
        np.testing.assert_allclose(waveform, source, atol=1e-4)


def test_what_an_edit_changed_is_put_into_the_recording_when_and_where_it_was_changed():
    random = np.random.default_rng(0)
    recording, time = 0.1 * random.standard_normal(16_000), np.arange(16_000) / SAMPLE_RATE
    hum = 0.1 * np.sin(2 * np.pi * 1000 * time)
    # The model is noisy, and hears nothing above 2 kHz.
    dull = np.convolve(recording, np.full(4, 0.25), mode="same")
    changed = dull + hum * (time > 0.5)
    edit = put_into(recording, changed, dull)
    difference = band_levels(spectra(edit)) - band_levels(spectra(recording))
    at_hum = int(np.argmax(difference.mean(axis=0)))
    assert difference[40:, at_hum].mean() > 3
    assert abs(difference[:20, at_hum].mean()) < 0.2
    others = np.delete(difference, range(at_hum - 4, at_hum + 5), axis=1)
    assert np.abs(others[40:].mean(axis=0)).max() < 0.5


def test_what_a_recording_lacks_is_not_amplified_without_limit():
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    edit = put_into(1e-3 * noise, noise, 1e-4 * noise)
    assert np.sqrt(np.mean(edit**2)) == pytest.approx(1e-3 * 10**1.5, rel=0.01)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_both_clips_of_a_pair_are_of_one_noise(normal, to_mel, strength):
    to_mel.sampler = Sampler(steps=4, strength=strength)
    prompts = to_mel.prepare(prompts_of(normal))
    waveforms = to_mel.generate(prompts)
    alike = to_mel.generate([prompt._replace(caption=NORMAL) for prompt in prompts])
    for one, other, same, too in zip(
        waveforms[::2], waveforms[1::2], alike[::2], alike[1::2], strict=True
    ):
        # The caption is all that they differ in.
        torch.testing.assert_close(same, too, atol=1e-4, rtol=0)
        assert (one - other).abs().max() > 0.01


def test_a_clip_does_not_depend_on_its_batch_of_several_strengths(normal, to_mel):
    to_mel.sampler = Sampler(steps=6, strength=[0.4, 0.8, 1.0])
    prompts = to_mel.prepare(prompts_of(normal, 4))
    assert {prompt.strength for prompt in prompts} == {0.4, 0.8, 1.0}
    for prompt, waveform in zip(prompts, to_mel.generate(prompts), strict=True):
        torch.testing.assert_close(to_mel.generate([prompt])[0], waveform, atol=1e-3, rtol=0)


def test_bits_do_not_depend_on_the_number_of_threads(normal):
    edits, threads, result = model(steps=4, strength=0.5), torch.get_num_threads(), []
    prompts = edits.prepare(prompts_of(normal))
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            result.append(edits.generate(prompts))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*result, strict=True))


def test_a_pair_reads_encodes_and_decodes_its_source_once(normal, to_mel, monkeypatch):
    to_mel.sampler = Sampler(steps=2, strength=0.5)
    read, decoded, decode = [], [], to_mel.model.decode
    monkeypatch.setattr(
        "fsasd.generation.diffusion.editing.read_source",
        lambda prompt, channel: read.append(prompt.source) or read_source(prompt, channel),
    )
    monkeypatch.setattr(
        to_mel.model, "decode", lambda latents: decoded.append(len(latents)) or decode(latents)
    )
    prompts = to_mel.prepare(prompts_of(normal, pairs=2))
    assert [prompt.source for prompt in prompts[::2]] == [p.source for p in prompts[1::2]]
    to_mel.generate(prompts)
    assert sorted(read) == sorted({prompt.source for prompt in prompts})
    # Of the edits, and of the round trips.
    assert decoded == [2, 2, 2]


def test_a_long_source_is_cut_and_keeps_its_level(normal):
    edits = model(strength=0.4)
    prompt = next(p for p in prompts_of(normal, max_seconds=0.64) if p.source.endswith("1.wav"))
    (waveform,) = edits.generate(edits.prepare([prompt]))
    assert len(waveform) == round(0.64 * SAMPLE_RATE)
    vae = edits.components.vae
    latent = Sources([prompt], edits.model, 10_240).latents[0]
    # Its loudest part is not in the cut, and still decides its level.
    source, gain = normalise(soundfile.read(prompt.source, dtype="float32")[0])
    assert gain == pytest.approx(prompt.gain)
    mean, _ = encode(vae, AUDIOLDM_MEL(source[:10_240]).T).chunk(2)
    torch.testing.assert_close(latent, mean * vae.config.scaling_factor)
    assert latent.shape == (4, 16, 16)


def test_a_source_that_is_too_short_is_repeated(normal):
    prompt = prompts_of(normal)[0]
    latent = Sources([prompt], model().model, 2 * 12_800).latents[0]
    assert latent.shape == (4, 40, 16)
    # Away from the seam, its latent comes twice.
    torch.testing.assert_close(latent[:, 5:15], latent[:, 25:35], atol=0.15, rtol=0)


def test_prompts_that_cannot_be_edited_are_named(normal):
    edits, prompts = model(steps=2, strength=0.5), prompts_of(normal)
    with pytest.raises(ValueError, match=r"fan/normal_0000.wav: expected .*: call 'prepare' first"):
        edits.generate(prompts)
    orphans = edits.prepare([prompt._replace(source=None) for prompt in prompts])
    with pytest.raises(ValueError, match=r"fan/normal_0000.wav: expected a prompt with a source"):
        edits.generate(orphans)


@pytest.mark.nightly
@pytest.mark.parametrize("strength", [0.3, [0.3, 1.0]])
def test_edits_keep_the_rules(strength):
    sampler = Sampler(steps=4, strength=strength)
    check_generator(
        AudioLDM("nano", sampler=sampler),
        reload=lambda folder: AudioLDM(str(folder), sampler=sampler),
    )


# The ladder


def test_strengths_come_in_turn_over_the_pairs_and_over_the_sources(normal):
    ladder = [0.3, 0.5, 0.7]
    prompts = with_strengths(prompts_of(normal, 30), ladder)
    assert all(a.strength == b.strength for a, b in zip(prompts[::2], prompts[1::2], strict=True))
    assert Counter(p.strength for p in prompts) == dict.fromkeys(ladder, 20)
    assert Counter(p.strength for p in prompts[:6]) == dict.fromkeys(ladder, 2)
    # As many sources as strengths: each source has all of them all the same.
    strengths_of = defaultdict(set)
    for prompt in prompts:
        strengths_of[prompt.source].add(prompt.strength)
    assert [sorted(strengths) for strengths in strengths_of.values()] == [ladder] * 3


# Derived or not, of one generator


def test_derived_may_be_of_a_class_or_of_an_instance(normal):
    class OfClass(Generator):
        derived = True

        def generate(self, prompts):
            return []

    class OfInstance(OfClass):
        def __init__(self, derived):
            super().__init__()
            self.derived = derived

    for generator, derived in ((OfClass(), True), (OfInstance(False), False)):
        assert {prompt.derived for prompt in generator.prepare(prompts_of(normal))} == {derived}


# By the configuration


def composed(*overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", ["experiment=tiny", *overrides])


def test_any_audioldm_edits_by_its_sampler(tmp_path):
    asked = [f"store={tmp_path}", "generator=audioldm_nano", "generator/sampler=edit"]
    keys, finetuned = {}, []
    for strength in ("0.4", "0.7", "[0.4,0.7]", "1.0"):
        run = Run(composed(*asked, f"generator.sampler.strength={strength}"), tmp_path / "run")
        (keys[strength],) = run.keys("synthesise")
        finetuned += run.keys("finetune")
    assert len(set(keys.values())) == 4
    assert len(set(finetuned)) == 1
    # Pure noise is no edit, whichever choice asked for it.
    plain = Run(composed(*asked[:2]), tmp_path / "run")
    assert plain.keys("synthesise") == [keys["1.0"]]
    assert composed("generator=audioldm_edit").generator == composed(*asked[1:]).generator


def test_a_run_edits_its_target(tmp_path):
    cfg = composed(
        f"store={tmp_path}/store", "generator=audioldm_nano_fast", "generator/sampler=edit",
        "generator.sampler.steps=6", "synthesis.max_seconds=0.64",
        "stages=[finetune,synthesise]", "trainer.enable_progress_bar=false",
    )  # fmt: skip
    Run(cfg, tmp_path / "run")()
    manifest = pd.read_csv(tmp_path / "run" / "synthetic" / "manifest.csv")
    assert manifest["derived"].all()
    assert Counter(manifest["pair"]) == dict.fromkeys(range(4), 2)
    assert set(manifest["strength"]) == {0.3, 0.5, 0.7}
    pairs = manifest[["pair", "strength", "seed", "source_sha256"]]
    assert len(pairs.drop_duplicates()) == 4
    assert (manifest["seconds"] == 0.64).all()
    judged = Run(cfg, tmp_path / "run").artifact("judge")
    clips = read_manifest(judged, Run(cfg, tmp_path / "run").artifact("synthesise"))
    assert {clip.source for clip in clips} <= set(manifest["source_sha256"])
    assert {(clip.pair, clip.strength) for clip in clips} <= set(
        zip(manifest["pair"], manifest["strength"], strict=True)
    )
