"""Synthetic clips after synthesis: silence is removed, and what cannot be heard is rejected."""

from __future__ import annotations

import numpy as np

from fsasd.data.audio import SAMPLE_RATE

FRAME = 1024
"""Samples (64 ms) over which level is measured."""
AUDIBLE = 1e-4
"""Amplitude, -80 dB of full scale, below which nothing is to be heard."""
MIN_SECONDS = 0.5
MAX_CLIPPED = 0.01
"""Share of samples at full scale."""


def remove_silence(waveform: np.ndarray, below_db: float = 50.0) -> np.ndarray:
    """Cut out the frames that are silent, wherever they stand.

    The paper removes the silence that AudioLDM leaves (table 4: worth 2.7 to 3.2 points), since a
    detector would hear it as a machine that has stopped.

    Args:
        waveform: (samples,)
        below_db: A frame is silent when its level is this far below the loudest frame's.

    Returns:
        (samples,) of the other frames, in order; empty when there was no sound at all.

    >>> clip = np.concatenate([np.ones(2048), np.zeros(4096), np.ones(2048)]).astype(np.float32)
    >>> remove_silence(clip).shape
    (4096,)
    """
    frames = np.array_split(waveform, np.arange(FRAME, len(waveform), FRAME))
    level = np.array([np.sqrt(np.mean(frame**2)) for frame in frames])
    loud = level > max(level.max() * 10 ** (-below_db / 20), 1e-7)
    return np.concatenate([*(f for f, keep in zip(frames, loud, strict=True) if keep), []]).astype(
        np.float32
    )


def clean(waveform: np.ndarray) -> tuple[np.ndarray, str]:
    """Remove the silence of a synthetic clip and judge what is left.

    Returns:
        The clip, and why it must not be used: empty when it may.

    >>> clean(np.zeros(16_000, np.float32))[1], clean(np.full(16_000, 0.1, np.float32))[1]
    ('silent', '')
    """
    if not np.isfinite(waveform).all():
        return np.zeros_like(waveform), "not finite"
    sound = remove_silence(waveform)
    if not np.any(np.abs(sound) > AUDIBLE):
        return waveform, "silent"
    if len(sound) < MIN_SECONDS * SAMPLE_RATE:
        return waveform, f"shorter than {MIN_SECONDS} s without its silence"
    if np.mean(np.abs(sound) >= 1.0) > MAX_CLIPPED:
        return waveform, "clipped"
    return sound, ""
