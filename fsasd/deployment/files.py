"""Scoring of recordings in files: in groups, by several models, in several processes."""

from __future__ import annotations

import glob
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fsasd.data.audio_files import READABLE, path_of, printable, recordings_below, warn_of_left_out
from fsasd.data.recording import AudioError, require_file
from fsasd.deployment.model import Model
from fsasd.deployment.results import Result
from fsasd.deployment.waveforms import ScoringCache

GROUP = 64
"""Recordings that are read and scored at once; their rows are known before the next are read."""


class Failure(NamedTuple):
    """A recording that could not be scored, and why, in a line that names it."""

    file: str
    message: str


@dataclass
class Scored:
    """What became of a group of recordings.

    Attributes:
        results: In the order of recordings and models.
        failures: A failure for each recording that could not be scored.
        measures: By model, those of each recording that was read (see ``ScoringCache.measures``).
    """

    results: list[Result] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    measures: list[Sequence[Mapping[str, Any]]] = field(default_factory=list)


def score_group(models: Sequence[Model], paths: Sequence[Path]) -> Scored:
    """Score a few recordings by each model; one that cannot be read costs no other its score.

    Args:
        models: Those that take the same channel have features in common.
        paths: The recordings.

    Raises:
        NotAModelError: The files of a model do not fit each other.
    """
    caches: dict[Any, ScoringCache] = {}
    rows: dict[Path, list[Result]] = {}
    scored, failed = Scored(), dict[Path, str]()
    for model in models:
        cache = caches.setdefault(model.channel, ScoringCache(model.channel))
        for path, score in _scores(model, paths, cache):
            try:
                if isinstance(score, Exception):
                    raise score
                result = Result.of(model, printable(path), _changed(path), score)
                rows.setdefault(path, []).append(result)
            except (ValueError, OSError) as error:
                failed.setdefault(path, _message(path, error))
        scored.measures.append(cache.measures)
    scored.results = [row for path in dict.fromkeys(paths) for row in rows.get(path, [])]
    scored.failures = [Failure(printable(path), message) for path, message in failed.items()]
    return scored


def score_groups(
    models: Sequence[Model], groups: Iterable[Sequence[Path]], jobs: int = 1
) -> Iterator[Scored]:
    """Score groups of recordings (see ``score_group``), in their order.

    Args:
        models: The models.
        groups: The recordings.
        jobs: Processes that score; each has its share of the cores.

    Raises:
        ValueError: ``jobs`` is less than 1.
        NotAModelError: The files of a model do not fit each other.
    """
    if jobs < 1:
        raise ValueError(f"jobs: expected 1 or more, found {jobs}")
    if jobs == 1:
        yield from (score_group(models, group) for group in groups)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(jobs, return_as="generator", pre_dispatch="2 * n_jobs")
    yield from parallel(delayed(score_group)(models, group) for group in groups)


def recordings(places: Iterable[str]) -> Iterator[Path]:
    """Yield the recordings that are named on a command line.

    Args:
        places: Files, folders (all recordings below) and patterns (``*``, ``**``, ``?``).

    Raises:
        FileNotFoundError: A folder holds no recordings, or nothing matches a pattern.
    """
    for place in places:
        if Path(place).is_dir():
            yield from _below(Path(place))
        elif glob.has_magic(place) and not Path(place).exists():
            matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - absolute ones, too
            if not matches:
                raise FileNotFoundError(f"{place}: nothing matches this pattern")
            for match in matches:
                yield from _below(Path(match)) if Path(match).is_dir() else [Path(match)]
        else:
            yield Path(place)


def listed(lines: Iterable[str]) -> Iterator[list[Path]]:
    """Yield groups of the recordings that are listed, a path in each line, as lines arrive.

    A group does not wait until it is full: whoever lists recordings as they come, such as
    ``inotifywait | fsasd-score -``, has each scored at once.
    """
    paths: queue.Queue[Path | None] = queue.Queue(4 * GROUP)

    def read() -> None:
        try:
            for line in lines:
                if line := line.rstrip("\r\n"):
                    paths.put(path_of(line))
        finally:
            paths.put(None)

    threading.Thread(target=read, name="list", daemon=True).start()
    ended = False
    while not ended:
        group = [paths.get()]
        while group[-1] is not None and len(group) < GROUP:
            try:
                group.append(paths.get_nowait())
            except queue.Empty:
                break
        ended = group[-1] is None
        if some := [path for path in group if path is not None]:
            yield some


def grouped(paths: Sequence[Path]) -> list[Sequence[Path]]:
    """Return recordings in groups that are scored together.

    >>> [len(group) for group in grouped([Path("a.wav")] * 100)]
    [64, 36]
    """
    return [paths[start : start + GROUP] for start in range(0, len(paths), GROUP)]


def _below(folder: Path) -> list[Path]:
    inside = recordings_below(folder)
    if not inside:
        raise FileNotFoundError(f"{printable(folder)} holds no recordings ({READABLE})")
    warn_of_left_out(folder, [folder], inside)
    return inside


def _scores(
    model: Model, paths: Sequence[Path], cache: ScoringCache
) -> Iterator[tuple[Path, float | Exception]]:
    try:
        for path in paths:
            require_file(path)
        scores = model.score_clips(paths, cache)
        yield from zip(paths, scores.tolist(), strict=True)
    except (AudioError, OSError) as error:
        if len(paths) == 1:
            yield paths[0], error
            return
        # One of them cannot be read: the others are scored without it.
        for path in paths:
            yield from _scores(model, [path], cache)


def _changed(path: Path) -> float:
    """Return when a file was last changed: now, if it was deleted since it was read."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _message(path: Path, error: Exception) -> str:
    text = str(error)
    return text if printable(path) in text else f"{printable(path)}: {text}"
