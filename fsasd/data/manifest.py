"""One's own recordings -> ``list[Clip]``: a table of them, or folders named after what is in them.

A manifest has a row per recording and the columns ``path``, ``machine``, ``split`` and ``label``;
``domain``, ``section`` and ``role`` may be added, and any further column is an attribute, with its
unit in the value (``1200 rpm``) or once in the column's name (``speed [rpm]``). Every bad row is
told, with its line.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fsasd.data.metadata import (
    AUDIO_SUFFIXES,
    Clip,
    MetadataError,
    is_recording,
    require_known,
)

REQUIRED = ("path", "machine", "split", "label")
OPTIONAL = ("domain", "section", "role")

_ALLOWED = {
    "split": ("train", "test"),
    "label": ("normal", "anomaly", ""),
    "domain": ("source", "target", ""),
    "role": ("reference", "target", ""),
}
_UNIT = re.compile(r"(?P<name>.+?)\s*[\[(](?P<unit>[^\])]+)[\])]")
_TOLD = 20
"""Problems that an error tells in words; of others it gives the number, and the lines."""


def read_manifest(path: str | Path, targets: Sequence[str] | None = None) -> list[Clip]:
    """Read the recordings that a table lists.

    Args:
        path: A CSV file (UTF-8) with a header, or a Parquet file. Paths in it are relative to the
            folder that it lies in; an empty cell is unknown.
        targets: The new machines (see ``with_roles``).

    Returns:
        Clips in the order of the rows. No recording is opened.

    Raises:
        FileNotFoundError: There is no such file.
        MetadataError: A column is missing, rows are wrong (the lines of all are given, and what is
            wrong with the first 20), a machine's role is open.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"manifest {path} does not exist")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    rows = _parquet(path) if is_parquet else _csv(path)
    _, header = next(rows, (1, []))
    reader = _RowReader(path.parent, _columns(path, header), "row" if is_parquet else "line")
    clips: list[Clip] = []
    problems: list[tuple[int, str]] = []
    for number, cells in rows:
        clip, wrong = reader(number, cells)
        clips.append(clip)
        problems += [(number, problem) for problem in wrong]
    if problems:
        told = [f"{reader.place} {number}: {problem}" for number, problem in problems]
        others = _ranges(number for number, _ in problems[_TOLD:])
        raise MetadataError(
            _list(f"{path}: {len(clips)} rows", told, f", in {reader.place}s {others}")
        )
    if not clips:
        raise MetadataError(f"{path}: expected a row per recording, found none below the header")
    return with_roles(clips, targets)


