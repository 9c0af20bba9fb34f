"""Stable Audio Open: equal to diffusers' pipeline, fine-tuned, saved in the pipeline's folder."""

import json
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderOobleck, StableAudioDiTModel, StableAudioPipeline
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from small_pipelines import stable_audio_open

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.generation.diffusion.adaptation import Full, Lora
from fsasd.generation.diffusion.cosine import CosineScheduler
from fsasd.generation.diffusion.cost import training_cost
from fsasd.generation.diffusion.editing import edited_recording
from fsasd.generation.diffusion.model import map_condition
from fsasd.generation.diffusion.objective import Objective
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.pipelines.stable_audio_open import StableAudioOpen
from fsasd.generation.pipelines.zero_shot import ZeroShot
from fsasd.generation.prompts import make_prompts
from fsasd.generation.rates import resample
from fsasd.testing import check_generator

pytestmark = pytest.mark.slow

CAPTION = "This is the normal sound of a fan."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stable_audio_open(tmp_path_factory.mktemp("stable-audio-open"))


@pytest.fixture
def prompt(make_wav):
    clips = Clips([Clip(make_wav("fan.wav", seconds=0.5), "fan", label="normal")])
    return make_prompts(clips, [CAPTION], clips_per_label=1)[0]


def generator(folder, guidance=3.0, strength=1.0, **options):
    sampler = Sampler(steps=4, guidance=guidance, strength=strength)
    options = {"crop_seconds": 0.32, "warmup_steps": 1, **options}
    return StableAudioOpen(str(folder), sampler=sampler, **options)


def stock(folder, frames):
    """Load the pipeline with a scheduler that needs no torchsde; it generates so many frames."""
    scheduler = CosineScheduler.from_pretrained(folder, subfolder="scheduler")
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        name_scheduler(copy, "EDMDPMSolverMultistepScheduler")
        pipeline = StableAudioPipeline.from_pretrained(copy, scheduler=scheduler)
    pipeline.transformer.register_to_config(sample_size=frames)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def name_scheduler(folder, name):
    path = Path(folder) / "model_index.json"
    index = json.loads(path.read_text()) | {"scheduler": ["diffusers", name]}
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(("guidance", "negative"), [(1, ""), (3, ""), (3, "A quiet room.")])
def test_its_clips_are_the_pipelines(folder, prompt, guidance, negative):
    frames = math.ceil(22_050 / 128)
    wanted = stock(folder, frames)(
        prompt.caption, audio_end_in_s=prompt.seconds, num_inference_steps=4,
        guidance_scale=guidance, negative_prompt=negative or None,
        generator=torch.Generator().manual_seed(prompt.seed),
    ).audios[0].mean(0)  # fmt: skip
    model = generator(folder, guidance=guidance).eval()
    (waveform,) = model.generate(model.prepare([prompt._replace(negative=negative)]))
    assert len(waveform) == 22_050
    torch.testing.assert_close(waveform, wanted, atol=1e-5, rtol=0)
    assert wanted.std() > 1e-3


# With adapters: tests/test_generator_configs.py.
@pytest.mark.nightly
def test_it_keeps_the_rules_of_a_generator_when_all_its_weights_are_trained(folder):
    check_generator(generator(folder, train=Full()), reload=generator)


def test_edits_of_less_strength_are_nearer_to_their_recording(folder, prompt):
    distances = []
    for strength in (0.05, 0.3, 0.8):
        model = generator(folder, strength=strength).eval()
        (asked,) = model.prepare([prompt])
        (waveform,) = model.generate([asked])
        recording = resample(edited_recording(asked, 8000), 16_000, 44_100)
        distances.append(np.abs(waveform.numpy() - recording).mean())
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[-1]


def test_a_saved_model_is_one_of_the_pipeline(folder, tmp_path):
    model = generator(folder)
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    model.save(tmp_path / "model")
    source = Path(folder)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {path.name for path in source.iterdir()} | {"README.md"}
    # The published scheduler, not the one that samples here.
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        written, read = ((one / name).read_text() for one in (tmp_path / "model", source))
        assert json.loads(written) == json.loads(read)
    again = stock(tmp_path / "model", 8).transformer.state_dict()
    assert all(torch.equal(again[k], w) for k, w in model.network.state_dict().items())


def test_the_random_frequencies_of_time_are_never_trained(folder):
    model = generator(folder, train=Full())
    model._select_weights()
    fixed = {name for name, p in model.network.named_parameters() if not p.requires_grad}
    assert fixed == {"time_proj.weight"}


