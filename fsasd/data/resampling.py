"""Resampling by any ratio, as ``scipy.signal.resample_poly`` does."""

from __future__ import annotations

import functools
import math

import numpy as np

ZEROS = 10
"""Of the sinc on either side that is weighed, as in ``scipy.signal.resample_poly``."""


def resample(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return (..., samples) at another sampling rate.

    Args:
        waveform: (..., samples) float32.
        rate: Its sampling rate in Hz.
        wanted: That of the result.

    >>> resample(np.zeros(26_667, np.float32), 26_667, 16_000).shape
    (16000,)
    """
    # Most recordings have the rate that is wanted, and the import takes longer than to read one.
    from scipy import signal

    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    taps, delay = _low_pass(up, down)
    count = -(-waveform.shape[-1] * up // down)
    return signal.upfirdn(taps, waveform, up, down)[..., delay : delay + count]


@functools.lru_cache(maxsize=8)
def _low_pass(up: int, down: int) -> tuple[np.ndarray, int]:
    """Return the filter of ``scipy.signal.resample_poly``, and the samples that it delays.

    Rates that are coprime to the one wanted need one of up to 8 million taps, which takes
    ``resample_poly`` seconds and hundreds of megabytes. It is a smooth curve: interpolated from
    fewer taps, it is the same to -100 dB.
    """
    from scipy import signal

    band = max(up, down)
    fine = min(band, 4096)
    curve = signal.firwin(2 * ZEROS * fine + 1, 1 / fine, window=("kaiser", 5.0))
    half = curve[ZEROS * fine :] * (up * fine / band)
    if fine < band:
        places = np.arange(ZEROS * band + 1) * (fine / band)
        half = np.interp(places, np.arange(len(half)), half)
    half = half.astype(np.float32)
    # Zeros in front, so that the delay is a number of samples.
    wait = -(ZEROS * band) % down
    taps = np.concatenate([np.zeros(wait, np.float32), half[:0:-1], half])
    return taps, (ZEROS * band + wait) // down
