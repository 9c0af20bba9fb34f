"""What sounds are made of: harmonics, strikes, resonances, bands of noise."""

from collections.abc import Sequence

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
