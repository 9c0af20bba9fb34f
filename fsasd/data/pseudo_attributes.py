"""Pseudo-attributes: operating states of machines whose attributes are unknown, by clustering."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.recording import AudioError

log = logging.getLogger(__name__)

STATE = "operating_state"
"""Key of the attribute."""

STRUCTURE = 0.25
"""Mean silhouette from which on clusters are more than the halves of one cloud (Kaufman and
Rousseeuw, "Finding groups in data", 1990, table 4)."""


@dataclass(frozen=True)
class PseudoAttributes:
    """The operating state of normal training clips, in sections without any attribute.

    Ward clusters of a representation. Their number is that of the highest mean silhouette, if it is
    above 0.25; otherwise there is one state, and no clip gets an attribute. States are numbered by
    their clips, 1 has the most. They depend neither on a seed nor on the order of clips. Test clips
    get none, as their state may be a fault's.

    Args:
        representation: Clips -> (n, d).
        at_most: States of a section.

    Raises:
        ValueError: ``at_most`` is less than 2.
    """

    representation: Callable[[Clips], np.ndarray]
    at_most: int = 8

    def __post_init__(self) -> None:
        if self.at_most < 2:
            raise ValueError(f"at_most: expected 2 operating states or more, found {self.at_most}")

    def __call__(self, clips: Clips) -> Clips:
        """Return the clips in their order, some with the attribute ``operating_state``."""
        states: dict[object, int] = {}
        for section, of_section in clips.sections.items():
            normal = of_section.where(split="train", label="normal")
            if len(normal) < 3 or any(kind.attributes for kind in of_section.kinds):
                continue
            normal = self._readable(normal)
            numbers, silhouette = ward_clusters(self.representation(normal), self.at_most)
            if counts := np.bincount(numbers)[1:].tolist():
                log.info(
                    "%s: %d operating states of %s clips (mean silhouette %.2f)",
                    section, len(counts), ", ".join(map(str, counts)), silhouette,
                )  # fmt: skip
                states |= zip((clip.path for clip in normal), numbers.tolist(), strict=True)
            else:
                log.info("%s: one operating state (mean silhouette %.2f)", section, silhouette)
        if not states:
            return clips
        return Clips(
            [
                replace(clip, attributes={STATE: str(states[clip.path])})
                if clip.path in states
                else clip
                for clip in clips
            ],
            clips.cache,
        )

    def _readable(self, clips: Clips) -> Clips:
        """Leave out the recordings that cannot be read, which a run names later."""
        try:
            self.representation(clips)
        except (AudioError, OSError):
            return clips[[self._is_readable(clips[[i]]) for i in range(len(clips))]]
        return clips

    def _is_readable(self, clip: Clips) -> bool:
        try:
            self.representation(clip)
        except (AudioError, OSError):
            return False
        return True


def ward_clusters(points: np.ndarray, at_most: int) -> tuple[np.ndarray, float]:
    """Cluster points by Ward's method, as many clusters as are best separated.

    Args:
        points: (n, d)
        at_most: Clusters; n - 1 if that is less.

    Returns:
        (n,) numbers from 1, the largest cluster first, of equal ones that with the least point in
        lexical order; all 0 if the highest mean silhouette is ``STRUCTURE`` or less. And that
        silhouette.

    >>> ward_clusters(np.array([[0.0], [5.0], [5.1], [0.1], [5.2]]), 3)[0].tolist()
    [2, 1, 1, 2, 1]
    """
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    # Of pairs that are equally near, the first in a canonical order is merged first.
    order = np.lexsort(points.T[::-1])
    ordered = points[order]
    best, clusters = -1.0, np.zeros(len(points), int)
    if len(np.unique(ordered, axis=0)) > 1:
        for count in range(2, min(at_most, len(points) - 1) + 1):
            labels = AgglomerativeClustering(count, linkage="ward").fit(ordered).labels_
            silhouette = float(silhouette_score(ordered, labels))
            if silhouette > best:
                best, clusters = silhouette, labels
    numbered = np.zeros(len(points), int)
    if best > STRUCTURE:
        kinds, first, counts = np.unique(clusters, return_index=True, return_counts=True)
        by_size = kinds[np.lexsort([first, -counts])]
        numbered[order] = np.argsort(by_size)[clusters] + 1
    return numbered, best
