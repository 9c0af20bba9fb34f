"""Measures of a recording: level, spectrum, silence and clipping."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.fft import rfft, rfftfreq

from fsasd.data.audio_files import printable
from fsasd.data.recording import AudioError

SILENT = 1e-4
"""Peak (full scale is 1) below which a recording is silent: three steps of 16 bits."""

BANDS = tuple(f"below_{hz}" for hz in range(500, 8001, 500))
"""Columns of the spectrum: bands of 500 Hz, named after their upper end."""

_BEYOND = 100.0
"""Peak above which samples are not on the scale of 1."""

_SECONDS = 0.064
_BLOCKS = 16
_LOWEST = 1e-16


def measure(waveform: np.ndarray, rate: int) -> dict[str, float | bool]:
    """Measure a waveform.

    Args:
        waveform: (samples,) of one channel, full scale is 1; at least one sample.
        rate: Of sampling, in Hz.

    Returns:
        ``peak``; ``level``, the root mean square in dB of full scale; ``silent``; ``clipped``; and
        the level in dB of each of ``BANDS``, in 16 blocks of 64 ms that are spread over the whole.

    >>> tone = 0.1 * np.sin(2 * np.pi * 1250 * np.arange(16_000) / 16_000, dtype=np.float32)
    >>> measures = measure(tone, 16_000)
    >>> round(measures["level"]), max(BANDS, key=measures.get)
    (-23, 'below_1500')
    """
    low, high = float(waveform.min()), float(waveform.max())
    return {
        "peak": max(high, -low),
        "level": _decibel(float(np.dot(waveform, waveform)) / len(waveform)),
        # A constant is silence, too.
        "silent": high - low < 2 * SILENT,
        "clipped": (high > 0.99 and _rests_at(waveform, high))
        or (low < -0.99 and _rests_at(waveform, low)),
        **dict(zip(BANDS, _spectrum(waveform, rate).tolist(), strict=True)),
    }


def join(measures: Sequence[Mapping[str, Any]], lengths: Sequence[int]) -> dict[str, Any]:
    """Join the measures of a recording's pieces.

    Args:
        measures: What ``measure`` returns of each piece.
        lengths: Samples of each piece.

    >>> loud, quiet = (measure(np.full(99, level), 16_000) for level in (0.2, 0.1))
    >>> round(join([loud, quiet], [99, 99])["level"], 1)
    -16.0
    """
    if len(measures) == 1:
        return dict(measures[0])
    names = ("level", *BANDS)
    levels = np.array([[piece[name] for name in names] for piece in measures])
    joined = _decibel(np.average(10 ** (levels / 10), axis=0, weights=lengths)).tolist()
    return {
        "peak": max(piece["peak"] for piece in measures),
        "silent": all(piece["silent"] for piece in measures),
        "clipped": any(piece["clipped"] for piece in measures),
        **dict(zip(names, joined, strict=True)),
    }


def require_full_scale(waveform: np.ndarray, path: Path) -> None:
    """Raise if the full scale of samples is not 1, as that of integers.

    A float file may exceed full scale somewhat. The score of a recording on another scale would
    mean nothing beside those of others.

    Args:
        waveform: (samples,) of one channel.
        path: Its file.

    Raises:
        AudioError: Says how far they go; names ``path``.
    """
    peak = max(float(waveform.max()), -float(waveform.min()))
    if peak < 2 or (peak < _BEYOND and (waveform != np.rint(waveform)).any()):
        return
    advice = "it is to be scaled"
    if bits := next((bits for bits in (16, 24, 32) if peak <= 2 ** (bits - 1)), None):
        advice = f"on the scale of {bits}-bit integers, it is to be divided by {2 ** (bits - 1)}"
    raise AudioError(f"{printable(path)}: peak {peak:.6g} where full scale is 1: {advice}")


def _rests_at(waveform: np.ndarray, extreme: float) -> bool:
    # A loud wave touches its extreme; a clipped one stays there.
    there = waveform == extreme
    return bool((there[2:] & there[1:-1] & there[:-2]).any())


def _spectrum(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Return the level of each band in dB of full scale."""
    window, bins = _window(rate)
    count = min(_BLOCKS, max(1, len(waveform) // len(window)))
    starts = np.linspace(0, max(0, len(waveform) - len(window)), count).astype(int)
    blocks = np.zeros((count, len(window)), dtype=np.float32)
    for block, start in zip(blocks, starts, strict=True):
        piece = waveform[start : start + len(window)]
        block[: len(piece)] = piece
    # A constant is no sound, and would leak into the lowest band.
    blocks -= blocks.mean(axis=1, keepdims=True)
    spectra = rfft(blocks * window)
    power = (spectra.real**2 + spectra.imag**2).mean(axis=0) * 2 / len(window)
    return _decibel(np.bincount(bins, power / (window**2).sum(), minlength=len(BANDS) + 1)[:-1])


@functools.lru_cache(maxsize=16)
def _window(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a block's window, and the band of each of its frequencies, one for all above."""
    size = max(16, round(_SECONDS * rate))
    bins = np.minimum(rfftfreq(size, 1 / rate) // 500, len(BANDS)).astype(int)
    return np.hanning(size).astype(np.float32), bins


def _decibel(power):
    return 10 * np.log10(np.maximum(power, _LOWEST))
