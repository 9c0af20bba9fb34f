"""Counterfactual edits: a real clip is noised in part, and denoised with a caption of its own.

What the caption does not change is the clip's: with the normal caption and with the anomalous one,
from the same clip and the same noise, two clips differ in the anomaly and little else. The noise is
added to the clip's latent (SDEdit, Meng et al., 2022); how much is the strength.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL

from fsasd.generation.base import read_source
from fsasd.generation.diffusion.latents import AUDIOLDM_MEL, encode, normalise
from fsasd.generation.ladder import in_turn
from fsasd.generation.prompts import Prompt


def with_strengths(prompts: Sequence[Prompt], ladder: Sequence[float]) -> list[Prompt]:
    """Return prompts with the strengths of a ladder, in turn (``ladder.in_turn``).

    Both clips of a pair have the same strength.

    >>> one = Prompt("normal_0.wav", "fan", None, None, "normal", "", 1.0, 1.0, 7)
    >>> asked = [one, one._replace(wav="anomaly_0.wav", label="anomaly")]
    >>> [prompt.strength for prompt in with_strengths(asked, [0.3, 0.6])]
    [0.6, 0.6]
    """
    rungs = in_turn(prompts, len(ladder))
    return [
        prompt._replace(strength=ladder[rung])
        for prompt, (rung, _) in zip(prompts, rungs, strict=True)
    ]


def source_latent(
    prompt: Prompt, vae: AutoencoderKL, samples: int, channel: int | str | None = None
) -> torch.Tensor:
    """Return the (channels, frames, bins) latent of a prompt's source, scaled as the UNet's are.

    Args:
        prompt: Its source is read.
        vae: The frozen VAE.
        samples: So many are encoded from the start, a whole number of latent frames; a shorter
            source is repeated. The level is that of the whole recording.
        channel: What to take of recordings with several channels (see ``recording.read``).

    Raises:
        ValueError: The prompt has no source.
    """
    waveform, _ = normalise(read_source(prompt, channel))
    if len(waveform) < samples:
        waveform = np.pad(waveform, (0, samples - len(waveform)), mode="wrap")
    mean, _ = encode(vae, AUDIOLDM_MEL(waveform[:samples]).T).chunk(2)
    return mean.float() * vae.config.scaling_factor
