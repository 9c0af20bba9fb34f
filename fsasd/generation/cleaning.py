"""Cleaning of a synthetic clip: its silence, its length, whether it is usable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsasd.data.recording import SAMPLE_RATE

FRAME_SECONDS = 0.064
"""Over which level is measured."""
AUDIBLE = 1e-4
"""Amplitude, -80 dB of full scale, below which a clip is silent."""
MIN_SECONDS = 0.5
MAX_CLIPPED = 0.01
"""Share of samples at full scale."""


@dataclass(frozen=True)
class Cleaning:
    """Silence removal and length of a synthetic clip, applied before it is written.

    Args:
        silence_db: A frame is silent, and cut out, when its level is this far below the loudest
            frame's (the paper's silence removal, table 4); ``None`` leaves silence where it is.
        match_duration: Repeat or trim a clip to the length of its source. The weights of TWFR count
            frames, so that a clip which lost some is weighted differently from real clips at
            the same r. The paper does not mention such a step.

    >>> sound, reason = Cleaning()(np.zeros(16_000, np.float32), seconds=1.0)
    >>> reason
    'silent'
    """

    silence_db: float | None = 50.0
    match_duration: bool = False

    def __call__(
        self,
        waveform: np.ndarray,
        seconds: float,
        *,
        derived: bool = False,
        sampling_rate: int = SAMPLE_RATE,
    ) -> tuple[np.ndarray, str]:
        """Clean a clip and check what is left.

        Args:
            waveform: (samples,)
            seconds: Length of its source.
            derived: It is derived from its source's audio: its silence is the machine's.
            sampling_rate: Of the waveform, in Hz.

        Returns:
            The clip, and the reason for which it is not usable; empty where it is.
        """
        if not np.isfinite(waveform).all():
            return np.zeros_like(waveform), "not finite"
        sound = waveform
        if self.silence_db is not None and not derived:
            sound = remove_silence(waveform, self.silence_db, sampling_rate)
        if not np.any(np.abs(sound) > AUDIBLE):
            return waveform, "silent"
        if len(sound) < MIN_SECONDS * sampling_rate:
            return waveform, f"shorter than {MIN_SECONDS} s without its silence"
        if np.mean(np.abs(sound) >= 1.0) > MAX_CLIPPED:
            return waveform, "clipped"
        if self.match_duration:
            sound = fit_length(sound, round(seconds * sampling_rate), sampling_rate)
        return sound, ""


def remove_silence(
    waveform: np.ndarray, below_db: float = 50.0, sampling_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """Cut out silent frames, wherever they are.

    The paper removes the silence that AudioLDM leaves (table 4: worth 2.7 to 3.2 points), since a
    detector takes it for a machine that has stopped.

    Args:
        waveform: (samples,)
        below_db: A frame is silent when its level is this far below the loudest frame's.
        sampling_rate: Of the waveform, in Hz.

    Returns:
        (samples,) of the other frames, in order; empty when there was no sound at all.

    >>> clip = np.concatenate([np.ones(2048), np.zeros(4096), np.ones(2048)]).astype(np.float32)
    >>> remove_silence(clip).shape
    (4096,)
    """
    frame = round(FRAME_SECONDS * sampling_rate)
    frames = np.array_split(waveform, np.arange(frame, len(waveform), frame))
    level = np.array([np.sqrt(np.mean(part**2)) for part in frames])
    loud = level > max(level.max() * 10 ** (-below_db / 20), 1e-7)
    return np.concatenate([*(f for f, keep in zip(frames, loud, strict=True) if keep), []]).astype(
        np.float32
    )


def fit_length(waveform: np.ndarray, samples: int, sampling_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Trim a clip, or repeat it, to a number of samples.

    Repeated rather than padded: silence was just removed. Repeats are cross-faded within a frame at
    constant power, since a seam would be a click, the loudest frame of the clip.

    >>> fit_length(np.ones(3000, np.float32), 8000).shape, fit_length(np.ones(9), 4).shape
    ((8000,), (4,))
    """
    fade = min(round(FRAME_SECONDS * sampling_rate), len(waveform) // 2)
    rise = np.sin(np.linspace(0, np.pi / 2, fade))
    out = waveform
    while len(out) < samples:
        seam = out[len(out) - fade :] * rise[::-1] + waveform[:fade] * rise
        out = np.concatenate([out[: len(out) - fade], seam, waveform[fade:]])
    return out[:samples].astype(np.float32)
