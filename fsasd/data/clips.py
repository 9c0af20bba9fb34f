"""``Clips``: recordings with their metadata and their features, which are computed once."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar, overload

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

from fsasd.data.audio_files import printable
from fsasd.data.content import content_hash, content_hashes
from fsasd.data.feature_file import DamagedFileError, read_features, write_features
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.data.recording import READER, AudioError, read
from fsasd.data.table import ClipTable
from fsasd.settings.code import code_of

log = logging.getLogger(__name__)

T = TypeVar("T")

FrontEnd = Callable[[np.ndarray], np.ndarray]
"""Waveform (samples,) -> features; hashable, with a ``repr`` that names all of its settings.

One that only uses the beginning of a clip has ``max_seconds``: no more is decoded for it."""


class FeatureCache:
    """Keeps features under the content of a recording, so that they are computed once.

    The key holds the front end's settings, its code where it is not fsasd's, and the content of the
    recording, wherever it lies.

    Args:
        folder: Where to keep them, one file per front end and recording; without a folder they
            stay in memory as long as the cache lives.
        channel: What to take of real recordings with several channels (see ``read``).
    """

    def __init__(self, folder: str | Path | None = None, channel: int | str | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.channel = channel
        self._memory: dict[tuple[str, str], np.ndarray] = {}

    def read(self, clip: Clip, seconds: float | None = None) -> np.ndarray:
        """Return a recording's waveform, or the first seconds of it (see ``read``)."""
        return read(clip.path, channel=self._channel(clip), seconds=seconds)

    def get(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        """Return ``front_end(waveform)`` of a clip, computed only if it is not yet there.

        A file of features that is damaged is named in a warning and computed anew.

        Raises:
            AudioError: The recording cannot be used (see ``read``), or its features are not finite.
            OSError: They cannot be written.
        """
        key = self._key(front_end, clip)
        if self.folder is None:
            if key not in self._memory:
                self._memory[key] = self._compute(front_end, clip)
            return self._memory[key]
        path = self._path(key)
        if path.is_file():
            try:
                return read_features(path)
            except DamagedFileError as error:
                log.warning("features in %s are damaged (%s): computed anew", path, error)
        features = self._compute(front_end, clip)
        try:
            write_features(path, features)
        except OSError as error:
            raise OSError(
                error.errno,
                f"features could not be written to {self.folder} ({error.strerror}): make room, or "
                "give another folder as data.cache; what is there already is used again",
            ) from error
        return features

    def holds(self, front_end: FrontEnd, clip: Clip) -> bool:
        """Tell whether the features of a clip, with its present content, are kept."""
        key = self._key(front_end, clip)
        return key in self._memory if self.folder is None else self._path(key).is_file()

    def _compute(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        waveform = self.read(clip, getattr(front_end, "max_seconds", None))
        # Such values are an error that names the recording, below.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            features = front_end(waveform)
        if features.dtype.kind == "f" and not np.isfinite(features).all():
            peak = np.abs(waveform).max()
            where = f"{printable(clip.path)}: its features are NaN or infinite"
            if peak > 1:
                raise AudioError(
                    f"{where}: expected samples in [-1, 1], found a peak of {peak:.3g}"
                )
            raise AudioError(f"{where}: {front_end!r} cannot represent it")
        return features

    def _key(self, front_end: FrontEnd, clip: Clip) -> tuple[str, str]:
        spec = f"{front_end!r}, channel {self._channel(clip)}, reader {READER}"
        if code := code_of(front_end):
            spec += f", code {code}"
        return spec, content_hash(clip.path, self.folder)

    def _channel(self, clip: Clip) -> int | str | None:
        return None if clip.synthetic else self.channel

    def _path(self, key: tuple[str, str]) -> Path:
        assert self.folder is not None
        spec, content = key
        return self.folder / hashlib.sha256(spec.encode()).hexdigest()[:24] / f"{content}.npy"


class Clips(Sequence[Clip]):
    """Recordings with their metadata and features: the input of a detector.

    Indexing with an int gives a ``Clip``; a slice, a mask or a list of indices gives ``Clips``,
    which are rows of the same table.

    >>> clips = Clips([Clip(Path("a.wav"), "fan"), Clip(Path("b.wav"), "pump")])
    >>> [clip.machine for clip in clips[[1]]]
    ['pump']
    """

    def __init__(self, clips: Iterable[Clip], cache: FeatureCache | None = None) -> None:
        self._table: ClipTable
        self._rows: np.ndarray
        if isinstance(clips, Clips):
            self._table, self._rows = clips._table, clips._rows
        else:
            self._table = ClipTable(clips)
            self._rows = np.arange(len(self._table))
        self.cache = cache or FeatureCache()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Clips: ...
    def __getitem__(self, index):
        if isinstance(index, (int, np.integer)):
            return self._table[self._rows[index]]
        return self._of(self._rows[index])

    def _of(self, rows: np.ndarray) -> Clips:
        chosen = Clips(self, self.cache)
        chosen._rows = rows
        return chosen

    def features(self, front_end: FrontEnd) -> Iterator[np.ndarray]:
        """Yield each recording's features in order, one at a time.

        A few recordings are read ahead, one on each core.
        """
        if len(self) == 1:
            # Threads would take longer to start than it takes to read.
            yield self.cache.get(front_end, self[0])
            return
        # Python 3.11 may fail to parse in several threads at a time: a plug-in's code is read here.
        code_of(front_end)
        workers = joblib.cpu_count()
        ahead: deque[Future[np.ndarray]] = deque()
        # One clip is too small to share: an OpenMP thread for each of several clips is faster.
        with ThreadPoolExecutor(workers, "features", threadpool_limits, (1, "openmp")) as threads:
            for clip in self:
                ahead.append(threads.submit(self.cache.get, front_end, clip))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def where(self, **known: str | None) -> Clips:
        """Return the clips whose fields equal ``known``, e.g. ``where(split="train")``.

        Clips are indexed by machine the first time that one is asked for: to ask for each machine
        in turn visits a clip no more often than to ask for one.
        """
        if (machine := known.pop("machine", None)) is not None:
            of_machine = self._machines.get(machine, self[:0])
            return of_machine.where(**known) if known else of_machine
        return self.filter(lambda clip: all(getattr(clip, k) == v for k, v in known.items()))

    def filter(self, predicate: Callable[[Clip], bool]) -> Clips:
        """Return the clips of which a predicate holds; it sees all but their paths."""
        return self[np.array(self.groups(predicate), dtype=bool)]

    def split(self, group_of: Callable[[Clip], T]) -> dict[T, Clips]:
        """Return the clips of each group, by anything but their paths; each is visited once.

        >>> clips = Clips(Clip(Path(f"{i}.wav"), "fan", domain="st"[i % 2]) for i in range(5))
        >>> {domain: len(some) for domain, some in clips.split(lambda clip: clip.domain).items()}
        {'s': 3, 't': 2}
        """
        split = self._table.split(group_of, self._rows)
        return {group: self._of(rows) for group, rows in split.items()}

    @cached_property
    def sections(self) -> dict[SectionId, Clips]:
        """The clips of each section, in the order of machines and sections."""
        return dict(sorted(self.split(lambda clip: clip.section_id).items()))

    @cached_property
    def _machines(self) -> dict[str, Clips]:
        return self.split(lambda clip: clip.machine)

    @cached_property
    def kinds(self) -> list[Clip]:
        """The distinct clips, compared without their paths."""
        return self._table.kinds(self._rows)

    def groups(self, group_of: Callable[[Clip], T]) -> list[T]:
        """Return the group of each clip, by anything but its path.

        ``group_of`` is called once for all clips that differ in nothing but their paths.
        """
        return self._table.groups(group_of, self._rows)

    @property
    def labels(self) -> np.ndarray:
        """(n,) 1 for anomaly, 0 for normal.

        Raises:
            ValueError: A clip has no label.
        """
        labels = self.groups(lambda clip: clip.label)
        if None in labels:
            unknown = self[labels.index(None)]
            raise ValueError(f"{unknown.path} has no label: no ground truth was found for it")
        return np.array([label == "anomaly" for label in labels], dtype=int)

    @property
    def recordings(self) -> np.ndarray:
        """(n,) Identifier of the recording that each clip was cut from, equal where it is the same.

        Clips of one machine and ``Clip.recording`` are of one recording. Where that is unknown, a
        clip stands alone with its copies: the identifier is the content hash, or the path of a file
        that cannot be read.
        """
        known = self.groups(lambda clip: clip.recording and f"{clip.machine}/{clip.recording}")
        alone = [clip.path for clip, recording in zip(self, known, strict=True) if not recording]
        contents = content_hashes(alone, self.cache.folder, strict=False)
        single = iter(content or printable(p) for content, p in zip(contents, alone, strict=True))
        return np.array([recording or next(single) for recording in known], dtype=str)

    @property
    def domains(self) -> np.ndarray:
        """(n,) ``source`` or ``target``; clips without a domain count as source.

        Detectors group them so; metrics distinguish unknown domains (``metrics.known_domains``).
        """
        return np.array(self.groups(lambda clip: clip.domain or "source"))

    @property
    def states(self) -> list[tuple[tuple[str, str], ...]]:
        """Operating state of each clip, equal where all attributes are."""
        return self.groups(lambda clip: tuple(sorted(clip.attributes.items())))
