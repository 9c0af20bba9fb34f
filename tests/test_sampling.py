"""The sampler: equal to the pipeline's, independent of the batch, right on a known score."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.audioldm.pipeline_audioldm import AudioLDMPipeline
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from fsasd.data.audio import LogMel
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.checkpoint import build_scheduler
from fsasd.generation.prompts import Prompt
from fsasd.generation.sampling import Sampler


def prompt(seed=0, seconds=0.64, caption="This is the normal sound of a fan."):
    return Prompt(f"{seed}.wav", "fan", "00", "source", "normal", caption, seconds, 1.0, seed)


def test_equals_the_pipeline_of_diffusers():
    torch.manual_seed(0)
    model = AudioLDM("nano", sampler=Sampler(steps=4, scheduler="ddim", eta=0.0))
    config = SpeechT5HifiGanConfig(
        model_in_dim=64,
        upsample_initial_channel=64,
        upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4],
        normalize_before=False,
    )
    model.parts.vocoder = SpeechT5HifiGan(config).eval()
    model.eval()
    parts = model.parts
    pipeline = AudioLDMPipeline(
        parts.vae, parts.text_encoder, parts.tokenizer, parts.unet, parts.scheduler, parts.vocoder
    )
    pipeline.set_progress_bar_config(disable=True)
    prompts = [prompt(1), prompt(2, caption="This is the anomaly sound of a fan.")]
    ours = model.generate(prompts)
    noise = torch.stack(
        [torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    )
    theirs = pipeline(
        [p.caption for p in prompts],
        audio_length_in_s=0.64,
        num_inference_steps=4,
        guidance_scale=2.5,
        latents=noise,
        eta=0.0,
    ).audios
    # An untrained vocoder whispers: compared are shares of its loudest sample.
    loudest = np.abs(theirs).max()
    assert loudest > 0
    np.testing.assert_allclose(torch.stack(ours).numpy() / loudest, theirs / loudest, atol=1e-5)


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
    found = drawn.std(dim=(0, 2, 3)) / std.flatten()
    assert found.tolist() == pytest.approx([1.0, 1.0, 1.0], abs=0.12)


def test_a_clip_does_not_depend_on_its_batch():
    model = AudioLDM("nano", sampler=Sampler(steps=3))
    prompts = [prompt(1), prompt(2), prompt(3, seconds=0.32)]
    for wanted, waveform in zip(prompts, model.generate(prompts), strict=True):
        alone = model.generate([wanted])[0]
        # Griffin-Lim turns the last bit of a sum, which batching changes, into another phase.
        difference = LogMel.audioldm()(alone.numpy()) - LogMel.audioldm()(waveform.numpy())
        assert np.abs(difference).mean() < 0.05


def test_lengths_are_those_asked_for():
    model = AudioLDM("nano", sampler=Sampler(steps=1))
    assert [len(w) for w in model.generate([prompt(1, 0.5), prompt(2, 1.234)])] == [8000, 19744]


def test_unknown_scheduler():
    with pytest.raises(ValueError, match="'dpm\\+\\+' or 'ddim', found 'euler'"):
        Sampler(scheduler="euler")
