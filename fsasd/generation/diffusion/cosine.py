"""The continuous cosine schedule of Stable Audio Open (Evans et al., 2024), and its sampler.

Time goes from 0 to 1. At time t a latent has a share cos(pi t / 2) of the clip and sin(pi t / 2) of
noise, and the network predicts the velocity (Salimans and Ho, 2022), in which it is told t itself.
"""

from __future__ import annotations

import math

import torch
from diffusers import EDMDPMSolverMultistepScheduler


class CosineScheduler(EDMDPMSolverMultistepScheduler):
    """DPM-Solver++ 2M on the levels of ``CosineDPMSolverMultistepScheduler``, with its config.

    That one of diffusers solves a stochastic equation and needs the package torchsde; this one
    solves the ordinary equation on the same levels and adds no noise of its own.

    >>> scheduler = CosineScheduler(sigma_min=0.3, sigma_max=500, sigma_data=1.0)
    >>> scheduler.precondition_noise(torch.tensor([0.0, 1.0, torch.inf])).tolist()
    [0.0, 0.5, 1.0]
    """

    def precondition_noise(self, sigma: float | torch.Tensor) -> torch.Tensor:
        """Return the time at which noise is ``sigma`` times as loud as the clip."""
        return torch.as_tensor(sigma).atan() / math.pi * 2

    def part(self, share: float) -> CosineScheduler:
        """Return one whose levels begin at a time, for edits; at 1 they are this one's.

        >>> half = CosineScheduler(0.3, 500, 1.0, "exponential").part(0.5)
        >>> half.set_timesteps(3)
        >>> [round(float(time), 3) for time in half.timesteps]
        [0.5, 0.326, 0.186]
        """
        most = self.config.sigma_max
        if share < 1:
            most = min(math.tan(share * math.pi / 2), most)
        # A first level below the last one would leave no steps.
        least = min(self.config.sigma_min, most / 2)
        return type(self).from_config(self.config, sigma_max=most, sigma_min=least)

    def begin(self, noise: torch.Tensor, sources: torch.Tensor | None) -> torch.Tensor:
        """Return latents at the first level: noise alone, or sources with noise added."""
        if sources is None:
            return noise * self.init_noise_sigma
        return sources + noise * self.config.sigma_max


def shares(times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shares of the clip and of noise at (...) times.

    >>> clip, noise = shares(torch.tensor(0.5))
    >>> bool(clip == noise), round(float(clip**2), 3)
    (True, 0.5)
    """
    angles = times * (math.pi / 2)
    return angles.cos(), angles.sin()
