"""Metadata of many clips in columns: no larger in memory than the table it was read from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np

from fsasd.data.metadata import Clip

T = TypeVar("T")

_fields = [field.name for field in fields(Clip)]
_but_path = attrgetter(*_fields[1:])
_hashable = attrgetter(*[name for name in _fields[1:] if name != "attributes"])


class ClipTable:
    """Clips as three columns: their folder, their name, and their *kind*, which is all the rest.

    A data set has many recordings, and few machines, states and labels of them. Columns are arrays:
    processes that load examples share their memory, where each would soon have its own copy of a
    list of objects, since to look at one is to count a reference to it
    (github.com/pytorch/pytorch/issues/13246).

    Args:
        clips: In their order.

    >>> table = ClipTable(Clip(Path(f"fan/{i}.wav"), "fan") for i in range(1000))
    >>> table[1].path.as_posix(), len(table), len(table.kinds(np.arange(1000)))
    ('fan/1.wav', 1000, 1)
    """

    def __init__(self, clips: Iterable[Clip]) -> None:
        names: list[str] = []
        place: list[int] = []
        kind: list[int] = []
        folders: dict[Path, int] = {}
        kinds: dict[tuple, int] = {}
        self._kinds: list[Clip] = []
        for clip in clips:
            known = _hashable(clip), tuple(clip.attributes.items())
            kind.append(kinds.setdefault(known, len(kinds)))
            if len(self._kinds) < len(kinds):
                self._kinds.append(Clip(Path(), *_but_path(clip)))
            place.append(folders.setdefault(clip.path.parent, len(folders)))
            names.append(clip.path.name)
        self._folders = list(folders)
        self._names = np.array(list(map(_as_text, names)), dtype=np.dtypes.StringDType())
        self._place = np.array(place, dtype=np.int32)
        self._kind = np.array(kind, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._kind)

    def __getitem__(self, row: int) -> Clip:
        path = self._folders[self._place[row]] / _as_name(self._names[row])
        return Clip(path, *_but_path(self._kinds[self._kind[row]]))

    def kinds(self, rows: np.ndarray) -> list[Clip]:
        """Return the distinct clips in these rows, without their paths."""
        return [self._kinds[kind] for kind in np.unique(self._kind[rows])]

    def groups(self, group_of: Callable[[Clip], T], rows: np.ndarray) -> list[T]:
        """Return the group of the clip in each of these rows; it is computed once for each kind."""
        groups, place = self._groups(group_of, rows)
        return [groups[i] for i in place]

    def split(self, group_of: Callable[[Clip], T], rows: np.ndarray) -> dict[T, np.ndarray]:
        """Return the rows of each group, in their order; all are visited once.

        >>> table = ClipTable(Clip(Path(f"{i}.wav"), "ab"[i % 2]) for i in range(5))
        >>> table.split(lambda clip: clip.machine, np.arange(5))
        {'a': array([0, 2, 4]), 'b': array([1, 3])}
        """
        groups, place = self._groups(group_of, rows)
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        number = np.array([numbers[group] for group in groups], dtype=np.int32)[place]
        order = np.argsort(number, kind="stable")
        ends = np.cumsum(np.bincount(number, minlength=len(numbers)))
        return dict(zip(numbers, np.split(rows[order], ends[:-1]), strict=True)) if numbers else {}

    def _groups(
        self, group_of: Callable[[Clip], T], rows: np.ndarray
    ) -> tuple[list[T], np.ndarray]:
        """Return the groups of these rows' kinds, and for each row its place among them."""
        kinds, place = np.unique(self._kind[rows], return_inverse=True)
        return [group_of(self._kinds[kind]) for kind in kinds], place


# NumPy's strings hold no name that is not UTF-8; a name's bytes are as many characters of Latin 1.


def _as_text(name: str) -> str:
    return name if name.isascii() else os.fsencode(name).decode("latin-1")


def _as_name(text: str) -> str:
    return text if text.isascii() else os.fsdecode(text.encode("latin-1"))
