"""The command ``fsasd-score``: recordings scored and judged by a detector that a run left."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from fsasd import __version__
from fsasd.data.audio_files import READABLE, printable, recordings_below, warn_of_left_out
from fsasd.data.check.findings import many, named
from fsasd.data.check.likeness import Profile
from fsasd.data.check.measures import measure, require_full_scale
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, AudioError, header, require_file
from fsasd.detection.section import DECISION, read_decision
from fsasd.detectors.base import Detector, load
from fsasd.detectors.saved import NotAModelError
from fsasd.evaluation.calibration import Calibration

_TOGETHER = 64
"""Recordings that are read and scored together; their rows are printed before the next are read."""

_COLUMNS = ("file", "score", "threshold", "decision", "p_value")

_NOT_A_MODEL = (ValueError, TypeError, AttributeError, LookupError, RuntimeError)
"""What a detector raises whose settings or arrays are those of none, as a file may hold them."""


@dataclass(frozen=True)
class Model:
    """What a run left of one section of one machine.

    Attributes:
        detector: Fitted.
        calibration: Its threshold, and what scores mean.
        channel: What it hears of recordings with several channels (see ``recording.read``).
        profile: What the recordings were that it was fitted on, if the run left that.
    """

    detector: Detector
    calibration: Calibration
    channel: int | str | None
    profile: Profile | None = None


class _MeasuringCache(FeatureCache):
    """Measures recordings when they are read for their features, so that they are read once."""

    def __init__(self, channel: int | str | None) -> None:
        super().__init__(channel=channel)
        self._measures: dict[Path, dict[str, Any]] = {}

    def read(self, clip: Clip, seconds: float | None = None) -> np.ndarray:
        waveform = super().read(clip, seconds)
        require_full_scale(waveform, clip.path)
        whole = header(clip.path).seconds
        self._measures[clip.path] = {"seconds": whole, **measure(waveform, SAMPLE_RATE)}
        return waveform

    @property
    def measures(self) -> pd.DataFrame:
        """A row for each recording that was read."""
        measures = pd.DataFrame(list(self._measures.values()))
        return measures.assign(path=[printable(path) for path in self._measures])


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``fsasd-score``.

    Returns:
        0 when every recording has its row; 1 when some could not be scored, which are on stderr;
        2 when there is no such model, or are no recordings.
    """
    parser = argparse.ArgumentParser(
        prog="fsasd-score",
        description="Score recordings with a detector that a run left, and decide which are "
        "anomalous: a CSV row (file, score, threshold, decision, p_value) for each, on standard "
        "output. The p-value is the probability that a normal clip scores as high or higher.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR",
        help="models/<machine>/ of a run, or models/<machine>/section_<nn>/",
    )  # fmt: skip
    parser.add_argument(
        "recordings", type=Path, nargs="+", metavar="WAV",
        help=f"recordings, or folders with some ({READABLE})",
    )  # fmt: skip
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE",
        help="a package, beside fsasd and scikit-learn, whose classes the model may be made of; "
        "importing it runs its code",
    )  # fmt: skip
    parser.add_argument(
        "--false-alarm-rate", type=float, metavar="SHARE",
        help="share of normal clips to be called anomalous, instead of the run's "
        "(decision.false_alarm_rate)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each recording, not CSV"
    )
    arguments = parser.parse_args(argv)
    try:
        model = read_model(arguments.model, arguments.trust)
        if arguments.false_alarm_rate is not None:
            calibration = model.calibration.at(arguments.false_alarm_rate)
            model = replace(model, calibration=calibration)
        paths = list(_found(arguments.recordings))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return int(_print_rows(model, paths, arguments.json) > 0)
    except _NOT_A_MODEL as error:
        print(NotAModelError(arguments.model, f"it cannot score ({error})"), file=sys.stderr)
        return 2


def read_model(folder: Path, trust: Sequence[str] = ()) -> Model:
    """Read a section's detector and its calibration.

    Args:
        folder: A section's, or a machine's that has one section.
        trust: Packages whose classes it may name (see ``detectors.base.load``).

    Raises:
        FileNotFoundError: There is none in the folder.
        ValueError: The folder holds several, or what is no saved detector.
    """
    sections = sorted(path.parent for path in folder.glob("section_*/detector.json"))
    if len(sections) > 1:
        names = ", ".join(path.name for path in sections)
        raise ValueError(f"{folder} holds detectors of several sections: name one of {names}")
    folder = sections[0] if sections else folder
    detector = load(folder, trust)
    return Model(detector, *read_decision(folder / DECISION), profile=Profile.load(folder))


def _print_rows(model: Model, paths: Sequence[Path], as_json: bool) -> int:
    """Print a row for each recording; return how many have none."""
    rows = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    if not as_json:
        rows.writeheader()
    failed = 0
    measures = []
    groups = [paths[i : i + _TOGETHER] for i in range(0, len(paths), _TOGETHER)]
    bar = Console(stderr=True)
    for group in track(groups, "scoring", console=bar, transient=True, disable=not bar.is_terminal):
        # Its features would fill the memory if they were of all groups.
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
        measures.append(cache.measures)
    if model.profile:
        _tell_differences(model.profile, pd.concat(measures))
    return failed


def _row(calibration: Calibration, path: Path, score: float) -> dict[str, Any]:
    return {
        "file": printable(path),
        "score": score,
        "threshold": calibration.threshold,
        "decision": int(score > calibration.threshold),
        "p_value": float(calibration.p_values([score])[0]),
    }


def _tell_differences(profile: Profile, measures: pd.DataFrame) -> None:
    """Print in what recordings differ from those that the detector was fitted on."""
    for difference in profile.differences(measures) if len(measures) else ():
        which = measures.loc[difference.which, "path"].tolist()
        what = f"{len(which)} of {many(len(measures), 'recording')}: {difference.message}"
        print(f"WARNING {what} ({named(which)})", file=sys.stderr)


def _found(places: Iterable[Path]) -> Iterator[Path]:
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
            finite = math.isfinite(score)
            said = f"{printable(path)}: expected a finite anomaly score, found {score}"
            yield path, score if finite else ValueError(said)
    except (AudioError, OSError) as error:
        if len(paths) == 1:
            yield paths[0], error
            return
        # One of them cannot be read; the others are not lost with it.
        for path in paths:
            yield from _scored(model, [path], cache)


def _scores(model: Model, paths: Sequence[Path], cache: FeatureCache) -> list[float]:
    for path in paths:
        require_file(path)
    heard = [Clip(path, machine="", split="test") for path in paths]
    scores = model.detector.score(Clips(heard, cache))
    return np.asarray(scores, dtype=float).tolist()


if __name__ == "__main__":
    sys.exit(main())
