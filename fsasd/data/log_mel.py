"""Log-mel spectrograms: one definition of each front end, in NumPy.

The definition is torchaudio's ``MelSpectrogram``, in the same single precision, so that a front end
equals a network's on batches (``detectors.backbones.LogMelSpectrogram``); the tests hold them
against one another.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import fft, sparse

from fsasd.data.recording import SAMPLE_RATE

VERSION = 2
"""Of the computation."""


_LARGEST_FILTERS = 1 << 23
_MOST_OVERLAP = 64
"""Frames that hold one sample, at most: spectra take that times the memory of a recording."""


@dataclass(frozen=True)
class LogMel:
    """A log-mel spectrogram; its ``repr`` is its key in the feature cache.

    Calling it turns a (samples,) waveform into (n_mels, frames) float32.

    Raises:
        ValueError: Its version is not this release's, a band lies above half the sampling rate,
            more than 64 frames overlap, there are more bands than frequencies, or their filters
            have more than 8,388,608 weights.

    >>> LogMel.twfr()(np.zeros(160_000, np.float32)).shape
    (128, 313)
    >>> LogMel.twfr(sampling_rate=48_000)(np.zeros(480_000, np.float32)).shape
    (128, 313)
    >>> LogMel.audioldm()(np.zeros(163_840, np.float32)).shape
    (64, 1024)
    """

    n_fft: int = 1024
    hop: int = 512
    n_mels: int = 128
    max_hz: float = 8000.0
    power: float = 2.0
    scale: str = "htk"
    norm: str | None = None
    decibel: bool = True
    floor: float = 1e-10
    pad: int | None = None
    """Samples of reflection on either side; ``None`` centres the first frame on sample 0."""
    max_seconds: float | None = None
    sampling_rate: int = SAMPLE_RATE
    """Of the waveform, in Hz."""
    version: int = VERSION
    """Of the computation: in the name, so that no cache mixes two of them, and in saved detectors,
    which are refused where another computes."""

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(
                f"log-mel version: expected {VERSION}, that of this release, found {self.version}"
            )
        if self.hop * _MOST_OVERLAP < self.n_fft:
            raise ValueError(
                f"hop={self.hop}: expected {-(-self.n_fft // _MOST_OVERLAP)} or more, a "
                f"{_MOST_OVERLAP}th of n_fft={self.n_fft}"
            )
        # Features are then at most 32 times as large as the waveform.
        frequencies = self.n_fft // 2 + 1
        most = min(frequencies, _LARGEST_FILTERS // frequencies)
        if self.n_mels > most:
            raise ValueError(
                f"n_mels={self.n_mels}: expected {most} at most, as n_fft={self.n_fft} has "
                f"{frequencies} frequencies"
            )
        if not 0 < self.max_hz <= self.sampling_rate / 2:
            raise ValueError(
                f"max_hz={self.max_hz:g}: expected {self.sampling_rate / 2:g} Hz at most, half of "
                f"sampling_rate={self.sampling_rate}"
            )

    @classmethod
    def twfr(cls, max_seconds: float | None = 10.0, sampling_rate: int = SAMPLE_RATE) -> LogMel:
        """TWFR-GMM's: 128 mels in dB, 1024/512, first 10 s (github.com/liuyoude/TWFR-GMM).

        At other sampling rates its frames have the same 64 ms every 32 ms, and its bands reach up
        to half the rate.

        Args:
            max_seconds: Longer clips are cut to it; ``None`` takes all of each.
            sampling_rate: In Hz, to which recordings are resampled.

        >>> LogMel.twfr(sampling_rate=48_000).n_fft, LogMel.twfr(sampling_rate=48_000).max_hz
        (3072, 24000.0)
        """
        hop = round(0.032 * sampling_rate)
        return cls(
            2 * hop,
            hop,
            128,
            sampling_rate / 2,
            max_seconds=max_seconds,
            sampling_rate=sampling_rate,
        )

    @classmethod
    def audioldm(cls) -> LogMel:
        """AudioLDM's: 64 mels, natural log of the magnitude (github.com/haoheliu/AudioLDM)."""
        return cls(
            hop=160, n_mels=64, power=1.0, scale="slaney", norm="slaney",
            decibel=False, floor=1e-5, pad=432,
        )  # fmt: skip

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        if self.max_seconds is not None:
            waveform = waveform[: round(self.max_seconds * self.sampling_rate)]
        samples = np.asarray(waveform, dtype=np.float32)
        reach = self.n_fft // 2 if self.pad is None else self.pad
        # Reflection needs more samples than it mirrors: a click of a clip is repeated until it has.
        if len(samples) <= reach:
            samples = np.tile(samples, reach // len(samples) + 1)
        samples = np.pad(samples, reach, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.n_fft)[:: self.hop]
        spectrum = fft.rfft(frames * _window(self.n_fft), axis=1, overwrite_x=True)
        strength = spectrum.real**2 + spectrum.imag**2
        if self.power != 2:
            strength **= np.float32(self.power / 2)
        mel = np.maximum(_filters(self) @ strength.T, np.float32(self.floor))
        per_decade = 10.0 if self.decibel else math.log(10)
        # Single precision's logarithm of the floor may lie below it by a rounding.
        lowest = np.float32(per_decade * math.log10(self.floor))
        logarithm = np.float32(10) * np.log10(mel) if self.decibel else np.log(mel)
        return np.maximum(logarithm, lowest)


def mel_filters(front_end: LogMel) -> np.ndarray:
    """Return the (n_mels, n_fft // 2 + 1) float32 triangles that sum frequencies to mel bands.

    Raises:
        ValueError: The scale or the normalisation is not known.

    >>> mel_filters(LogMel.audioldm()).shape
    (64, 513)
    """
    if front_end.norm not in (None, "slaney") or front_end.scale not in ("htk", "slaney"):
        raise ValueError(
            "expected scale 'htk' or 'slaney' and norm None or 'slaney', got "
            f"{front_end.scale!r} and {front_end.norm!r}"
        )
    nyquist = front_end.sampling_rate // 2
    frequencies = np.linspace(0, nyquist, front_end.n_fft // 2 + 1, dtype=np.float32)
    corners = mel_corners(front_end)
    width = np.diff(corners)[:, None]
    offset = frequencies - corners[:, None]
    filters = np.minimum(offset[:-2] / width[:-1], -offset[2:] / width[1:]).clip(min=0)
    if front_end.norm == "slaney":
        filters *= np.float32(2) / (corners[2:] - corners[:-2])[:, None]
    return filters


# Slaney's scale is linear up to here, logarithmic above.
_LINEAR_HZ, _HZ_PER_MEL, _LOG_STEP = 1000.0, 200 / 3, math.log(6.4) / 27
_LINEAR_MELS = _LINEAR_HZ / _HZ_PER_MEL


def mel_corners(front_end: LogMel) -> np.ndarray:
    """Return the (n_mels + 2,) corners of the triangles in Hz, evenly spaced in mels.

    Band i rises from corner i to its centre, corner i + 1, and falls to corner i + 2.

    Rounded to single precision at each step, as torchaudio's are: a corner that is off by the last
    bit alone moves a narrow band by 1e-3 dB.
    """
    single = np.float32
    top = single(_mel(front_end.max_hz, front_end.scale))
    last = front_end.n_mels + 1
    place, step = np.arange(last + 1), float(top / single(last))
    from_top = float(top) - step * (last - place)
    mel = np.where(place < (last + 1) // 2, step * place, from_top).astype(single)
    if front_end.scale == "htk":
        power = 10.0 ** (mel / single(2595)).astype(np.float64)
        return single(700) * (power.astype(single) - single(1))
    beyond = single(_LOG_STEP) * (mel - single(_LINEAR_MELS))
    above = single(_LINEAR_HZ) * np.exp(beyond.astype(np.float64)).astype(single)
    return np.where(mel >= _LINEAR_MELS, above, single(_HZ_PER_MEL) * mel)


def _mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    if hertz < _LINEAR_HZ:
        return hertz / _HZ_PER_MEL
    return _LINEAR_MELS + math.log(hertz / _LINEAR_HZ) / _LOG_STEP


@functools.cache
def _window(n_fft: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


@functools.cache
def _filters(front_end: LogMel) -> sparse.csr_array:
    # A band sums a few frequencies of many: sparse, and on one thread whatever BLAS has.
    return sparse.csr_array(mel_filters(front_end))