def read_folders(root: str | Path, targets: Sequence[str] | None = None) -> list[Clip]:
    """Read recordings in ``<root>/<machine>/{train,test}/{normal,anomaly}/``.

    Test clips of which nobody knows whether they are normal lie directly in ``test``.

    Args:
        root: The folder of the machines' folders.
        targets: The new machines (see ``with_roles``).

    Returns:
        Clips sorted by machine, split, label and file name.

    Raises:
        FileNotFoundError: There is no such folder.
        MetadataError: A folder or file is elsewhere (all are told), a machine's role is open.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist")
    clips: list[Clip] = []
    problems: list[str] = []
    for machine in _folders(root):
        for split in _folders(machine):
            problems += _misnamed(split, _ALLOWED["split"])
            clips += [Clip(p, machine.name, split=split.name) for p in _recordings(split)]
            for label in _folders(split):
                problems += _misnamed(label, ("normal", "anomaly"))
                found = _recordings(label)
                clips += [Clip(p, machine.name, split=split.name, label=label.name) for p in found]
        unlabelled = _recordings(machine / "train")
        problems += [f"{p}: expected train/normal or train/anomaly" for p in unlabelled]
        problems += [f"{p}: expected a folder train or test" for p in _recordings(machine)]
    if problems:
        raise MetadataError(_list(f"{root}: <machine>/<train|test>/<normal|anomaly>", problems))
    if not clips:
        raise MetadataError(
            f"{root}: expected recordings ({', '.join(AUDIO_SUFFIXES)}) in "
            "<machine>/{train,test}/{normal,anomaly}, found none"
        )
    return with_roles(clips, targets)


def with_roles(clips: Sequence[Clip], targets: Sequence[str] | None = None) -> list[Clip]:
    """Say of each machine whether it is a reference or a target.

    ``targets`` says it; else the clips' own ``role``; else what is known: a machine without any
    labelled anomaly is a target, one with anomalies to train on a reference. Anomalies that are
    all in the test split leave it open whether a generator may hear them, and nobody guesses.

    Args:
        clips: With or without roles.
        targets: The new machines; all others are then references.

    Raises:
        MetadataError: ``targets`` names an unknown machine; a machine has two roles, or none that
            is certain.

    >>> normal = Clip(Path("a.wav"), "press", split="train", label="normal")
    >>> [clip.role for clip in with_roles([normal])]
    ['target']
    """
    machines = sorted({clip.machine for clip in clips})
    if targets is not None:
        require_known(targets, machines, "machines")
        roles = {machine: "target" if machine in targets else "reference" for machine in machines}
    else:
        roles = _own_roles(clips)
        roles |= _certain_roles(clips, [machine for machine in machines if machine not in roles])
    return [replace(clip, role=roles[clip.machine]) for clip in clips]


class _RowReader:
    """Makes clips of rows, and says what is wrong with them.

    Tables have few combinations of attributes, and few of everything else but paths: each is
    looked at, and kept, once.
    """

    def __init__(self, folder: Path, columns: Mapping[str, int], place: str) -> None:
        self.folder = folder
        self.place = place
        self.n_columns = len(columns)
        self.path = columns["path"]
        self.fields = [c for c in (*REQUIRED[1:], *OPTIONAL) if c in columns]
        self.field_indices = [columns[field] for field in self.fields]
        others = set(columns) - {"path", *self.fields}
        self.attributes = [_attribute(c) for c in columns if c in others]
        self.attribute_indices = [i for c, i in columns.items() if c in others]
        self.known: dict[tuple[str, ...], tuple[dict[str, str | None], list[str]]] = {}
        self.attributed: dict[tuple[str, ...], dict[str, str]] = {}
        self.first: dict[str, int] = {}
        self.files: dict[str, set[str]] = {}

    def __call__(self, number: int, cells: Sequence[str]) -> tuple[Clip, list[str]]:
        if len(cells) != self.n_columns:
            wrong = f"expected {self.n_columns} cells as in the header, found {len(cells)}"
            return Clip(Path(), ""), [wrong]
        cells = [cell.strip() for cell in cells]
        values = tuple([cells[i] for i in self.field_indices])
        if values not in self.known:
            self.known[values] = self._fields(values)
        fields, problems = self.known[values]
        values = tuple([cells[i] for i in self.attribute_indices])
        if values not in self.attributed:
            self.attributed[values] = {
                name: f"{value} {unit}".rstrip()
                for (name, unit), value in zip(self.attributes, values, strict=True)
                if value
            }
        path = self.folder / cells[self.path]
        problems = [*problems, *self._wrong_path(str(path), cells[self.path], number)]
        clip = Clip(path, attributes=self.attributed[values], **fields)  # type: ignore[arg-type]
        return clip, problems

    def _fields(self, values: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
        known = dict(zip(self.fields, values, strict=True))
        problems = []
        for column, allowed in _ALLOWED.items():
            if known.get(column, allowed[-1]) not in allowed:
                names = " or ".join(name or "nothing" for name in allowed)
                problems.append(f"{column}: expected {names}, found '{known[column]}'")
        if not known["machine"] or "/" in known["machine"]:
            found = known["machine"]
            problems.append(f"machine: expected a name without '/', found '{found}'")
        section = known.get("section", "")
        if section and not (section.isascii() and section.isdigit()):
            problems.append(f"section: expected digits such as 00, found '{section}'")
        return {column: value or None for column, value in known.items()}, problems

    def _wrong_path(self, path: str, written: str, number: int) -> list[str]:
        if not written:
            return ["path: expected a file, found nothing"]
        if (earlier := self.first.setdefault(path, number)) != number:
            return [f"path: {written} is already in {self.place} {earlier}"]
        # One listing of a folder is quicker than a question for each of its files.
        folder, _, name = path.rpartition(os.sep)
        if folder not in self.files:
            there = Path(path).parent
            self.files[folder] = {p.name for p in there.iterdir()} if there.is_dir() else set()
        return [] if name in self.files[folder] else [f"path: {path} does not exist"]


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader, line = csv.reader(file, strict=True), 1
        try:
            for cells in reader:
                if any(cells):
                    yield line, cells
                # A quoted cell may span several.
                line = reader.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise MetadataError(
                f"{path}, near line {line}: expected comma-separated text in UTF-8: {error}"
            ) from error


def _parquet(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    try:
        frame = pd.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
    except ImportError as error:
        raise MetadataError(
            f"{path}: Parquet needs pyarrow, which is not installed: pip install 'fsasd[parquet]', "
            "or save the table as CSV"
        ) from error
    except (ValueError, OSError) as error:
        raise MetadataError(f"{path}: expected a Parquet file: {error}") from error
    yield 0, [str(column) for column in frame.columns]
    # Whole numbers stay whole beside empty cells, which become "".
    texts = frame.astype("string").fillna("")
    yield from enumerate(texts.itertuples(index=False, name=None), start=1)


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    names = [name.strip() for name in header]
    found = ", ".join(names) or "none"
    if missing := [name for name in REQUIRED if name not in names]:
        hint = ". Save it with commas between cells" if len(names) == 1 and ";" in found else ""
        raise MetadataError(
            f"{path}: expected the columns {', '.join(REQUIRED)}; missing: {', '.join(missing)}; "
            f"found: {found}{hint}"
        )
    twice = [name or "(no name)" for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        raise MetadataError(f"{path}: expected a name of its own for each column, found: {found}")
    return {name: i for i, name in enumerate(names)}


def _attribute(column: str) -> tuple[str, str]:
    match = _UNIT.fullmatch(column)
    return (match["name"], match["unit"].strip()) if match else (column, "")


def _own_roles(clips: Iterable[Clip]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for clip in clips:
        if clip.role and roles.setdefault(clip.machine, clip.role) != clip.role:
            raise MetadataError(
                f"{clip.machine}: expected one role for all of its clips, found reference and "
                f"target, e.g. {clip.role} for {clip.path}"
            )
    return roles


def _certain_roles(clips: Iterable[Clip], machines: Sequence[str]) -> dict[str, str]:
    splits: dict[str, set[str | None]] = {machine: set() for machine in machines}
    for clip in clips:
        if clip.machine in splits and clip.label == "anomaly":
            splits[clip.machine].add(clip.split)
    if open_ := [machine for machine, found in splits.items() if found == {"test"}]:
        raise MetadataError(
            f"{', '.join(open_)}: the anomalies are all in the test split. May they be learned "
            "from (a reference machine) or only be used to evaluate (a target)? Say "
            "data.targets=[<the new machines>], or add a column role"
        )
    return {machine: "reference" if found else "target" for machine, found in splits.items()}


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _recordings(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if is_recording(p)) if folder.is_dir() else []


def _misnamed(folder: Path, expected: Sequence[str]) -> list[str]:
    return [] if folder.name in expected else [f"{folder}: expected {' or '.join(expected)}"]


def _list(what: str, problems: Sequence[str], others: str = "") -> str:
    more = len(problems) - _TOLD
    lines = [*problems[:_TOLD], *([f"... and {more} more{others}"] if more > 0 else [])]
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return f"{what}, {count}:\n  " + "\n  ".join(lines)


def _ranges(numbers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number <= runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
