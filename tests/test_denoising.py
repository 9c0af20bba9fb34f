"""The loss: perfect predictions, weights, masks; randomness that is each example's own."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.draws import Draw
from fsasd.generation.audioldm.checkpoint import build_scheduler
from fsasd.generation.audioldm.mel import sample_posterior
from fsasd.generation.audioldm.recordings import choose_condition
from fsasd.generation.diffusion.objective import (
    Objective,
    StepRandomness,
    denoising_loss,
    drop_condition,
)

TIMESTEPS = torch.tensor([10, 300, 600, 990])
SHAPE = (4, 16, 16)


@pytest.fixture
def latents():
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def perfect(scheduler, latents, noise):
    alpha = scheduler.alphas_cumprod[TIMESTEPS].reshape(4, 1, 1, 1)
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    return noise if scheduler.config.prediction_type == "epsilon" else velocity


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_has_no_loss(latents, prediction):
    scheduler, noise = build_scheduler(prediction), torch.randn(4, *SHAPE)
    right = perfect(scheduler, latents, noise)
    objective = Objective(scheduler)
    result = denoising_loss(lambda *_: right, objective, latents, None, TIMESTEPS, noise)
    assert float(result.max()) < 1e-9
    off = denoising_loss(lambda *_: right + 0.1, objective, latents, None, TIMESTEPS, noise)
    torch.testing.assert_close(off, torch.full((4,), 0.01))


def test_a_perfect_flow_has_no_loss_and_leads_from_noise_to_the_latents(latents):
    objective, noise = Objective(FlowMatchEulerDiscreteScheduler()), torch.randn(4, *SHAPE)

    def perfect(noisy, times, _):
        # From its own point, along the whole of the straight line to the latents.
        share = (times / 1000).view(-1, 1, 1, 1)
        torch.testing.assert_close(noisy - share * (noise - latents), latents)
        return noise - latents

    result = denoising_loss(perfect, objective, latents, None, TIMESTEPS, noise)
    assert float(result.max()) < 1e-9


def test_latents_of_any_shape_have_a_loss():
    """One of waveforms has no bins."""
    latents = torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.zeros_like(latents)
    objective = Objective(FlowMatchEulerDiscreteScheduler())
    frames = torch.tensor([16, 8, 4, 1])
    result = denoising_loss(
        lambda noisy, *_: noisy * 0, objective, latents, None, TIMESTEPS, noise, frames
    )
    expected = [float(one[:, :n].square().mean()) for one, n in zip(latents, frames, strict=True)]
    assert result.tolist() == pytest.approx(expected)


def test_a_target_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"DDIMScheduler: expected .* found 'sample'"):
        Objective(DDIMScheduler(prediction_type="sample"))


def test_flow_matching_has_no_weights_by_noise():
    with pytest.raises(ValueError, match=r"min_snr is for diffusion"):
        Objective(FlowMatchEulerDiscreteScheduler()).min_snr_weight(TIMESTEPS, 5.0)


def test_what_is_beyond_a_clips_end_does_not_count(latents):
    objective, noise = Objective(build_scheduler()), torch.randn(4, *SHAPE)
    frames = torch.tensor([16, 8, 4, 1])
    wrong = noise.clone()
    for i, valid in enumerate(frames):
        wrong[i, :, valid:] += 100
        wrong[i, :, :valid] += 0.1
    result = denoising_loss(lambda *_: wrong, objective, latents, None, TIMESTEPS, noise, frames)
    torch.testing.assert_close(result, torch.full((4,), 0.01))


def test_whole_clips_count_as_without_a_mask(latents):
    objective, noise = Objective(build_scheduler()), torch.randn(4, *SHAPE)
    whole = torch.full((4,), 16)
    guess = torch.randn(4, *SHAPE)
    args = (lambda *_: guess, objective, latents, None, TIMESTEPS, noise)
    torch.testing.assert_close(denoising_loss(*args, whole), denoising_loss(*args))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_weight_bounds_what_small_noise_counts(prediction):
    """Both weigh the same error of the latent alike (Hang et al., 2023, table 1)."""
    scheduler, timesteps = build_scheduler(prediction), torch.arange(1000)
    alpha = scheduler.alphas_cumprod
    snr = alpha / (1 - alpha)
    result = Objective(scheduler).min_snr_weight(timesteps, 5.0)
    per_latent = {"epsilon": snr, "v_prediction": snr + 1}[prediction]
    torch.testing.assert_close(result * per_latent, snr.clamp(max=5.0))


def test_the_posterior_is_sampled_with_its_spread():
    moments = torch.cat([torch.full((1, 4, 8, 8), 2.0), torch.full((1, 4, 8, 8), 2 * 0.693147)], 1)
    assert torch.equal(sample_posterior(moments, None), torch.full((1, 4, 8, 8), 2.0))
    drawn = sample_posterior(moments, torch.ones(1, 4, 8, 8))
    torch.testing.assert_close(drawn, torch.full((1, 4, 8, 8), 4.0), atol=1e-4, rtol=0)


# Condition


def test_conditions_are_dropped_and_exchanged_per_example():
    captions, recordings = torch.zeros(4, 3), torch.ones(4, 3)
    nothing = torch.full((3,), 9.0)
    uniform = torch.tensor([[0.1, 0.1], [0.3, 0.9], [0.9, 0.3], [0.19, 0.9]])
    result = choose_condition(captions, recordings, nothing, uniform, 0.2, 0.31)
    assert result[:, 0].tolist() == [9, 0, 1, 9]
    result = choose_condition(captions, None, nothing, uniform, 0.2, 0.31)
    assert result[:, 0].tolist() == [9, 0, 0, 9]


def test_conditions_of_several_tensors_are_dropped_as_one():
    condition = {"text": torch.zeros(3, 2, 5), "seconds": torch.zeros(3, 4)}
    empty = {"text": torch.ones(2, 5), "seconds": torch.full((4,), 2.0)}
    result = drop_condition(condition, empty, torch.tensor([0.1, 0.3, 0.19]), 0.2)
    assert result["text"][:, 0, 0].tolist() == [1, 0, 1]
    assert result["seconds"][:, 0].tolist() == [2, 0, 2]


def test_the_mix_is_that_of_the_authors():
    """69 % text, 31 % audio, and 19 % of all without a condition."""
    n = 20_000
    uniform = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    result = choose_condition(
        torch.zeros(n, 1), torch.ones(n, 1), torch.tensor([9.0]), uniform, 0.19, 0.31
    )[:, 0]
    assert float((result == 9).float().mean()) == pytest.approx(0.19, abs=0.01)
    assert float(result[result != 9].mean()) == pytest.approx(0.31, abs=0.01)


# StepRandomness

CPU = torch.device("cpu")


@given(seeds=st.lists(st.integers(0, 2**62 - 1), min_size=2, max_size=6, unique=True))
def test_chance_belongs_to_the_example_and_not_to_its_batch(seeds):
    draws = [Draw(i, seed) for i, seed in enumerate(seeds)]
    together = StepRandomness.draw(draws, SHAPE, 1000, CPU)
    for i, draw in enumerate(draws):
        alone = StepRandomness.draw([draw], SHAPE, 1000, CPU)
        for name in vars(together):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0]), name


def test_chance_is_what_it_should_be():
    randomness = StepRandomness.draw([Draw(0, seed) for seed in range(2000)], (1, 4, 4), 1000, CPU)
    for name in ("noise", "posterior", "offset"):
        drawn = getattr(randomness, name)
        assert float(drawn.mean()) == pytest.approx(0, abs=0.1)
        assert float(drawn.std()) == pytest.approx(1, abs=0.05)
    assert float(randomness.timesteps.float().mean()) == pytest.approx(499.5, abs=25)
    assert (int(randomness.timesteps.min()), int(randomness.timesteps.max())) <= (5, 999)
    assert randomness.uniform.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
    both = torch.stack([randomness.noise.flatten(), randomness.posterior.flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03
