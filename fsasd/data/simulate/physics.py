"""What sounds are made of: harmonics, strikes, resonances, bands, bearings, microphones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Array = npt.NDArray[np.floating]


def harmonics(turns: Array, levels: Sequence[float] | Array) -> Array:
    """A tone and its harmonics, ``sum_k levels[k-1] sin(2 pi k turns)``.

    Harmonics above 0.45 times the sample rate are left out, since they would alias.

    Args:
        turns: angle in turns, shape ``(samples,)``, not decreasing.
        levels: amplitude of the first, second, ... harmonic.

    Example:
        >>> tone = harmonics(np.arange(16000) * 100 / 16000, [1.0, 0.5])
        >>> spectrum = np.abs(np.fft.rfft(tone)) / 8000
        >>> spectrum[[100, 200, 300]].round(6).tolist()
        [1.0, 0.5, 0.0]
    """
    rate = (turns[-1] - turns[0]) / (turns.size - 1)
    kept = [level for k, level in enumerate(levels, start=1) if k * rate < 0.45]
    # A polynomial in e^(2 pi i turns): one complex exponential whatever the number of harmonics.
    return np.polyval([*kept[::-1], 0.0], np.exp(2j * np.pi * turns)).imag


def strikes(turns: Array, rng: np.random.Generator, spread: float = 0.15) -> Array:
    """An impulse at every whole turn, strength log-normal around 1, zero elsewhere.

    Example:
        >>> train = strikes(np.arange(0.5, 4, 0.25), np.random.default_rng(0), spread=0.0)
        >>> np.flatnonzero(train).tolist()
        [2, 6, 10]
    """
    whole = np.floor(turns)
    train = np.zeros_like(turns)
    hits = np.flatnonzero(np.diff(whole, prepend=whole[0]) > 0)
    train[hits] = rng.lognormal(0.0, spread, hits.size)
    return train


def ring(excitation: Array, resonance: float, decay: float, sample_rate: int) -> Array:
    """A mode of the structure answers an excitation, ``h(t) = exp(-t/decay) sin(2 pi f t)``.

    Args:
        excitation: force, shape ``(samples,)``.
        resonance: the mode's frequency in Hz.
        decay: time to fall to 1/e, in seconds.
        sample_rate: in Hz.

    Example:
        >>> impulse = np.eye(1, 1600)[0]
        >>> answer = ring(impulse, 2000.0, 0.01, 16000)
        >>> bool(np.isclose(answer[161] / answer[1], np.exp(-1)))
        True
    """
    radius, angle = np.exp(-1 / (decay * sample_rate)), 2 * np.pi * resonance / sample_rate
    feedback = [1.0, -2 * radius * np.cos(angle), radius**2]
    return lfilter([np.sin(angle)], feedback, excitation)


def band(frequencies: Array, low: float, high: float, slope: float = 0.0) -> Array:
    """Gain of a band with second-order edges and a tilt of ``slope`` dB per octave about 1 kHz.

    Example:
        >>> gain = band(np.array([10.0, 1000.0, 7999.0]), 100.0, 4000.0)
        >>> (20 * np.log10(gain)).round().tolist()
        [-40.0, -0.0, -12.0]
    """
    f = np.maximum(frequencies, 1.0)
    edges = np.sqrt((1 + (low / f) ** 4) * (1 + (f / high) ** 4))
    return (f / 1000) ** (slope / 6.02) / edges


@dataclass(frozen=True)
class Microphone:
    """A recording position: what distance, room and capsule do to the sound.

    Attributes:
        distance: in metres; the direct sound falls as 1/distance, the reverberation does not.
        low: lower band edge in Hz.
        high: upper band edge in Hz.
        presence: a resonance of capsule and mounting in Hz, 6 dB high and an octave wide.
        reverberation: RT60 of the surroundings in seconds.
    """

    distance: float
    low: float
    high: float
    presence: float
    reverberation: float

    def record(self, sound: Array, sample_rate: int) -> Array:
        """The sound as this microphone takes it up: early reflections, tail, frequency response.

        The clip is cut from a machine that was running before, hence circular convolution: what
        rings past the end comes in at the start.

        Example:
            >>> impulse = np.eye(1, 16000)[0]
            >>> near = MICROPHONES["1"].record(impulse, 16000)
            >>> far = MICROPHONES["3"].record(impulse, 16000)
            >>> bool(np.abs(near).max() > 2 * np.abs(far).max())
            True
        """
        # A position has one room: its reflections are drawn from the position, not from the clip.
        rng = np.random.default_rng(round(1000 * self.distance))
        delay = np.arange(round(self.reverberation * sample_rate)) / sample_rate
        room = 0.01 * rng.standard_normal(delay.size) * 10 ** (-3 * delay / self.reverberation)
        early = rng.integers(sample_rate // 500, sample_rate // 35, size=5)
        room[early] += 0.15 * rng.choice([-1, 1], size=5)
        room[0] = 1 / self.distance
        f = np.fft.rfftfreq(sound.size, 1 / sample_rate)
        peak = 1 + np.exp(-((2 * np.log2(np.maximum(f, 1.0) / self.presence)) ** 2))
        response = band(f, self.low, self.high) * peak * np.fft.rfft(room, sound.size)
        return np.fft.irfft(np.fft.rfft(sound) * response, sound.size)


MICROPHONES: Mapping[str, Microphone] = {
    "1": Microphone(distance=0.8, low=40, high=7500, presence=5000, reverberation=0.15),
    "2": Microphone(distance=1.0, low=90, high=6500, presence=2500, reverberation=0.20),
    "3": Microphone(distance=2.0, low=60, high=4500, presence=700, reverberation=0.35),
}


def bearing_rates(shaft_rate: float) -> tuple[float, float]:
    """Ball-pass frequencies of the simulated bearing (an SKF 6205) on the outer and inner race.

    ``BPFO = n/2 f_r (1 - d/D cos phi)`` and ``BPFI = n/2 f_r (1 + d/D cos phi)`` with n = 9 balls
    of d = 7.94 mm on a pitch diameter D = 39.04 mm and contact angle phi = 0 (Randall & Antoni,
    "Rolling element bearing diagnostics - a tutorial", MSSP 25, 2011).

    Args:
        shaft_rate: f_r in Hz.

    Returns:
        BPFO and BPFI in Hz. They add up to n f_r.

    Example:
        >>> [round(rate, 3) for rate in bearing_rates(1.0)]
        [3.585, 5.415]
    """
    ratio = 7.94 / 39.04
    return 4.5 * shaft_rate * (1 - ratio), 4.5 * shaft_rate * (1 + ratio)
