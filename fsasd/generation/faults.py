"""Faults as signal transforms of a normal recording.

Each is a pure function ``(waveform, rng, sampling_rate, *, strength, ...) -> waveform`` of
(samples,). A strength of 0 changes nothing, 1 is obvious; what is added is measured against the RMS
of the clip, so that a strength means the same for quiet and loud machines. Frequencies and rates
are in Hz, times in seconds. The numbers that are drawn within (jitter, decay, phase) are those of
the literature named, not of any data set, nor of the simulated factory, with which this module
shares nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import fftconvolve

from fsasd.data.recording import SAMPLE_RATE

CREST = 4.0
"""Peak of ordinary machine noise over its RMS."""


def impacts(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    rate: float,
    resonance: float,
) -> np.ndarray:
    """Something strikes ``rate`` times a second, and the structure rings at its ``resonance``.

    A damaged bearing race, a chipped tooth, a flat on a roller, a loose part that is hit once per
    turn: short blows whose instants slip by about 2 % (Randall and Antoni, "Rolling element bearing
    diagnostics", MSSP 25, 2011) and whose force varies, each answered by two decaying modes.
    At a strength of 1 a blow is as high as the clip's own peaks.
    """
    seconds = len(waveform) / sampling_rate
    gaps = (1 + 0.02 * rng.standard_normal(int(seconds * rate) + 2)) / rate
    # The first blow falls into the clip, however rare they are.
    instants = rng.uniform(0, min(1 / rate, seconds)) + np.cumsum(gaps) - gaps[0]
    instants = instants[instants < seconds]
    blows = np.zeros(len(waveform))
    force = rng.lognormal(0, 0.3, len(instants))
    np.add.at(blows, (instants * sampling_rate).astype(int), force)
    modes = resonance * np.array([1, rng.uniform(1.3, 2.2)])
    quality = rng.uniform(10, 40)
    time = np.arange(round(8 * quality / (np.pi * resonance) * sampling_rate)) / sampling_rate
    ringing = sum(
        np.exp(-np.pi * f / quality * time) * np.sin(2 * np.pi * f * time)
        for f in modes
        if f < 0.45 * sampling_rate
    )
    struck = fftconvolve(blows, ringing / np.abs(ringing).max())[: len(waveform)]
    return _float32(waveform + strength * CREST * _rms(waveform) * struck)


def modulation(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    rate: float,
) -> np.ndarray:
    """The level rises and falls ``rate`` times a second, with ``strength`` as depth.

    Eccentric gears, an unbalanced fan, a load that is not the same all around: whatever turns is
    louder on one side (Randall, "Vibration-based condition monitoring", 2011, on sidebands). The
    power stays, so that loudness does not give it away.
    """
    phase = rng.uniform(0, 2 * np.pi)
    gain = 1 + strength * np.sin(2 * np.pi * rate * _time(waveform, sampling_rate) + phase)
    return _float32(waveform * gain / np.sqrt(1 + strength**2 / 2))


def harmonics(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    pitch: float,
) -> np.ndarray:
    """A tone at ``pitch`` and its harmonics, ``strength`` times as strong as the clip.

    Misalignment and looseness add multiples of the shaft's rate, a failing winding those of the
    mains: a line spectrum that falls with order, at a speed that wanders by about 0.3 %.
    """
    speed = pitch * (1 + 0.003 * _wander(rng, len(waveform), 2.0, sampling_rate))
    turns = np.cumsum(speed) / sampling_rate
    fall = rng.uniform(0.5, 1.5)
    tone = sum(
        order**-fall * np.sin(2 * np.pi * (order * turns + rng.uniform()))
        for order in range(1, 9)
        if order * pitch < 0.45 * sampling_rate
    )
    return _float32(waveform + strength * _rms(waveform) * tone / _rms(tone))


def resonance_shift(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    shift: float,
) -> np.ndarray:
    """The clip's strongest resonance moves up or down by the factor ``shift``.

    A crack or a loose screw makes a structure softer, a clogged filter or a jammed part stiffer or
    heavier: its modes move. The spectrum's broadest peak between 100 Hz and 6 kHz is lowered by up
    to 12 dB, and as much is added, a third of an octave wide, where it moved to.
    """
    spectrum = np.fft.rfft(waveform)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(waveform), 1 / sampling_rate), 1.0))
    centres = np.linspace(np.log2(100), np.log2(6000), 60)
    bands = np.abs(octaves - centres[:, None]) < 1 / 6
    power = np.array([np.mean(np.abs(spectrum[band]) ** 2) if band.any() else 0 for band in bands])
    peak = centres[power.argmax()]
    moved = peak + rng.choice([-1, 1]) * np.log2(shift)
    moved = float(np.clip(moved, np.log2(60), np.log2(7500)))

    def bump(centre: float) -> np.ndarray:
        return np.exp(-(((octaves - centre) * 3) ** 2))

    gain = 10 ** (strength * 12 / 20 * (bump(moved) - bump(peak)))
    return _float32(np.fft.irfft(spectrum * gain, len(waveform)))


def wobble(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    rate: float,
) -> np.ndarray:
    """The speed rises and falls ``rate`` times a second, by 10 % at a strength of 1.

    A slipping belt, a worn coupling, an unsteady supply: everything that turns goes faster and
    slower together, so the recording is played back at a speed that wobbles. What lies before
    its beginning or after its end is played backwards.
    """
    last = len(waveform) - 1
    reach = 0.1 * strength / (2 * np.pi * rate) * sampling_rate
    phase = rng.uniform(0, 2 * np.pi)
    positions = np.arange(last + 1) + reach * np.sin(
        2 * np.pi * rate * _time(waveform, sampling_rate) + phase
    )
    positions = np.abs(last - np.abs(last - positions))
    return _float32(CubicSpline(np.arange(last + 1), waveform)(positions))


def dropouts(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    rate: float,
    duration: float,
) -> np.ndarray:
    """The sound falls, about ``rate`` times a second, to 1 - ``strength`` for ``duration``.

    A loose contact, a drive that loses its grip, air in a line: the machine stops working for
    moments, at no regular times, once at least. The level falls and rises within 5 ms.
    """
    seconds = len(waveform) / sampling_rate
    count = max(1, rng.poisson(rate * seconds))
    starts = rng.uniform(0, max(seconds - duration, 0), count)
    lengths = duration * rng.uniform(0.5, 1.5, count)
    time, out = _time(waveform, sampling_rate), np.zeros(len(waveform))
    for start, length in zip(starts, lengths, strict=True):
        out[(time >= start) & (time < start + length)] = 1
    window = np.hanning(round(0.005 * sampling_rate) + 2)
    softened = fftconvolve(out, window / window.sum(), mode="same").clip(0, 1)
    return _float32(waveform * (1 - strength * softened))


def leak(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    above: float,
) -> np.ndarray:
    """A hiss ``above`` a frequency, ``strength`` times as strong as the clip, that flutters.

    Gas or liquid that escapes through a crack is turbulent: broadband noise whose spectrum is high
    because the opening is small. Its level wanders by a few dB.
    """
    flutter = np.exp(0.3 * _wander(rng, len(waveform), 10.0, sampling_rate))
    hiss = _noise(rng, len(waveform), above, sampling_rate / 2, sampling_rate) * flutter
    return _float32(waveform + strength * _rms(waveform) * hiss / _rms(hiss))


def rubbing(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    rate: float,
    above: float,
) -> np.ndarray:
    """A scrape ``above`` a frequency that swells ``rate`` times a second.

    A rotor that touches its housing, a bent guard, a dry guide: friction noise while the high spot
    passes, a quarter of each turn. ``strength`` is its level over that of the clip.
    """
    turn = np.sin(np.pi * rate * _time(waveform, sampling_rate) + rng.uniform(0, np.pi))
    scrape = _noise(rng, len(waveform), above, 7 / 16 * sampling_rate, sampling_rate) * turn**8
    return _float32(waveform + strength * _rms(waveform) * scrape / _rms(scrape))


def squeal(
    waveform: np.ndarray,
    rng: np.random.Generator,
    sampling_rate: int = SAMPLE_RATE,
    *,
    strength: float,
    pitch: float,
    rate: float,
) -> np.ndarray:
    """Cries at ``pitch``, about ``rate`` a second, that slide a little and break off.

    A dry bearing, a slipping belt, a brake: stick and slip, whose tone is that of the part set
    ringing, with a few harmonics. ``strength`` is the level of a cry over that of the clip.
    """
    time, cries = _time(waveform, sampling_rate), np.zeros(len(waveform))
    seconds = len(waveform) / sampling_rate
    for _ in range(max(1, rng.poisson(rate * seconds))):
        length = min(rng.uniform(0.1, 0.5), seconds)
        start = rng.uniform(0, seconds - length)
        on = (time >= start) & (time < start + length)
        within = (time[on] - start) / length
        glide = pitch * (1 + rng.uniform(-0.05, 0.05) * within)
        turns = np.cumsum(glide) / sampling_rate
        cry = sum(
            np.sin(2 * np.pi * order * turns) / order
            for order in (1, 2, 3)
            if order * pitch < 0.45 * sampling_rate
        )
        cries[on] += np.sqrt(2) * np.sin(np.pi * within) ** 0.5 * cry
    return _float32(waveform + strength * _rms(waveform) * cries)


@dataclass(frozen=True)
class Fault:
    """A transform and its phrase in a caption, with ``{}`` for its parameters."""

    apply: Callable[..., np.ndarray]
    phrase: str

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that are drawn."""
        kinds = inspect.signature(self.apply).parameters.values()
        return [parameter.name for parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY]


FAULTS = {
    "impacts": Fault(impacts, "added impacts at {rate:g} per second ringing at {resonance:g} Hz"),
    "modulation": Fault(modulation, "its level swinging {rate:g} times per second"),
    "harmonics": Fault(harmonics, "an added tone of {pitch:g} Hz and its harmonics"),
    "resonance_shift": Fault(resonance_shift, "its main resonance moved by a factor of {shift:g}"),
    "wobble": Fault(wobble, "its speed wobbling {rate:g} times per second"),
    "dropouts": Fault(dropouts, "dropouts of {duration:g} s at {rate:g} per second"),
    "leak": Fault(leak, "a hiss above {above:g} Hz"),
    "rubbing": Fault(rubbing, "a scrape above {above:g} Hz {rate:g} times per second"),
    "squeal": Fault(squeal, "squeals at {pitch:g} Hz, {rate:g} per second"),
}
"""All faults, by their name in ``conf/generator/transforms.yaml``."""


def _time(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    return np.arange(len(waveform)) / sampling_rate


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _noise(
    rng: np.random.Generator, samples: int, low: float, high: float, sampling_rate: int
) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / sampling_rate), 1.0)
    # Second-order edges: nothing in a machine cuts off more sharply.
    edges = np.sqrt((1 + (low / frequency) ** 4) * (1 + (frequency / high) ** 4))
    return np.fft.irfft(spectrum / edges, samples)


def _wander(rng: np.random.Generator, samples: int, rate: float, sampling_rate: int) -> np.ndarray:
    """A curve of about unit variance that turns about ``rate`` times a second."""
    knots = np.arange(0, samples + sampling_rate / rate, sampling_rate / rate)
    return np.interp(np.arange(samples), knots, rng.standard_normal(len(knots)))


def _float32(waveform: np.ndarray) -> np.ndarray:
    return waveform.astype(np.float32)
