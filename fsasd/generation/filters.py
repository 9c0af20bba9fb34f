"""Filters of a set of synthetic clips: which are kept, and the reasons for rejecting others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.generation.encoder_space import MIN_NORMALS, Neighbourhood, RealClips
from fsasd.generation.prompts import first_candidate
from fsasd.generation.synthetic_clips import sources_of_derived

Scorer = Callable[[Clips, pd.DataFrame, RealClips], np.ndarray]
"""(clips, their rows of the manifest, real normal clips) of a section -> (n,), higher is better."""


class Filters:
    """Rules for which synthetic clips are kept to choose a detector's setting on.

    Two filters compare a clip's distance to the nearest real normal clip of its section with what
    is usual, the median spacing of these; the limits come from real clips. The paper has neither,
    and both are off by default: the first assumes that the target machine's anomalies are like
    those of other machines, the second removes the faults that are hardest to detect.

    Args:
        too_far: Reject clips that are farther than this quantile of the real anomalies of the
            other reference machines, e.g. 0.99.
        too_near: Reject clips that are nearer than this quantile of the spacings of real normal
            clips, e.g. 0.01: anomalies without a fault, copies of training clips.
        scorer: Of several candidates, the one of highest score is kept; ``nearness`` by default.

    Raises:
        ValueError: A quantile is not between 0 and 1.

    >>> Filters(too_far=99)
    Traceback (most recent call last):
    ...
    ValueError: too_far is a quantile, between 0 and 1, found 99
    """

    def __init__(
        self,
        too_far: float | None = None,
        too_near: float | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        for name, quantile in (("too_far", too_far), ("too_near", too_near)):
            if quantile is not None and not 0 < quantile < 1:
                raise ValueError(f"{name} is a quantile, between 0 and 1, found {quantile}")
        self.too_far = too_far
        self.too_near = too_near
        self.scorer = scorer or nearness

    def check(self, real: RealClips, sections: Iterable[SectionId]) -> None:
        """Check that there are real clips to take limits from, before anything is synthesised.

        Args:
            real: Labelled, captioned real clips.
            sections: Those to synthesise.

        Raises:
            ValueError: There are none for a section.
        """
        if self.too_far is None and self.too_near is None:
            return
        for section in sections:
            _require_normals(section, real.normals(section))
            if self.too_far is not None:
                _require_anomalies(real, section.machine)

    def __call__(self, manifest: pd.DataFrame, folder: Path, real: RealClips) -> pd.DataFrame:
        """Return the manifest with reasons for what is not kept.

        Args:
            manifest: Rows of ``manifest.csv``, ``kept`` being True or False.
            folder: Where the recordings are.
            real: Labelled, captioned real clips.

        Raises:
            ValueError: There are no real clips to take a limit from.
        """
        manifest = manifest.copy()
        for section, in_section in rows_by_section(manifest):
            normals = real.normals(section)
            if self.too_far is not None or self.too_near is not None:
                self._by_distance(manifest, in_section, folder, real, section)
            self._by_score(manifest, in_section, folder, normals)
        return manifest

    def _by_distance(
        self,
        manifest: pd.DataFrame,
        in_section: pd.Series,
        folder: Path,
        real: RealClips,
        section: SectionId,
    ) -> None:
        kept = manifest[in_section & manifest["kept"]]
        if kept.empty:
            return
        normals = real.normals(section)
        _require_normals(section, normals)
        around = Neighbourhood(normals)
        usual = float(np.median(around.spacings()))
        points = around.place(recordings(kept, folder))
        nearest = around.distances(points, sources_of_derived(kept)).min(axis=1) / usual
        if self.too_far is not None:
            limit = far_limit(real, section.machine, self.too_far)
            text = "farther from real clips than real anomalies of other machines"
            _reject(manifest, kept.index[nearest > limit], f"{text} (above {limit:.2f} spacings)")
        if self.too_near is not None:
            limit = float(np.quantile(around.spacings() / usual, self.too_near))
            text = "closer to real normal clips than these to one another"
            _reject(manifest, kept.index[nearest < limit], f"{text} (below {limit:.2f} spacings)")

    def _by_score(
        self, manifest: pd.DataFrame, in_section: pd.Series, folder: Path, normals: RealClips
    ) -> None:
        kept = manifest[in_section & manifest["kept"]]
        asked = kept["wav"].map(first_candidate)
        kept = kept[asked.duplicated(keep=False)]
        if kept.empty:
            return
        scores = pd.Series(self.scorer(recordings(kept, folder), kept, normals), kept.index)
        best = scores.groupby(asked[kept.index]).idxmax()
        _reject(manifest, kept.index.difference(pd.Index(best)), "another candidate was better")


def rows_by_section(manifest: pd.DataFrame) -> Iterator[tuple[SectionId, pd.Series]]:
    """Yield each section of a manifest, and for each row whether it is of that section."""
    names = manifest["section"].replace("", "00")
    for section in map(
        SectionId._make, dict.fromkeys(zip(manifest["machine"], names, strict=True))
    ):
        yield section, (manifest["machine"] == section.machine) & (names == section.section)


def nearness(clips: Clips, rows: pd.DataFrame, real: RealClips) -> np.ndarray:
    """Score candidates by their distance to the nearest real normal clip of their caption.

    A candidate far from all of these misses its machine or its operating state. Among anomalous
    candidates, the nearest is also the one with the weakest fault.
    """
    around = Neighbourhood(real)
    captions = real.captions_by_content()
    distances = around.distances(around.place(clips), sources_of_derived(rows))
    theirs = np.array(around.captions)
    for row, source in zip(distances, rows["source_sha256"], strict=True):
        row[theirs != captions.get(source)] = np.inf
    return -distances.min(axis=1)


def far_limit(real: RealClips, machine: str, quantile: float) -> float:
    """Return the distance of real anomalies from normal clips, in spacings of these.

    Args:
        real: Labelled, captioned real clips.
        machine: Its anomalies, where it has any, do not count.
        quantile: Of all anomalies of the other machines.

    Raises:
        ValueError: No other machine has anomalous clips and normal clips to compare them with.
    """
    _require_anomalies(real, machine)
    others = [of for other, of in real.anomaly_distances.items() if other.machine != machine]
    return float(np.quantile(np.concatenate(others), quantile))


def mark_duplicates(manifest: pd.DataFrame) -> pd.DataFrame:
    """Reject each clip whose file is, byte by byte, that of an earlier one of its section."""
    manifest = manifest.copy()
    kept = manifest[manifest["kept"]]
    again = kept.duplicated(["machine", "section", "sha256"])
    _reject(manifest, kept.index[again], "the same recording as an earlier clip")
    return manifest


def recordings(rows: pd.DataFrame, folder: Path) -> Clips:
    """Return the synthetic clips of rows of the manifest."""
    return Clips(
        [
            Clip(folder / wav, machine, label=label)
            for wav, machine, label in zip(rows["wav"], rows["machine"], rows["label"], strict=True)
        ]
    )


def _require_normals(section: SectionId, normals: RealClips) -> None:
    if len(normals.clips) < MIN_NORMALS:
        raise ValueError(
            f"{section}: too_far and too_near need {MIN_NORMALS} real normal clips to know what is "
            f"usual, found {len(normals.clips)}: set both to null"
        )


def _require_anomalies(real: RealClips, machine: str) -> None:
    if all(other.machine == machine for other in real.with_anomalies):
        raise ValueError(
            f"{machine}: too_far needs anomalous clips of another machine, found none: set "
            "synthesis.filters.too_far=null"
        )


def _reject(manifest: pd.DataFrame, rows: pd.Index, reason: str) -> None:
    manifest.loc[rows, "kept"] = False
    manifest.loc[rows, "reason"] = reason
