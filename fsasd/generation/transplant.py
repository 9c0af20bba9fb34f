"""The difference between two recordings of a machine, and its transplant into a third recording.

Levels in bands (``spectra``) of two recordings are compared by rank: the loudest frame of a band
with the loudest, the quietest with the quietest, whenever they are, since no two recordings of a
machine run in step. Where the one is above the other at its rank, its own sound is kept in that
proportion (a Wiener filter); where it is below, it is so many decibels of loss. Arrays have frames
first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsasd.generation.cleaning import fit_length
from fsasd.generation.spectra import QUIET, band_levels, filtered, spectra


@dataclass(frozen=True)
class BandQuantiles:
    """Front end: the quantiles over time of the level in each band.

    Args:
        ranks: Number of quantiles.

    >>> tone = np.sin(2 * np.pi * 1000 / 16_000 * np.arange(16_000))
    >>> BandQuantiles(ranks=8)(tone).shape == (8, 40)
    True
    """

    ranks: int = 64

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (ranks, bands) levels in dB, from the lowest to the highest of each band."""
        return _at_ranks(np.sort(band_levels(spectra(waveform)), axis=0), self.ranks)


@dataclass(frozen=True, eq=False)
class Difference:
    """What one recording of a machine has that another lacks, and the other way round.

    Attributes:
        added: (samples,) The sound that it has more, in multiples of the other's RMS.
        loss: (frames, bands) By how many dB its levels are below the other's, 0 or less, from the
            lowest to the highest of each band.
    """

    added: np.ndarray
    loss: np.ndarray


def difference(recording: np.ndarray, usual: np.ndarray) -> Difference:
    """Return the difference of a recording from a usual one of the same machine.

    Args:
        recording: (samples,) at 16 kHz.
        usual: The same, of any length; levels are compared as they are.

    >>> noise = np.random.default_rng(0).standard_normal(16_000)
    >>> float(np.abs(difference(noise, noise).added).max())
    0.0
    """
    spectrum = spectra(recording)
    levels = band_levels(spectrum)
    order = np.argsort(levels, axis=0)
    expected = _at_ranks(np.sort(band_levels(spectra(usual)), axis=0), len(levels))
    gap = np.take_along_axis(levels, order, axis=0) - expected
    share = np.empty_like(gap)
    # Of the power at this rank, what exceeds the usual one's.
    np.put_along_axis(share, order, 1 - 10 ** (-gap.clip(0) / 10), axis=0)
    added = filtered(spectrum, share, len(recording))
    return Difference(added / max(rms(usual), QUIET), gap.clip(max=0))


def transplant(
    waveform: np.ndarray, change: Difference, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a recording with the difference of two others put into it.

    Args:
        waveform: (samples,) at 16 kHz.
        change: What is put into it. A shorter one is repeated, of a longer one a part is drawn.
        strength: Gain of what is added, and factor of the losses in dB; 1 is as it was.
        rng: Draws the part.

    Returns:
        (samples,) float32; as loud beside the recording as it was beside the usual recording.

    >>> noise = np.random.default_rng(0).standard_normal(16_000)
    >>> same = transplant(noise, difference(noise, noise), 1.0, np.random.default_rng(0))
    >>> bool(np.allclose(same, noise, atol=1e-5))
    True
    """
    spectrum = spectra(waveform)
    order = np.argsort(band_levels(spectrum), axis=0)
    gain = np.empty(order.shape, np.float32)
    loss = strength * _at_ranks(change.loss, len(order))
    np.put_along_axis(gain, order, 10 ** (loss / 20), axis=0)
    lessened = filtered(spectrum, gain, len(waveform))
    start = rng.integers(max(len(change.added) - len(waveform), 0) + 1)
    added = fit_length(change.added[start : start + len(waveform)], len(waveform))
    return (lessened + strength * rms(waveform) * added).astype(np.float32)


def rms(waveform: np.ndarray) -> float:
    """Return the root of the mean power of a waveform."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _at_ranks(ordered: np.ndarray, count: int) -> np.ndarray:
    """Interpolate (frames, bands) sorted values to another number of equally spaced ranks."""
    if len(ordered) == count:
        return ordered
    place = ((np.arange(count) + 0.5) / count * len(ordered) - 0.5).clip(0, len(ordered) - 1)
    below = place.astype(int)
    share = (place - below)[:, None].astype(ordered.dtype)
    above = np.minimum(below + 1, len(ordered) - 1)
    return ordered[below] * (1 - share) + ordered[above] * share
