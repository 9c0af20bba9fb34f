"""Training steps of AudioLDM on made-up latents, outside Lightning: what the hardware gives."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fsasd.data.draws import Draw
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm.mel import AUDIOLDM_MEL
from fsasd.generation.diffusion.cost import training_cost
from fsasd.generation.diffusion.latents import Batch
from fsasd.generation.diffusion.objective import StepRandomness
from fsasd.generation.diffusion.optimizing import build_optimizer

CAPTION = (
    "This is the normal sound of a toy car with model B2 and speed 31V, recorded by a microphone "
    "placed at the position 1."
)


@dataclass
class TrainingStep:
    """A step of fine-tuning, from latents (cached) or from log-mels and captions (uncached)."""

    module: AudioLDM
    batch_size: int
    cached: bool = True

    def __post_init__(self) -> None:
        module = self.module
        module.begin_training()
        module.on_fit_start()
        self.optimizer = build_optimizer(
            module.optimizer_name, module.trained_weights(), 1e-5, 1e-2
        )
        self.frames = module.example_frames
        self.shape = module.model.latent_shape(self.frames)
        channels, *rest = self.shape
        shape = (self.batch_size, 2 * channels, *rest)
        self.moments = torch.randn(shape, device=module.device)
        self.embedding = module.embed([CAPTION] * self.batch_size).to(module.device)
        self.number = 0
        if not self.cached:
            for part in (module.components.vae, module.components.text_encoder):
                part.to(module.device)
            mel_shape = (self.batch_size, 1, 4 * self.frames, AUDIOLDM_MEL.n_mels)
            self.mel = torch.randn(mel_shape, device=module.device)

    def __call__(self) -> torch.Tensor:
        """Make one step; returns the loss."""
        module = self.module
        if not self.cached:
            with torch.no_grad():
                self.moments = module.components.vae.encode(self.mel).latent_dist.parameters
                self.embedding = module.embed([CAPTION] * self.batch_size).to(module.device)
        self.number += 1
        draws = [Draw(i, self.number * self.batch_size + i) for i in range(self.batch_size)]
        batch = Batch(
            moments=self.moments,
            embedding=self.embedding,
            frames=torch.full((self.batch_size,), self.frames, device=module.device),
            draws=draws,
        )
        randomness = StepRandomness.draw(draws, self.shape, 1000, module.device)
        condition = module.chosen_condition(batch, randomness.uniform)
        loss = module.loss(
            batch, randomness.timesteps, randomness.noise, randomness.posterior, condition
        )
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(module.trained_weights(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        assert module.ema is not None
        module.ema.step(module.trained_weights())
        return loss.detach().mean()

    @property
    def flops(self) -> float:
        """Of the UNet, forward and backward."""
        module = self.module
        cost = training_cost(
            module.model, module.unconditional, module.adaptation, self.batch_size, self.frames
        )
        return cost.flops


def seconds_per_call(
    call: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 2
) -> float:
    """Return the median time of a call, after some that do not count."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def wait(device: torch.device) -> None:
    """Wait until an accelerator has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def half_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Compute in bfloat16, on CUDA."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
