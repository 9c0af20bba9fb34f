"""Front ends: waveform -> features, and how recordings are read for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsasd.data.recording import SAMPLE_RATE

FrontEnd = Callable[[np.ndarray], np.ndarray]
"""Waveform (samples,) -> features; hashable, with a ``repr`` that names all of its settings.

One that only uses the beginning of a clip has ``max_seconds``: no more is decoded for it. One whose
waveforms have another sampling rate than 16 kHz has ``sampling_rate``. One that takes both
channels, (2, samples), has ``channel = "both"``. One that is asked for along with others has
``together``, the front ends that a cache computes with it, of one decoded waveform."""


@dataclass(frozen=True)
class Reading:
    """How a recording is read (see ``recording.read``).

    Args:
        seconds: How much of it, from the start; all of it without.
        sampling_rate: Of the waveform, in Hz.
        channel: ``both`` for (2, samples); without, what the cache takes of all recordings.

    >>> from fsasd.data.log_mel import LogMel
    >>> Reading.of(LogMel.twfr(sampling_rate=48_000))
    Reading(seconds=10.0, sampling_rate=48000, channel=None)
    >>> Reading.of(np.sort)
    Reading(seconds=None, sampling_rate=16000, channel=None)
    """

    seconds: float | None = None
    sampling_rate: int = SAMPLE_RATE
    channel: str | None = None

    @classmethod
    def of(cls, front_end: FrontEnd) -> Reading:
        """Return how recordings are read for a front end."""
        return cls(
            getattr(front_end, "max_seconds", None),
            getattr(front_end, "sampling_rate", SAMPLE_RATE),
            getattr(front_end, "channel", None),
        )


def compute_together(front_ends: Iterable[Any]) -> None:
    """Let a cache compute front ends of one reading together, whichever is asked for first."""
    together = tuple(front_ends)
    for front_end in together:
        front_end.together = together