def test_latents_have_the_encoders_rate_and_distribution(folder):
    model = generator(folder).model
    sound = np.random.default_rng(0).standard_normal(44_100).astype(np.float32)
    encoded = model.encode(sound)[None]
    assert encoded.shape == (1, 16, 44_100 // 128)
    noise = torch.randn(1, *model.latent_shape(344))
    distribution = model.pipeline.vae.encode(
        torch.from_numpy(sound[: 344 * 128]).expand(1, 2, -1)
    ).latent_dist
    torch.testing.assert_close(model.latent(encoded), distribution.mode())
    wanted = distribution.mode() + distribution.std * noise
    torch.testing.assert_close(model.latent(encoded, noise), wanted)
    assert model.decode(noise).shape == (1, 344 * 128)


def test_the_published_sizes():
    """1057 million weights in the transformer, 156 million in the autoencoder."""
    with torch.device("meta"):
        network, vae = StableAudioDiTModel(), AutoencoderOobleck()
        projection = StableAudioProjectionModel(768, 768, 0, 512)
    assert sum(p.numel() for p in network.parameters()) == 1_056_939_136
    assert sum(p.numel() for p in vae.parameters()) / 1e6 == pytest.approx(156.1, abs=0.1)
    assert sum(p.numel() for p in projection.parameters()) == 396_544


def test_its_cost_is_counted(folder):
    model = generator(folder)
    cost = training_cost(model.model, model.unconditional, Lora(rank=2), 2, 32)
    assert 0 < cost.trained < 0.2 * cost.total


# The continuous cosine schedule


def schedule(**changed):
    known = {"sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0}
    known |= {"sigma_schedule": "exponential", "prediction_type": "v_prediction"}
    return CosineScheduler(**known | changed)


def test_the_objective_is_the_velocity_of_the_mixture():
    objective = Objective(schedule())
    clip, noise = torch.randn(3, 8, 5), torch.randn(3, 8, 5)
    timesteps = torch.tensor([0, 499, 999])
    time = objective.network_time(timesteps)
    assert time.tolist() == pytest.approx([0.001, 0.5, 1.0])
    angles = (time * math.pi / 2).view(-1, 1, 1).double().requires_grad_()
    mixed = angles.cos() * clip + angles.sin() * noise
    torch.testing.assert_close(objective.noised(clip, noise, timesteps), mixed.float().detach())
    # By what the mixture changes with the angle.
    weight = torch.randn(3, 8, 5)
    (slope,) = torch.autograd.grad((mixed * weight).sum(), angles)
    wanted = (objective.target(clip, noise, timesteps) * weight).sum((1, 2))
    torch.testing.assert_close(slope.flatten().float(), wanted, atol=1e-4, rtol=1e-4)


def test_small_noise_weighs_less():
    weights = Objective(schedule()).min_snr_weight(torch.tensor([0, 499, 999]), 5.0)
    assert weights.tolist() == pytest.approx([5 * math.tan(math.pi / 2000) ** 2, 0.5, 0], abs=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.1])
def test_the_sampler_solves_the_equation_of_normal_latents(strength):
    """Of latents N(0, s^2) the best velocity is known, and the equation has a closed solution.

    From the last level, 0.3, one step leads to the mean of what may be below the noise.
    """
    s, noise = 0.5, torch.randn(8, 64, generator=torch.Generator().manual_seed(7))

    def denoise(latents, time, condition):
        clip, noisy = torch.cos(time * math.pi / 2), torch.sin(time * math.pi / 2)
        return latents * clip * noisy * (1 - s**2) / (clip**2 * s**2 + noisy**2)

    sources = None if strength == 1 else torch.full((1, 8, 64), 0.3)
    sampler = Sampler(steps=60, guidance=1.0, strength=strength)
    drawn = sampler(
        denoise, schedule(), torch.zeros(1), torch.zeros(1), (8, 64), [7], sources, strength
    )
    sigma = 500 if strength == 1 else math.tan(strength * math.pi / 2)
    begin = noise * math.sqrt(sigma**2 + 1) if sources is None else sources[0] + noise * sigma
    last = min(0.3, sigma / 2)
    solved = begin * math.sqrt((s**2 + last**2) / (s**2 + sigma**2))
    wanted = solved * s**2 / (s**2 + last**2)
    torch.testing.assert_close(drawn[0], wanted, atol=0.02, rtol=0.02)


# What is refused


def test_another_sampler_is_refused(folder):
    for scheduler in ("ddim", "euler"):
        with pytest.raises(ValueError, match=rf"'{scheduler}' is not .* cosine .*sampler=dpm"):
            StableAudioOpen(folder, sampler=Sampler(scheduler=scheduler))


def test_a_clip_that_is_too_long_is_refused(folder, prompt):
    with pytest.raises(ValueError, match=r"trained on 2\.0 s at most, found a clip of 2\.5 s"):
        generator(folder).generate([prompt._replace(seconds=2.5)])
    with pytest.raises(ValueError, match=r"found a clip of 10 s: lower .*crop_seconds"):
        generator(folder, crop_seconds=10.0)


def test_another_schedule_is_refused(tmp_path):
    folder = stable_audio_open(tmp_path / "other")
    name_scheduler(folder, "EDMDPMSolverMultistepScheduler")
    with pytest.raises(CheckpointError, match=r"expected .*Cosine.*, found EDMDPMSolver"):
        generator(folder)


def test_a_scheduler_that_needs_a_missing_package_is_named(folder):
    with pytest.raises(CheckpointError, match=r"could not be loaded \(.* requires the torchsde"):
        ZeroShot(folder)


def test_the_unconditional_condition_keeps_the_seconds(folder):
    condition = generator(folder).model.condition(["", CAPTION], 1.0)
    assert not condition["text"][0].any()
    assert condition["text"][1].any()
    torch.testing.assert_close(condition["seconds"][0], condition["seconds"][1])
    longer = generator(folder).model.condition([CAPTION], 2.0)
    difference = map_condition(torch.sub, {"seconds": longer["seconds"]}, condition)
    assert difference["seconds"].abs().max() > 1e-3
