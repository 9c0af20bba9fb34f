"""The sampler: equal to the pipeline's, independent of the batch, right on a known score.

``pipeline_golden.json`` holds every n-th sample of what the pipeline of diffusers 0.42, which calls
it deprecated, makes of small weights: written by ``python tests/test_sampling.py``.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from named_weights import draw
from small_pipelines import audioldm_pipeline

from fsasd.data.log_mel import LogMel
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm.checkpoint import build_hifigan, build_scheduler
from fsasd.generation.batches import batches
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.prompts import Prompt
from fsasd.generation.threads import map_in_chunks

GOLDEN = Path(__file__).with_name("pipeline_golden.json")
KEPT = 101
"""Of so many samples, one is kept."""


def prompt(seed=0, seconds=0.64, caption="This is the normal sound of a fan."):
    return Prompt(f"{seed}.wav", "fan", "00", "source", "normal", caption, seconds, 1.0, seed)


@torch.no_grad()
def whole_model():
    """Return the nano model with a small HiFi-GAN; weights depend on their names alone."""
    model = AudioLDM("nano").eval()
    parts = model.components
    parts.vocoder = build_hifigan(channels=64).eval()
    for part in (parts.vae, parts.unet, parts.text_encoder, parts.vocoder):
        draw(part)
    for parameter in parts.vocoder.parameters():
        # Else each sample is 1 or -1.
        parameter.mul_(0.5)
    return model


@pytest.fixture(scope="module")
def with_vocoder():
    return whole_model()


PRESETS = {
    "ddim without noise": Sampler(steps=4, scheduler="ddim", eta=0.0),
    "the paper's, in few steps": Sampler(steps=4, scheduler="ddim", eta=1.0),
    "no guidance": Sampler(steps=3, scheduler="ddim", eta=0.0, guidance=1.0),
    "dpm": Sampler(steps=4),
}


PROMPTS = [prompt(1), prompt(2, caption="This is the anomaly sound of a fan.")]


def of_diffusers(model, sampler):
    """Return what diffusers' pipeline makes of the prompts, (clips, samples)."""
    parts = model.components
    schedule = parts.scheduler
    if sampler.scheduler == "dpm++":
        schedule = DPMSolverMultistepScheduler.from_config(schedule.config, use_karras_sigmas=True)
    pipeline = audioldm_pipeline()(
        parts.vae, parts.text_encoder, parts.tokenizer, parts.unet, schedule, parts.vocoder
    )
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(p.seed) for p in PROMPTS]
    return pipeline(
        [p.caption for p in PROMPTS],
        audio_length_in_s=0.64,
        num_inference_steps=sampler.steps,
        guidance_scale=sampler.guidance,
        # Its own start has another shape than (channels, frames, bins) of one clip after another.
        latents=torch.stack([torch.randn(4, 16, 16, generator=g) for g in generators]),
        generator=generators,
        eta=sampler.eta,
    ).audios


def generated(model, sampler):
    model.sampler = sampler
    return torch.stack(model.generate(PROMPTS)).numpy()


@pytest.mark.parametrize("preset", PRESETS)
def test_equals_the_pipeline_of_diffusers(with_vocoder, preset):
    sampler = PRESETS[preset]
    theirs = of_diffusers(with_vocoder, sampler)
    np.testing.assert_allclose(generated(with_vocoder, sampler), theirs, atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_equals_what_the_pipeline_of_diffusers_made(with_vocoder, preset):
    theirs = json.loads(GOLDEN.read_text())[preset]
    ours = generated(with_vocoder, PRESETS[preset])[:, ::KEPT]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def gaussian_denoiser(std, schedule):
    """Exact prediction for latents that are Gaussian with these standard deviations."""

    def denoise(latents, t, embeddings):
        alpha = schedule.alphas_cumprod[int(t)]
        noise = latents * (1 - alpha).sqrt() / (alpha * std**2 + 1 - alpha)
        if schedule.config.prediction_type == "epsilon":
            return noise
        clean = latents * alpha.sqrt() * std**2 / (alpha * std**2 + 1 - alpha)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    return denoise


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(steps=200, scheduler="ddim")])
def test_recovers_the_spread_of_a_known_distribution(sampler, prediction):
    schedule = build_scheduler(prediction)
    std = torch.tensor([1.0, 0.5, 0.2]).reshape(3, 1, 1)
    drawn = Sampler(sampler.steps, 1.0, sampler.scheduler)(
        gaussian_denoiser(std, schedule),
        schedule,
        torch.zeros(16, 1),
        torch.zeros(1),
        (3, 16, 16),
        range(16),
    )
    result = drawn.std(dim=(0, 2, 3)) / std.flatten()
    assert result.tolist() == pytest.approx([1.0, 1.0, 1.0], abs=0.12)


