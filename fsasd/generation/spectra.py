"""Short-time spectra of a waveform in bands, to be changed and put together again.

Spectra are of 32 ms every 16 ms, their power in 40 bands. Arrays have frames first.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

N_FFT, HOP = 512, 256

# A band is one bin at least; wider ones are the same ratio of frequencies wide.
_EDGES = np.unique(np.geomspace(1, N_FFT // 2 + 1, 54).round().astype(int))
_EDGES[0] = 0
_WIDTHS = np.diff(_EDGES)

BANDS = len(_WIDTHS)
"""Number of bands, from 0 to 8 kHz."""

_WINDOW = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
"""The root of a Hann window, before and after: frames that were changed join without a step."""

# Of a bin in the mean of its band, so that white noise of an RMS of 1 has a power of 1 in each.
_SHARES = (1 / (_WIDTHS * np.sum(_WINDOW**2))).astype(np.float32)

QUIET = 1e-5
"""Amplitude, -100 dB of full scale, about that of 16 bits' rounding: nothing below is a level."""


def spectra(waveform: np.ndarray) -> np.ndarray:
    """Return (frames, bins) the spectra of a waveform; half a window of zeros is on either side."""
    frames = -(-len(waveform) // HOP) + 1
    padded = np.zeros((frames + 1) * HOP, np.float32)
    padded[HOP : HOP + len(waveform)] = waveform
    return fft.rfft(sliding_window_view(padded, N_FFT)[::HOP] * _WINDOW, axis=1)


def band_levels(spectrum: np.ndarray) -> np.ndarray:
    """Return (frames, bands) the mean power in each band, in dB of white noise at full scale."""
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    of_bands = np.add.reduceat(power, _EDGES[:-1], axis=1) * _SHARES
    return 10 * np.log10(np.maximum(of_bands, QUIET**2))


def filtered(spectrum: np.ndarray, gains: np.ndarray, samples: int) -> np.ndarray:
    """Return the waveform of spectra whose bands are amplified.

    Args:
        spectrum: (frames, bins)
        gains: (frames, bands), of amplitudes.
        samples: Length of the waveform.

    >>> noise = np.random.default_rng(0).standard_normal(16_000)
    >>> spectrum = spectra(noise)
    >>> same = filtered(spectrum, np.ones((len(spectrum), BANDS)), len(noise))
    >>> bool(np.allclose(same, noise, atol=1e-5))
    True
    """
    changed = spectrum * np.repeat(gains, _WIDTHS, axis=1)
    frames = fft.irfft(changed, N_FFT, axis=1) * _WINDOW
    # Each sample is in the second half of one frame and in the first half of the next.
    return (frames[:-1, HOP:] + frames[1:, :HOP]).ravel()[:samples]
