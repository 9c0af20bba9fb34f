"""``Clips``: recordings with their metadata and their features, which are computed once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar, overload, runtime_checkable

import numpy as np

from fsasd.data.audio_files import printable
from fsasd.data.content import content_hash, content_hashes
from fsasd.data.feature_file import DamagedFileError, read_features, write_features
from fsasd.data.front_ends import FrontEnd, Reading
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.data.recording import READER, AudioError, read
from fsasd.data.table import ClipTable
from fsasd.runtime.ahead import map_ahead
from fsasd.runtime.threads import cores, one_blas_thread, thread_pool
from fsasd.settings.code import code_of

log = logging.getLogger(__name__)

T = TypeVar("T")

_TOGETHER = 8
"""Recordings that a thread reads in turn: to hand one over takes as long as to read its features
from a file."""


@runtime_checkable
class Pooled(Protocol):
    """A front end and a pooling of its features: any representation of detectors.

    Where it is hashable, equal ones pool alike.
    """

    @property
    def front_end(self) -> FrontEnd:
        """Waveform -> features."""

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return what represents a clip, given its features; called in several threads."""


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

    def read(self, clip: Clip, reading: Reading = Reading()) -> np.ndarray:
        """Return a recording's waveform (see ``recording.read``)."""
        return read(
            clip.path,
            channel=reading.channel or self._channel(clip),
            seconds=reading.seconds,
            sampling_rate=reading.sampling_rate,
        )

    def get(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        """Return ``front_end(waveform)`` of a clip, computed only if it is not yet there.

        With those of front ends ``together`` with it, which are kept, too. A file of features that
        is damaged is named in a warning and computed anew.

        Raises:
            AudioError: The recording cannot be used (see ``read``), or its features are not finite.
            OSError: They cannot be written.
        """
        key = self._key(front_end, clip)
        if (kept := self._kept(key)) is not None:
            return kept
        reading = Reading.of(front_end)
        waveform = self.read(clip, reading)
        for other in getattr(front_end, "together", ()):
            if other is front_end or Reading.of(other) != reading or self.holds(other, clip):
                continue
            self._keep(self._key(other, clip), _computed(other, waveform, clip))
        features = _computed(front_end, waveform, clip)
        self._keep(key, features)
        return features

    def holds(self, front_end: FrontEnd, clip: Clip) -> bool:
        """Tell whether the features of a clip, with its present content, are kept."""
        key = self._key(front_end, clip)
        return key in self._memory if self.folder is None else self._path(key).is_file()

    def pooled(self, representation: Pooled, clip: Clip) -> np.ndarray:
        """Return the pooled features of a clip (see ``get``).

        Features in half precision are pooled in single precision: a sum of squares overflows.
        """
        features = self.get(representation.front_end, clip)
        if features.dtype == np.float16:
            features = features.astype(np.float32)
        return representation.pool(features)

    def rows(self, representation: Pooled, table: ClipTable) -> dict[int, np.ndarray]:
        """Return the pooled features that are at hand, by the row of a table's clip: here none.

        What is added to them is at hand the next time, if the cache keeps it (``PooledOnce``).
        """
        return {}

    def _kept(self, key: tuple[str, str]) -> np.ndarray | None:
        if self.folder is None:
            return self._memory.get(key)
        path = self._path(key)
        if path.is_file():
            try:
                return read_features(path)
            except DamagedFileError as error:
                log.warning("features in %s are damaged (%s): computed anew", path, error)
        return None

    def _keep(self, key: tuple[str, str], features: np.ndarray) -> None:
        if self.folder is None:
            self._memory[key] = features
            return
        try:
            write_features(self._path(key), features)
        except OSError as error:
            raise OSError(
                error.errno,
                f"features could not be written to {self.folder} ({error.strerror}): make room, or "
                "give another folder as data.cache; what is there already is used again",
            ) from error

    def _key(self, front_end: FrontEnd, clip: Clip) -> tuple[str, str]:
        channel = Reading.of(front_end).channel or self._channel(clip)
        spec = f"{front_end!r}, channel {channel}, reader {READER}"
        if code := code_of(front_end):
            spec += f", code {code}"
        return spec, content_hash(clip.path, self.folder)

    def _channel(self, clip: Clip) -> int | str | None:
        return None if clip.synthetic else self.channel

    def _path(self, key: tuple[str, str]) -> Path:
        assert self.folder is not None
        spec, content = key
        return self.folder / hashlib.sha256(spec.encode()).hexdigest()[:24] / f"{content}.npy"


def _computed(front_end: FrontEnd, waveform: np.ndarray, clip: Clip) -> np.ndarray:
    # Such values are an error that names the recording, below.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        features = front_end(waveform)
    if features.dtype.kind == "f" and not np.isfinite(features).all():
        peak = np.abs(waveform).max()
        where = f"{printable(clip.path)}: its features are NaN or infinite"
        if peak > 1:
            raise AudioError(f"{where}: expected samples in [-1, 1], found a peak of {peak:.3g}")
        raise AudioError(f"{where}: {front_end!r} cannot represent it")
    return features


class OverlaidCache(FeatureCache):
    """A cache that has waveforms and features of another one, but for what a subclass changes.

    Args:
        other: Where they are from.
    """

    def __init__(self, other: FeatureCache) -> None:
        super().__init__(other.folder, other.channel)
        self.other = other

    def read(self, clip: Clip, reading: Reading = Reading()) -> np.ndarray:
        return self.other.read(clip, reading)

    def get(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        return self.other.get(front_end, clip)

    def holds(self, front_end: FrontEnd, clip: Clip) -> bool:
        return self.other.holds(front_end, clip)


class PooledOnce(OverlaidCache):
    """A cache that keeps pooled features, too: of a section, whose folds are fitted in turn.

    Features may be as large as the recordings; what they are pooled to is small.
    """

    def __init__(self, other: FeatureCache) -> None:
        super().__init__(other)
        self._rows: dict[tuple[Pooled, ClipTable], dict[int, np.ndarray]] = {}

    def rows(self, representation: Pooled, table: ClipTable) -> dict[int, np.ndarray]:
        try:
            return self._rows.setdefault((representation, table), {})
        except TypeError:
            # It is not hashable: whether another is equal is not known.
            return {}


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

    def __add__(self, others: Clips) -> Clips:
        """Return these clips and then the others, with the cache of these."""
        if others._table is not self._table:
            return Clips([*self, *others], self.cache)
        return self._of(np.concatenate([self._rows, others._rows]))

    def features(self, front_end: FrontEnd) -> Iterator[np.ndarray]:
        """Yield each recording's features in order, one at a time.

        A few recordings are read ahead, on all cores.
        """
        return self._in_threads(partial(self.cache.get, front_end), front_end, self._rows)

    def pooled(self, representation: Pooled) -> list[np.ndarray]:
        """Return each recording's pooled features, which are computed as they are read."""
        rows = self.cache.rows(representation, self._table)
        asked = self._rows.tolist()
        missing = [row for row in dict.fromkeys(asked) if row not in rows]
        compute = partial(self.cache.pooled, representation)
        # All cores are in use: threads of BLAS would compete for them.
        with one_blas_thread():
            pooled = self._in_threads(compute, representation.front_end, missing)
            rows.update(zip(missing, pooled, strict=True))
        return [rows[row] for row in asked]

    def _in_threads(
        self, compute: Callable[[Clip], T], front_end: FrontEnd, rows: Sequence[int] | np.ndarray
    ) -> Iterator[T]:
        if len(rows) <= 1:
            # Threads would take longer to start than it takes to read.
            yield from (compute(self._table[row]) for row in rows)
            return
        # Python 3.11 may fail to parse in several threads at a time: a plug-in's code is read here.
        code_of(front_end)
        size = max(1, min(_TOGETHER, len(rows) // (4 * cores())))
        groups = (rows[start : start + size] for start in range(0, len(rows), size))
        with thread_pool("features") as threads:
            for computed in map_ahead(
                threads,
                lambda group: [compute(self._table[row]) for row in group],
                groups,
                ahead=2 * cores() + 1,
            ):
                yield from computed

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
