"""Bands of a log-mel: the level and the unsteadiness of each over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsasd.generation.encoder_space import ENCODER

BANDS = 16
"""Of equal width in mels: each is the sum of eight of the front end's."""

QUANTILES = (0.05, 0.95)
"""Of a band's level over time: their distance is its unsteadiness."""

Floats = NDArray[np.float64]


def band_edges() -> Floats:
    """Return the (BANDS + 1,) corners of the bands in Hz.

    >>> band_edges()[[0, 8, 16]].round()
    array([   0., 1768., 8000.])
    """
    top = 2595 * np.log10(1 + ENCODER.max_hz / 700)
    return 700 * (10 ** (np.linspace(0, top, BANDS + 1) / 2595) - 1)


def band_statistics(log_mel: NDArray) -> Floats:
    """Return (2, BANDS): level and unsteadiness of each band, in dB.

    The level is the mean over time, the unsteadiness the distance between two ``QUANTILES``.

    Args:
        log_mel: (mels, frames) of ``encoder_space.ENCODER``, in dB.

    >>> steady = np.full((128, 50), -60.0)
    >>> band_statistics(steady)[:, 0].round(6).tolist()
    [-60.0, 0.0]
    """
    power = 10 ** (np.asarray(log_mel, float) / 10)
    bands = 10 * np.log10(power.reshape(BANDS, -1, power.shape[1]).mean(axis=1))
    low, high = np.quantile(bands, QUANTILES, axis=1)
    return np.stack([bands.mean(axis=1), high - low])
