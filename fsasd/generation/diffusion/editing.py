"""Counterfactual edits: a real clip is noised in part, and denoised with a caption of its own.

What the caption does not change is the clip's: with the normal caption and with the anomalous one,
from the same clip and the same noise, two clips differ in the anomaly and little else. The noise is
added to the clip's latent (SDEdit, Meng et al., 2022); how much is the strength.

A model's round trip from waveform to latent and back changes a clip, too, and a detector finds that
before it finds an anomaly. So an edit is put into the recording itself: what is amplified, when and
by how much, is how the edit differs from its recording's own round trip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.base import read_source
from fsasd.generation.diffusion.model import Model
from fsasd.generation.ladder import in_turn
from fsasd.generation.level import normalise
from fsasd.generation.prompts import Prompt
from fsasd.generation.rates import resample
from fsasd.generation.spectra import band_levels, filtered, spectra

_SPREAD = (1.5, 1.0)
"""Standard deviations, in frames and in bands, of the window over which gains are averaged: they
are not to follow the random phases of a vocoder."""

_MOST = 30.0
"""Of a gain, in dB: what a recording lacks cannot be amplified out of its noise."""


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


class Sources:
    """The real clips that prompts edit, each read and encoded once: those of a pair are one.

    Args:
        prompts: Their sources are read.
        model: Its encoder is frozen.
        samples: So many, at the model's rate, are encoded (see ``edited_recording``), a whole
            number of latent frames.
        channel: What to take of recordings with several channels (see ``recording.read``).

    Attributes:
        recordings: What is edited, at the rate of recordings.
        latents: (sources, channels, frames, ...), as the network gets them.
        places: For each prompt, which of these are its source's.

    Raises:
        ValueError: A prompt has no source.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        model: Model,
        samples: int,
        channel: int | str | None = None,
    ) -> None:
        rate = model.sampling_rate
        recorded = math.ceil(samples * SAMPLE_RATE / rate)
        first = {prompt.source: prompt for prompt in reversed(prompts)}
        names = list(first)
        self.recordings = [edited_recording(one, recorded, channel) for one in first.values()]
        encoded = [
            model.encode(resample(recording, SAMPLE_RATE, rate)[:samples])
            for recording in self.recordings
        ]
        self.latents = model.latent(torch.stack(encoded).float())
        self.places = [names.index(prompt.source) for prompt in prompts]


def edited_recording(prompt: Prompt, samples: int, channel: int | str | None = None) -> np.ndarray:
    """Return the (samples,) waveform that is edited: a prompt's source, with a peak of 0.5.

    Args:
        prompt: Its source is read.
        samples: So many are taken from the start; a shorter source is repeated. The level is that
            of the whole recording.
        channel: What to take of recordings with several channels (see ``recording.read``).

    Raises:
        ValueError: The prompt has no source.
    """
    waveform, _ = normalise(read_source(prompt, channel))
    if len(waveform) < samples:
        waveform = np.pad(waveform, (0, samples - len(waveform)), mode="wrap")
    return waveform[:samples]


def put_into(recording: np.ndarray, edit: np.ndarray, round_trip: np.ndarray) -> np.ndarray:
    """Return a recording with what an edit of it changed, and nothing else.

    Each band is amplified, frame by frame, by the level of the edit over that of the round trip, by
    30 dB at most.

    Args:
        recording: (samples,) What was edited.
        edit: (samples,) The edit, as the model gives it back.
        round_trip: (samples,) The recording, as the model gives it back unchanged.

    Returns:
        (samples,) float32

    >>> noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    >>> dull = np.convolve(noise, [0.5, 0.5], mode="same")
    >>> bool(np.allclose(put_into(noise, dull, dull), noise, atol=1e-5))
    True
    >>> louder = put_into(noise, 2 * dull, dull)
    >>> bool(np.allclose(louder, 2 * noise, atol=1e-4))
    True
    """
    change = band_levels(spectra(edit)) - band_levels(spectra(round_trip))
    decibels = gaussian_filter(change, _SPREAD, mode="nearest").clip(-_MOST, _MOST)
    spectrum = spectra(recording)
    return filtered(spectrum, 10 ** (decibels / 20), len(recording)).astype(np.float32)