def test_a_clip_does_not_depend_on_its_batch(with_vocoder):
    with_vocoder.sampler = Sampler(steps=3)
    prompts = [prompt(1), prompt(2), prompt(3, seconds=0.32)]
    for wanted, waveform in zip(prompts, with_vocoder.generate(prompts), strict=True):
        # An untrained vocoder whispers: compared are shares of its loudest sample.
        (alone,), loudest = with_vocoder.generate([wanted]), waveform.abs().max()
        torch.testing.assert_close(alone / loudest, waveform / loudest, atol=1e-4, rtol=0)


def test_through_griffin_lim_a_clip_of_another_batch_sounds_the_same():
    model = AudioLDM("nano", sampler=Sampler(steps=3))
    prompts = [prompt(1), prompt(2)]
    for wanted, waveform in zip(prompts, model.generate(prompts), strict=True):
        alone = model.generate([wanted])[0]
        # It turns the last bit of a sum, which batching changes, into another phase.
        difference = LogMel.audioldm()(alone.numpy()) - LogMel.audioldm()(waveform.numpy())
        assert np.abs(difference).mean() < 0.05


def test_bits_do_not_depend_on_the_number_of_threads():
    prompts = [prompt(seed) for seed in range(6)]
    before, result = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            result.append(AudioLDM("nano", sampler=Sampler(steps=2)).generate(prompts))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in result[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result[0], other, strict=True))


def test_lengths_are_those_asked_for(with_vocoder):
    """The hub's `sample_size` would give 5.12 s, and HiFi-GAN gives back 32 samples too many."""
    prompts = [prompt(1, 0.5), prompt(2, 1.234), prompt(3, 11.0)]
    for model in (AudioLDM("nano"), with_vocoder):
        model.sampler = Sampler(steps=1)
        assert [len(w) for w in model.generate(prompts)] == [8000, 19744, 176_000]


def test_autocast_reaches_the_threads(with_vocoder):
    seen = []
    with torch.autocast("cpu", torch.bfloat16):
        map_in_chunks(
            lambda chunk: seen.append(torch.is_autocast_enabled("cpu")) or chunk, [1, 2], 1
        )
    assert seen == [True, True]


# Batches


def named(seconds):
    return [prompt(seed, length) for seed, length in enumerate(seconds)]


@given(
    lengths=st.lists(st.sampled_from([1.0, 2.0, 10.0]), min_size=1, max_size=30),
    size=st.integers(1, 8),
    data=st.data(),
)
def test_interrupted_batches_are_taken_up_again_as_they_were(lengths, size, data):
    prompts = named(lengths)
    whole = batches(prompts, prompts, size)
    assert sorted(p.seed for batch in whole for p in batch) == list(range(len(prompts)))
    assert all(len({p.seconds for p in batch}) == 1 and len(batch) <= size for batch in whole)
    done = data.draw(st.sets(st.sampled_from(prompts)))
    rest = [p for p in prompts if p not in done]
    resumed = [batch for batch in batches(prompts, rest, size) if batch]
    assert all(batch in whole for batch in resumed)
    assert set(rest) <= {p for batch in resumed for p in batch}
    assert all(any(p in rest for p in batch) for batch in resumed)


def test_every_rank_gets_a_batch():
    prompts = named([1.0] * 5)
    assert batches(prompts, prompts[4:], 2, ranks=3) == [prompts[4:], [], []]
    assert AudioLDM("nano").generate([]) == []


# Configuration


def test_the_papers_preset_is_a_choice_of_the_sampler():
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", ["generator=audioldm_s", "generator/sampler=paper"])
    sampler = instantiate(cfg.generator.sampler)
    assert sampler == Sampler(steps=200, guidance=2.5, scheduler="ddim", eta=1.0)


def test_unknown_scheduler():
    with pytest.raises(ValueError, match="'dpm\\+\\+', 'ddim' or 'euler', found 'heun'"):
        Sampler(scheduler="heun")


def main() -> None:
    """Write the file anew."""
    model = whole_model()
    kept = {
        name: [[round(float(sample), 6) for sample in clip[::KEPT]] for clip in clips]
        for name, clips in (
            (name, of_diffusers(model, sampler)) for name, sampler in PRESETS.items()
        )
    }
    lines = [f" {json.dumps(name)}: {json.dumps(clips)}" for name, clips in kept.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
