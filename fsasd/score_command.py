"""The command ``fsasd-score``: recordings scored and judged by a detector that a run left."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from fsasd.data.audio_files import READABLE, printable, recordings_below
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.data.recording import AudioError, require_file
from fsasd.detection import DECISION
from fsasd.detectors.base import Detector, load
from fsasd.detectors.saved import NotAModelError, read_json

_TOGETHER = 64
"""Recordings that are read and scored together; their rows are printed before the next are read."""

_NOT_A_MODEL = (ValueError, TypeError, AttributeError, LookupError, RuntimeError)
"""What a detector raises whose settings or arrays are those of none, as a file may hold them."""


@dataclass(frozen=True)
class Model:
    """What a run left of one section of one machine.

    Attributes:
        detector: Fitted.
        threshold: A clip scored above it is called anomalous.
        channel: What it hears of recordings with several channels (see ``recording.read``).
    """

    detector: Detector
    threshold: float
    channel: int | str | None


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``fsasd-score``.

    Returns:
        0 when every recording has its row; 1 when some could not be scored, which are on stderr;
        2 when there is no such model, or are no recordings.
    """
    parser = argparse.ArgumentParser(
        prog="fsasd-score",
        description="Score recordings with a detector that a run left, and decide which are "
        "anomalous: a CSV row (file, score, threshold, decision) for each, on standard output.",
    )
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
    arguments = parser.parse_args(argv)
    try:
        model = read_model(arguments.model, arguments.trust)
        paths = list(_found(arguments.recordings))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return int(_print_rows(model, paths) > 0)
    except _NOT_A_MODEL as error:
        print(NotAModelError(arguments.model, f"it cannot score ({error})"), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `| head` has read enough; what is still to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def read_model(folder: Path, trust: Sequence[str] = ()) -> Model:
    """Read a section's detector and its threshold.

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
    told = folder / DECISION
    if not told.is_file():
        raise FileNotFoundError(f"{told} is missing: it holds the threshold of the detector")
    about = read_json(told)
    threshold = about.get("threshold")
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise NotAModelError(told, f"expected a number as 'threshold', found {threshold!r}")
    try:
        return Model(detector, **about)
    except TypeError as error:
        raise NotAModelError(told, error) from error


def _print_rows(model: Model, paths: Sequence[Path]) -> int:
    """Print a row for each recording; return how many have none."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["file", "score", "threshold", "decision"])
    failed = 0
    groups = [paths[i : i + _TOGETHER] for i in range(0, len(paths), _TOGETHER)]
    bar = Console(stderr=True)
    for group in track(groups, "scoring", console=bar, transient=True, disable=not bar.is_terminal):
        for path, score in _scored(model, group):
            if isinstance(score, Exception):
                print(score, file=sys.stderr)
                failed += 1
            else:
                rows.writerow(
                    [printable(path), score, model.threshold, int(score > model.threshold)]
                )
        sys.stdout.flush()
    return failed


def _found(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            yield place
            continue
        inside = recordings_below(place)
        if not inside:
            raise FileNotFoundError(f"{printable(place)} holds no recordings ({READABLE})")
        yield from inside


def _scored(model: Model, paths: Sequence[Path]) -> Iterator[tuple[Path, float | Exception]]:
    try:
        yield from zip(paths, _scores(model, paths), strict=True)
    except (AudioError, OSError) as error:
        if len(paths) == 1:
            yield paths[0], error
            return
        # One of them cannot be read; the others are not lost with it.
        for path in paths:
            yield from _scored(model, [path])


def _scores(model: Model, paths: Sequence[Path]) -> list[float]:
    for path in paths:
        require_file(path)
    heard = [Clip(path, machine="", split="test") for path in paths]
    scores = model.detector.score(Clips(heard, FeatureCache(channel=model.channel)))
    return np.asarray(scores, dtype=float).tolist()


if __name__ == "__main__":
    sys.exit(main())
