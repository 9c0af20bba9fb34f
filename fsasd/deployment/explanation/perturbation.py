"""Contributions by perturbation, for any detector: what if this band sounded as usual?

A band, or a moment, is brought to the level that the training clips have there (their range in each
band of 500 Hz, which a run saves beside the detector), and the recording is scored again. Where no
such range was saved, the recording's own median over time stands in for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from fsasd.data.check.likeness import Profile
from fsasd.data.check.measures import BANDS, measure
from fsasd.data.recording import decode
from fsasd.deployment.explanation.explanation import Explanation
from fsasd.deployment.model import Model

MOMENTS = 40
"""Moments that a recording is divided into, at most."""

SHORTEST = 0.064
"""Seconds of a moment, at least."""

_WIDTH = 500.0
_MOST_DB = 60.0


def explain_by_perturbation(model: Model, path: Path) -> Explanation:
    """Score a recording with one band, or one moment, after the other as usual.

    Args:
        model: The saved detector.
        path: The recording.

    Raises:
        AudioError: The recording cannot be used.
    """
    samples, rate = decode(path)
    changes = Changes(samples, rate, model.profile)
    waveforms = [
        samples,
        *(changes.band(number) for number in range(changes.n_bands)),
        *(changes.moment(number) for number in range(changes.n_moments)),
    ]
    score, *others = model.score_waveforms(waveforms, rate)
    falls = score - np.array(others)
    bands, moments = np.split(falls, [changes.n_bands])
    hertz = _WIDTH * (np.arange(changes.n_bands)[:, None] + np.array([0, 1]))
    seconds = changes.moment_seconds * (np.arange(changes.n_moments)[:, None] + np.array([0, 1]))
    length = len(samples) / rate
    return Explanation("perturbation", hertz, bands, seconds.clip(max=length), moments)


class Changes:
    """A recording with a band or a moment as usual.

    Args:
        samples: (samples, channels).
        rate: In Hz.
        profile: Of the training clips.
    """

    def __init__(self, samples: np.ndarray, rate: int, profile: Profile | None) -> None:
        self._samples, self._rate = samples, rate
        # The change of a short recording's windows would be heard as much as what is changed.
        self._size = min(2 ** round(np.log2(0.064 * rate)), len(samples))
        frequencies, times, self._spectrum = signal.stft(
            samples.T, rate, nperseg=self._size, noverlap=self._size // 2
        )
        self.n_bands = min(len(BANDS), int(np.ceil(rate / 2 / _WIDTH)))
        length = len(samples) / rate
        self.moment_seconds = max(SHORTEST, length / MOMENTS)
        self.n_moments = max(1, int(np.ceil(length / self.moment_seconds - 1e-6)))
        self._band_of = (frequencies / _WIDTH).astype(int)
        self._moment_of = np.minimum((times / self.moment_seconds).astype(int), self.n_moments - 1)
        self._gains = self._usual_gains(profile)

    def band(self, number: int) -> np.ndarray:
        """Return (samples, channels) with a band as usual."""
        gains = np.ones_like(self._gains)
        gains[number] = self._gains[number]
        return self._changed(gains)

    def moment(self, number: int) -> np.ndarray:
        """Return (samples, channels) with a moment as usual."""
        gains = np.ones_like(self._gains)
        gains[:, number] = self._gains[:, number]
        return self._changed(gains)

    def _usual_gains(self, profile: Profile | None) -> NDArray[np.float64]:
        """Return (bands, moments) factors that bring each cell into the range of the usual."""
        levels = self._levels()
        if profile is None:
            lowest = highest = np.median(levels, axis=1, keepdims=True)
        else:
            lowest = np.array(profile.lowest)[: self.n_bands, None]
            highest = np.array(profile.highest)[: self.n_bands, None]
        gains = (levels.clip(lowest, highest) - levels).clip(-_MOST_DB, _MOST_DB)
        return 10 ** (gains / 20)

    def _levels(self) -> NDArray[np.float64]:
        """Return (bands, moments) levels in dB, on the scale of ``measures.measure``."""
        power = (np.abs(self._spectrum) ** 2).sum(axis=0)
        cells = np.full((self.n_bands, self.n_moments), 1e-30)
        for band in range(self.n_bands):
            rows = power[self._band_of == band].sum(axis=0)
            for moment in range(self.n_moments):
                columns = rows[self._moment_of == moment]
                if columns.size:
                    cells[band, moment] += columns.mean()
        measured = measure(np.ascontiguousarray(self._samples[:, 0]), self._rate)
        whole = np.array([measured[name] for name in BANDS[: self.n_bands]], dtype=float)
        relative = 10 * np.log10(cells / cells.mean(axis=1, keepdims=True))
        return whole[:, None] + relative

    def _changed(self, gains: NDArray[np.float64]) -> np.ndarray:
        bands = np.minimum(self._band_of, self.n_bands - 1)
        cells = gains[bands][:, self._moment_of]
        # Above the highest band nothing is known.
        cells[self._band_of >= self.n_bands] = 1.0
        _, changed = signal.istft(
            self._spectrum * cells, self._rate, nperseg=self._size, noverlap=self._size // 2
        )
        length = len(self._samples)
        padded = np.zeros((len(changed), length), dtype=np.float32)
        padded[:, : changed.shape[1]] = changed[:, :length]
        return padded.T
