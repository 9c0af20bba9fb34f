"""Inpainting: a region in time of a real clip is generated anew, from its caption and the rest.

The network is given the clip's latent outside of the region beside the noise, so that what it
generates goes on from there. The rest of the clip is the recording itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fsasd.generation.prompts import Prompt

_FADE_SECONDS = 0.005
"""At each end of a region, inside of it: shorter than an impact, too long for a click."""


def with_regions(
    prompts: Sequence[Prompt], seconds: tuple[float, float], frame: float
) -> list[Prompt]:
    """Return prompts with the region that is generated anew (``Prompt.region_start``).

    Its length, and then its place, are uniform, and drawn from the prompt's seed: the two clips of
    a pair have the same region.

    Args:
        prompts: In any order.
        seconds: Shortest and longest region; at most the clip.
        frame: Seconds of a latent frame, of which a region is a whole number.

    >>> one = Prompt("normal_0.wav", "fan", None, None, "normal", "", 1.0, 1.0, 7)
    >>> pair = with_regions([one, one._replace(wav="anomaly_0.wav")], (0.25, 0.5), 0.125)
    >>> [(prompt.region_start, prompt.region_end) for prompt in pair]
    [(0.375, 0.875), (0.375, 0.875)]
    """
    return [
        prompt._replace(region_start=start * frame, region_end=end * frame)
        for prompt in prompts
        for start, end in [_drawn(prompt, seconds, frame)]
    ]


def _drawn(prompt: Prompt, seconds: tuple[float, float], frame: float) -> tuple[int, int]:
    rng = np.random.default_rng(prompt.seed)
    frames = max(int(prompt.seconds / frame), 1)
    least, most = (min(max(round(bound / frame), 1), frames) for bound in seconds)
    length = int(rng.integers(least, most + 1))
    start = int(rng.integers(frames - length + 1))
    return start, start + length


def region(prompt: Prompt, rate: float) -> slice:
    """Return a prompt's region, as a slice of what has so many values per second.

    Raises:
        ValueError: The prompt has none.
    """
    if prompt.region_start is None or prompt.region_end is None:
        raise ValueError(f"{prompt.wav}: expected a region to inpaint: call 'prepare' first")
    return slice(round(prompt.region_start * rate), round(prompt.region_end * rate))


def kept_frames(prompts: Sequence[Prompt], frames: int, frame: float) -> torch.Tensor:
    """Return the (batch, 1, frames) mask of inpainting: 0 in a prompt's region, 1 outside of it.

    Args:
        prompts: Of the batch.
        frames: Of a latent.
        frame: Seconds of one.

    >>> one = Prompt("0.wav", "fan", None, None, "normal", "", 1.0, 1.0, 7)
    >>> kept_frames([one._replace(region_start=0.25, region_end=0.5)], 8, 0.125).int().tolist()
    [[[1, 1, 0, 0, 1, 1, 1, 1]]]
    """
    kept = torch.ones(len(prompts), 1, frames)
    for mask, prompt in zip(kept, prompts, strict=True):
        mask[:, region(prompt, 1 / frame)] = 0
    return kept


def insert(recording: np.ndarray, generated: np.ndarray, inside: slice, rate: int) -> np.ndarray:
    """Return a recording in which a region is what was generated, faded over 5 ms within it.

    Args:
        recording: (samples,)
        generated: (samples,) Of which only the region is taken.
        inside: The region, in samples.
        rate: In Hz.

    Returns:
        (samples,) float32

    >>> insert(np.zeros(6), np.ones(6), slice(2, 4), 100).tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    samples = np.arange(len(recording))
    fade = max(round(_FADE_SECONDS * rate), 1)
    # Where the clip itself begins or ends there is nothing to fade from.
    since = (samples - inside.start + 1) / fade if inside.start > 0 else np.inf
    until = (inside.stop - samples) / fade if inside.stop < len(recording) else np.inf
    share = np.clip(np.minimum(since, until), 0, 1)
    return (recording + share * (generated - recording)).astype(np.float32)
