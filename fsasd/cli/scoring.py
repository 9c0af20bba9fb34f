"""What ``fsasd-score`` does with a model and recordings: scores, decisions, warnings, in rows."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsasd.data.audio_files import READABLE, printable, recordings_below, warn_of_left_out
from fsasd.data.check.likeness import Profile
from fsasd.data.check.measures import measure, require_full_scale
from fsasd.data.check.wording import many, named
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, AudioError, header, require_file
from fsasd.detection.decision import DECISION, read_decision
from fsasd.detectors.scoring.scorers import Scorer, load_scorer
from fsasd.evaluation.calibration import Calibration

_BATCH = 64
"""Recordings that are read and scored at once; their rows are printed before the next are read."""

_COLUMNS = ("file", "score", "threshold", "decision", "p_value")

NOT_A_MODEL = (ValueError, TypeError, AttributeError, LookupError, RuntimeError)
"""Errors of a detector whose file holds settings or arrays that do not fit each other."""


@dataclass(frozen=True)
class Model:
    """The saved detector of one section.

    Attributes:
        detector: Fitted, or what scores as it does.
        calibration: Its threshold and p-values.
        channel: Channel that it takes of recordings with several (see ``recording.read``).
        profile: Bandwidth, level and length of its training clips, if the run saved them.
    """

    detector: Scorer
    calibration: Calibration
    channel: int | str | None
    profile: Profile | None = None


class _MeasuringCache(FeatureCache):
    """A cache that measures recordings when they are read for their features, to read them once."""

    def __init__(self, channel: int | str | None) -> None:
        super().__init__(channel=channel)
        self._measures: dict[Path, dict[str, Any]] = {}

    def read(
        self,
        clip: Clip,
        seconds: float | None = None,
        sampling_rate: int = SAMPLE_RATE,
        channel: str | None = None,
    ) -> np.ndarray:
        waveform = super().read(clip, seconds, sampling_rate, channel)
        require_full_scale(waveform, clip.path)
        whole, near = header(clip.path).seconds, np.atleast_2d(waveform)[0]
        self._measures[clip.path] = {"seconds": whole, **measure(near, sampling_rate)}
        return waveform

    @property
    def measures(self) -> list[dict[str, Any]]:
        """Of each recording that was read."""
        return [{**row, "path": printable(path)} for path, row in self._measures.items()]


def read_model(folder: Path, trust: Sequence[str] = ()) -> Model:
    """Read a section's detector, its calibration and the profile of its training clips.

    Args:
        folder: Of the section, or of a machine that has one section.
        trust: Packages whose classes the detector may name (see ``detectors.base.load``).

    Raises:
        FileNotFoundError: There is no detector in the folder.
        ValueError: The folder holds several detectors, or a damaged one.
    """
    sections = sorted(path.parent for path in folder.glob("section_*/detector.json"))
    if len(sections) > 1:
        names = ", ".join(path.name for path in sections)
        raise ValueError(f"{folder} holds detectors of several sections: name one of {names}")
    folder = sections[0] if sections else folder
    detector = load_scorer(folder, trust)
    return Model(detector, *read_decision(folder / DECISION), profile=Profile.load(folder))


def print_rows(model: Model, paths: Sequence[Path], as_json: bool) -> int:
    """Print a row for each recording; return the number of recordings that could not be scored."""
    rows = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    if not as_json:
        rows.writeheader()
    failed = 0
    measures: list[dict[str, Any]] = []
    groups = [paths[i : i + _BATCH] for i in range(0, len(paths), _BATCH)]
    for group in _tracked(groups):
        # A cache of all groups would fill the memory with features.
        cache = _MeasuringCache(model.channel)
        for path, score in _scored(model, group, cache):
            if isinstance(score, Exception):
                print(score, file=sys.stderr)
                failed += 1
            else:
                row = _row(model.calibration, path, score)
                if as_json:
                    print(json.dumps(row))
                else:
                    rows.writerow(row)
        sys.stdout.flush()
        measures += cache.measures
    if model.profile:
        _warn_of_differences(model.profile, measures)
    return failed


def _tracked(groups: Sequence[Sequence[Path]]) -> Iterable[Sequence[Path]]:
    """Show on a terminal how far scoring is, which one group is too few for."""
    if len(groups) <= 1 or not sys.stderr.isatty():
        return groups
    from rich.console import Console
    from rich.progress import track

    return track(groups, "scoring", console=Console(stderr=True), transient=True)


def _row(calibration: Calibration, path: Path, score: float) -> dict[str, Any]:
    return {
        "file": printable(path),
        "score": score,
        "threshold": calibration.threshold,
        "decision": int(score > calibration.threshold),
        "p_value": float(calibration.p_values([score])[0]),
    }


def _warn_of_differences(profile: Profile, measures: Sequence[Mapping[str, Any]]) -> None:
    """Warn of recordings that differ from the training clips in bandwidth, level or length."""
    if not measures:
        return
    columns = {name: [row[name] for row in measures] for name in measures[0]}
    for difference in profile.differences(columns):
        which = list(itertools.compress(columns["path"], difference.which))
        what = f"{len(which)} of {many(len(measures), 'recording')}: {difference.message}"
        print(f"WARNING {what} ({named(which)})", file=sys.stderr)


def recordings(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            yield place
            continue
        inside = recordings_below(place)
        if not inside:
            raise FileNotFoundError(f"{printable(place)} holds no recordings ({READABLE})")
        warn_of_left_out(place, [place], inside)
        yield from inside


def _scored(
    model: Model, paths: Sequence[Path], cache: FeatureCache
) -> Iterator[tuple[Path, float | Exception]]:
    try:
        for path, score in zip(paths, _scores(model, paths, cache), strict=True):
            message = f"{printable(path)}: expected a finite anomaly score, found {score}"
            yield path, score if math.isfinite(score) else ValueError(message)
    except (AudioError, OSError) as error:
        if len(paths) == 1:
            yield paths[0], error
            return
        # One of them cannot be read: the others are scored without it.
        for path in paths:
            yield from _scored(model, [path], cache)


def _scores(model: Model, paths: Sequence[Path], cache: FeatureCache) -> list[float]:
    for path in paths:
        require_file(path)
    clips = [Clip(path, machine="", split="test") for path in paths]
    scores = model.detector.score(Clips(clips, cache))
    return np.asarray(scores, dtype=float).tolist()
