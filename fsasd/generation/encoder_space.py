"""Distances between clips in the space of an encoder, for filters and quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from fsasd.data.clips import Clips, Pooled
from fsasd.data.content import content_hashes, digest
from fsasd.data.description import describe_clips
from fsasd.data.front_ends import FrontEnd
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.generation.prompts import clips_by_section

ENCODER = LogMel.twfr()
"""The default encoder: log-mel statistics."""

MIN_NORMALS = 3
"""Fewest real normal clips: of fewer, the median spacing depends on a single pair."""


def embed(clips: Clips, front_end: FrontEnd | Pooled = ENCODER) -> np.ndarray:
    """Return (n, dim): each clip's features, or their mean and standard deviation over time.

    Args:
        clips: Recordings.
        front_end: Waveform -> (dim,) or (dim, frames); or one with its own pooling, as the layers
            of a pretrained encoder need (``detectors.encoders.Layer``).
    """
    if isinstance(front_end, Pooled):
        rows = clips.pooled(front_end)
    else:
        rows = [over_time(features) for features in clips.features(front_end)]
    return np.stack(rows).astype(np.float64)


def over_time(features: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation over time, (2 dim,), of (dim, frames); (dim,) as it is."""
    if features.ndim == 1:
        return features
    return np.concatenate([features.mean(axis=-1), features.std(axis=-1)])


@dataclass(frozen=True)
class RealClips:
    """The captioned recordings that synthetic clips are compared with.

    Args:
        clips: Labelled clips; test clips among them are only used of reference machines, and only
            the anomalous ones.
        captions: One per clip.
    """

    clips: Clips
    captions: Sequence[str]

    def sections(self) -> list[SectionId]:
        """Return the sections of which there are clips, in order."""
        return list(self._rows)

    def normals(self, section: SectionId) -> RealClips:
        """Return the normal training clips of a section."""
        return self._where(section, lambda clip: clip.label == "normal" and clip.split != "test")

    def anomalies(self, section: SectionId) -> RealClips:
        """Return the anomalous clips of a section, of which one of a target machine has none."""
        return self._where(section, lambda clip: clip.label == "anomaly")

    def contents(self) -> list[str]:
        """Return each recording's content hash, by which synthetic clips name their source."""
        return content_hashes((clip.path for clip in self.clips), self.clips.cache.folder)

    def captions_by_content(self) -> dict[str, str]:
        """Return each recording's caption."""
        return dict(zip(self.contents(), self.captions, strict=True))

    @cached_property
    def described(self) -> dict[str, Any]:
        """What the key of a result holds of them: ``clips`` and ``captions``."""
        return {"clips": describe_clips(self.clips), "captions": digest(self.captions)}

    @cached_property
    def with_anomalies(self) -> list[SectionId]:
        """The sections that have anomalous clips, and normal ones enough to compare them with."""
        return [
            section
            for section in self._rows
            if len(self.normals(section).clips) >= MIN_NORMALS
            and len(self.anomalies(section).clips)
        ]

    @cached_property
    def anomaly_distances(self) -> dict[SectionId, np.ndarray]:
        """(n,) distances of their anomalies from their normal clips, in spacings of these."""
        distances = {}
        for section in self.with_anomalies:
            around = Neighbourhood(self.normals(section))
            points = around.place(self.anomalies(section).clips)
            nearest = around.distances(points, [None] * len(points)).min(axis=1)
            distances[section] = nearest / np.median(around.spacings())
        return distances

    @cached_property
    def _rows(self) -> dict[SectionId, list[int]]:
        return clips_by_section(self.clips)

    def _where(self, section: SectionId, predicate: Callable[[Clip], bool]) -> RealClips:
        chosen = [i for i in self._rows.get(section, []) if predicate(self.clips[i])]
        return RealClips(self.clips[chosen], [self.captions[i] for i in chosen])


class Neighbourhood:
    """The real normal clips of a section in the space of an encoder.

    Distances are Euclidean, in units of the real clips' standard deviation in each dimension, so
    that those of machines and of encoders compare.

    Args:
        real: Normal clips of one section.
        front_end: The encoder.

    >>> clips = Clips([])
    >>> Neighbourhood(RealClips(clips, []))
    Traceback (most recent call last):
    ...
    ValueError: expected real normal clips to compare with, found none
    """

    def __init__(self, real: RealClips, front_end: FrontEnd | Pooled = ENCODER) -> None:
        if not len(real.clips):
            raise ValueError("expected real normal clips to compare with, found none")
        self.front_end = front_end
        self.captions = list(real.captions)
        self.row = {content: i for i, content in enumerate(real.contents())}
        points = embed(real.clips, front_end)
        self.centre, spread = points.mean(axis=0), points.std(axis=0)
        # A dimension in which the few real clips happen to agree must not outweigh all others.
        self.scale = np.maximum(spread, 0.1 * spread.mean())
        if not self.scale.all():
            self.scale = np.ones_like(spread)
        self.points = self._standardised(points)

    def place(self, clips: Clips) -> np.ndarray:
        """Return (n, dim) of clips in this space."""
        return self._standardised(embed(clips, self.front_end))

    def distances(self, points: np.ndarray, without: Sequence[str | None]) -> np.ndarray:
        """Return the (n, real) distances to the real clips.

        Args:
            points: (n, dim) from ``place``.
            without: For each the content hash of the real clip that it was derived from: it is not
                counted.
        """
        distances = cdist(points, self.points)
        for i, source in enumerate(without):
            if source in self.row:
                distances[i, self.row[source]] = np.inf
        return distances

    def spacings(self) -> np.ndarray:
        """Return the (real,) distances of each real clip to the nearest other one."""
        distances = cdist(self.points, self.points)
        np.fill_diagonal(distances, np.inf)
        return distances.min(axis=1)

    def _standardised(self, points: np.ndarray) -> np.ndarray:
        return (points - self.centre) / self.scale
