"""Source and target domain: separate banks, and SMOTE for the domain with few clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.neighbors import NearestNeighbors

from fsasd.data.clips import Clips, FeatureCache, OverlaidCache
from fsasd.data.front_ends import FrontEnd, Reading
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.scoring.order import canonical_order

Domains = Literal["pooled", "separate"]
"""``pooled``: all normal clips are one bank; ``separate``: a bank per domain, and the lowest of
their scores counts (a machine with clips of one domain has one bank)."""


def banks(clips: Clips, domains: str) -> np.ndarray:
    """Return (n,) the index of each clip's bank, from 0.

    Raises:
        ValueError: ``domains`` is neither ``pooled`` nor ``separate``.
    """
    if domains not in ("pooled", "separate"):
        raise ValueError(f"domains '{domains}': expected 'pooled' or 'separate'")
    if domains == "pooled":
        return np.zeros(len(clips), dtype=np.int64)
    return np.unique(clips.domains, return_inverse=True)[1]


def smote(points: np.ndarray, count: int, neighbours: int, seed: int) -> np.ndarray:
    """Return (count, d) synthetic points, each between a point and one of its neighbours.

    Chawla et al., "SMOTE: Synthetic minority over-sampling technique" (JAIR 16, 2002).

    Args:
        points: (n, d), at least 2.
        count: Number of synthetic points.
        neighbours: Nearest neighbours to draw from; all others where there are fewer.
        seed: Of the draws.

    Raises:
        TooFewClipsError: There are fewer than 2 points to mix.

    >>> smote(np.array([[0.0], [1.0]]), 3, neighbours=2, seed=0).shape
    (3, 1)
    """
    pairs, shares = _mixtures(points, count, neighbours, seed)
    return points[pairs[:, 0]] + shares[:, None] * (points[pairs[:, 1]] - points[pairs[:, 0]])


def n_missing_target_clips(domains: np.ndarray, ratio: float) -> int:
    """Return how many target clips to add for ``ratio`` of them to each source clip.

    Raises:
        ValueError: ``ratio`` is negative.

    >>> n_missing_target_clips(np.array(["source"] * 50 + ["target"]), 0.2)
    9
    """
    if ratio < 0:
        raise ValueError(f"ratio of target to source clips: expected 0 or more, found {ratio}")
    target = int(np.sum(domains == "target"))
    return max(int(ratio * np.sum(domains == "source")) - target, 0) if target else 0


def with_mixed_target_clips(
    clips: Clips, ratio: float, neighbours: int, seed: int, sampling_rate: int = SAMPLE_RATE
) -> Clips:
    """Return the clips with target clips added by SMOTE of waveforms, up to a ratio.

    As in SMOTE-TWFR-GMM (github.com/liuyoude/TWFR-GMM, ``extractor.py``), on the first 10 s. The
    longer of two clips is cut; in the original all have one length.

    Args:
        clips: Normal clips of one machine.
        ratio: Target clips per source clip to reach; 0 adds none.
        neighbours: Number of nearest waveforms to mix with.
        seed: Of the draws.
        sampling_rate: Of the waveforms that are mixed, in Hz.

    Raises:
        TooFewClipsError: There is only one target clip.
    """
    count = n_missing_target_clips(clips.domains, ratio)
    if not count:
        return clips
    target = clips.where(domain="target")
    waveforms = [clips.cache.read(clip, Reading(10, sampling_rate)) for clip in target]
    shortest = min(map(len, waveforms))
    pairs, shares = _mixtures(
        np.stack([waveform[:shortest] for waveform in waveforms]), count, neighbours, seed
    )
    cache = _Mixed(clips.cache, sampling_rate)
    for i, ((one, other), share) in enumerate(zip(pairs, shares, strict=True)):
        length = min(len(waveforms[one]), len(waveforms[other]))
        first, second = waveforms[one][:length], waveforms[other][:length]
        clip = replace(target[int(one)], path=Path(f"smote-{i}"))
        cache.waveforms[clip.path] = first + np.float32(share) * (second - first)
        cache.clips.append(clip)
    return Clips([*clips, *cache.clips], cache)


class _Mixed(OverlaidCache):
    """A cache that also holds waveforms of clips without a file."""

    def __init__(self, other: FeatureCache, sampling_rate: int) -> None:
        super().__init__(other)
        self.sampling_rate = sampling_rate
        self.waveforms: dict[Path, np.ndarray] = {}
        self.clips: list[Clip] = []

    def read(self, clip: Clip, reading: Reading = Reading()) -> np.ndarray:
        if clip.path not in self.waveforms:
            return super().read(clip, reading)
        assert (reading.sampling_rate, reading.channel) == (self.sampling_rate, None)
        end = None if reading.seconds is None else round(reading.seconds * self.sampling_rate)
        return self.waveforms[clip.path][:end]

    def get(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        if clip.path in self.waveforms:
            return front_end(self.waveforms[clip.path])
        return super().get(front_end, clip)


def _mixtures(
    points: np.ndarray, count: int, neighbours: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    if len(points) < 2:
        raise TooFewClipsError(f"SMOTE mixes at least 2 target clips, found {len(points)}")
    order = canonical_order(points)
    points = points[order]
    nearest = NearestNeighbors(n_neighbors=min(neighbours, len(points) - 1)).fit(points)
    others = nearest.kneighbors(return_distance=False)
    rng = np.random.default_rng(seed)
    one = rng.integers(len(points), size=count)
    other = others[one, rng.integers(others.shape[1], size=count)]
    return order[np.stack([one, other], axis=1)], rng.uniform(size=count)
