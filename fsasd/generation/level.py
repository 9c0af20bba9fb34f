"""The level at which generators work: every waveform is scaled to one peak."""

from __future__ import annotations

import numpy as np

PEAK = 0.5
"""Every waveform is scaled to this peak, as in AudioLDM's training."""


def normalise(waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Remove the mean and scale the peak to 0.5.

    Returns:
        The waveform and the gain that was applied; dividing by it restores the level.

    >>> normalise(np.array([0.0, 0.2], np.float32))[1].round(3)
    np.float64(5.0)
    """
    waveform = waveform - waveform.mean()
    gain = PEAK / max(float(np.abs(waveform).max()), 1e-8)
    return (waveform * gain).astype(np.float32), np.float64(gain)
