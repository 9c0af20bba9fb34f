"""Sampling rates: recordings and detectors have one, a generator may work at another."""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import resample_poly


def resample(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return a (samples,) waveform at another rate, in Hz, as float32.

    >>> resample(np.ones(100, np.float32), 100, 250).shape
    (250,)
    """
    if rate == wanted:
        return waveform
    divisor = math.gcd(rate, wanted)
    return resample_poly(waveform, wanted // divisor, rate // divisor).astype(np.float32)
