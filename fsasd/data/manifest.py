"""Recordings of any machines -> ``list[Clip]``: a table of them, or folders named by machine.

A manifest has a row per recording and the columns ``path``, ``machine``, ``split`` and ``label``;
``domain``, ``section``, ``role``, ``recording``, ``type`` and ``site`` may be added. Any further
column is an attribute, with its unit in the value (``1200 rpm``) or once in the column's name
(``speed [rpm]``). Every bad row is named, with its line.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fsasd.data.audio_files import (
    READABLE,
    folders_in,
    printable,
    recordings_below,
    recordings_in,
    warn_of_left_out,
)
from fsasd.data.clip import Clip
from fsasd.data.csv_table import is_known, read_rows
from fsasd.data.joining import join, listed, machine_values
from fsasd.data.names import (
    MetadataError,
    as_written,
    machine_name,
    require_known,
    section_name,
    spelling,
    twin_key,
)

REQUIRED = ("path", "machine", "split", "label")
OPTIONAL = ("domain", "section", "role", "recording", "type", "site")

_ALLOWED = {
    "split": ("train", "test"),
    "label": ("normal", "anomaly", ""),
    "domain": ("source", "target", ""),
    "role": ("reference", "target", ""),
}
_FREE = {"recording", "type", "site"}
"""Columns of names that may be anything; what attributes write for unknown is unknown here, too."""

SUBFOLDER = "folder"
"""Attribute of a recording that lies deeper than its label: the folders in between."""

_UNIT = re.compile(r"(?P<name>.+?)\s*[\[(](?P<unit>[^\])]+)[\])]")
_TWIN = "differs in case, spaces or accents' encoding only from"
_SHOWN = 20
"""Problems that an error lists in words; the others it counts, with their lines."""

_ROWS_PER_BYTE = 4
"""Of a Parquet file, at most. Rows with a path each take a byte or more where paths are numbered
and the whole is compressed by zstd."""

_NO_PARQUET = (
    ValueError, OSError, LookupError, TypeError, AttributeError, ArithmeticError,
    NotImplementedError,
)  # fmt: skip
"""What pandas and pyarrow raise for a damaged file."""


def read_manifest(
    path: str | Path | Sequence[str | Path], targets: Sequence[str] | None = None
) -> list[Clip]:
    """Read the recordings that a table lists.

    Args:
        path: A CSV file with a header (see ``csv_table.read_rows``), or a Parquet file. Paths in it
            are relative to the folder that it lies in; an empty cell is unknown. Several are read
            as one (see ``join``).
        targets: The new machines (see ``with_roles``).

    Returns:
        Clips in the order of the rows. No recording is opened.

    Raises:
        FileNotFoundError: There is no such file.
        MetadataError: A column is missing, rows are wrong (the lines of all are given, and what is
            wrong with the first 20), a machine's role is open, a machine has two roles, types or
            sites, clips of one machine, section and split are in two tables.
    """
    clips = join((place, _read_table(place)) for place in listed(path))
    return with_roles(clips, targets)


def _read_table(path: Path) -> list[Clip]:
    if not path.is_file():
        raise FileNotFoundError(f"manifest {path} does not exist")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    rows = _parquet(path) if is_parquet else read_rows(path)
    _, header = next(rows, (1, []))
    reader = _RowReader(path.parent, _columns(path, header), "row" if is_parquet else "line")
    clips: list[Clip] = []
    problems: list[tuple[int, str]] = []
    for number, cells in rows:
        clip, wrong = reader(number, cells)
        clips.append(clip)
        problems += [(number, problem) for problem in wrong]
    if problems:
        texts = [f"{reader.place} {number}: {problem}" for number, problem in problems]
        others = _ranges(number for number, _ in problems[_SHOWN:])
        raise MetadataError(
            _list(f"{path}: {len(clips)} rows", texts, f", in {reader.place}s {others}")
        )
    if not clips:
        raise MetadataError(f"{path}: expected a row per recording, found none below the header")
    return clips


def read_folders(
    root: str | Path | Sequence[str | Path], targets: Sequence[str] | None = None
) -> list[Clip]:
    """Read recordings in ``<root>/<machine>/{train,test}/{normal,anomaly}/``.

    Those in folders below have these as the attribute ``folder``: ``leak`` or ``leak/monday``. Test
    clips without a label lie directly in ``test``. Files elsewhere
    that look like audio are named in one warning.

    Args:
        root: The folder of the machines' folders; or several, which are read as one (see ``join``).
        targets: The new machines (see ``with_roles``).

    Returns:
        Clips sorted by machine, split, label and path.

    Raises:
        FileNotFoundError: There is no such folder.
        MetadataError: A folder or file is elsewhere (all are listed), a machine's name is not
            allowed, two are easily confused, a machine's role is open, clips of one machine and
            split are in two roots.
    """
    clips = join((place, _read_root(place)) for place in listed(root))
    if len(listed(root)) > 1:
        clips.sort(key=lambda clip: clip.machine)
    return with_roles(clips, targets)


def _read_root(root: Path) -> list[Clip]:
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist")
    clips: list[Clip] = []
    problems: list[str] = []
    twins: dict[str, Path] = {}
    for folder in folders_in(root):
        machine_clips, wrong = _machine_clips(folder)
        if not machine_clips and not wrong:
            continue
        clips += machine_clips
        problems += wrong
        if (twin := twins.setdefault(twin_key(folder.name), folder)) != folder:
            problems.append(f"{folder}: {_TWIN} {twin}")
    if problems:
        raise MetadataError(_list(f"{root}: <machine>/<train|test>/<normal|anomaly>", problems))
    if not clips:
        raise MetadataError(
            f"{root}: expected recordings ({READABLE}) in "
            "<machine>/{train,test}/{normal,anomaly}, found none"
        )
    warn_of_left_out(root, [root], [clip.path for clip in clips])
    return clips


def _machine_clips(folder: Path) -> tuple[list[Clip], list[str]]:
    """Return the clips in a machine's folder, and problems with the folder's layout."""
    clips: list[Clip] = []
    problems: list[str] = []
    machine = spelling(folder.name)
    for split in folders_in(folder):
        problems += _misnamed(split, _ALLOWED["split"])
        clips += [Clip(p, machine, split=split.name) for p in recordings_in(split)]
        for label in folders_in(split):
            problems += _misnamed(label, ("normal", "anomaly"))
            for path in recordings_below(label):
                inner = printable(path.parent.relative_to(label).as_posix())
                attributes = {} if inner == "." else {SUBFOLDER: inner}
                clips.append(Clip(path, machine, split=split.name, label=label.name,
                                  attributes=attributes))  # fmt: skip
    unlabelled = recordings_in(folder / "train")
    problems += [f"{p}: expected train/normal or train/anomaly" for p in unlabelled]
    problems += [f"{p}: expected a folder train or test" for p in recordings_in(folder)]
    if clips:
        problems += _misspelt(folder.name)
    return clips, problems


def with_roles(clips: Sequence[Clip], targets: Sequence[str] | None = None) -> list[Clip]:
    """Return clips with their machines' roles, reference or target.

    ``targets`` decides; else the ``role`` of the clips; else what is certain: a machine without any
    labelled anomaly is a target, one with anomalies to train on a reference. Anomalies that are
    all in the test split leave it open whether a generator may be trained on them: an error.

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
    for field in ("type", "site"):
        machine_values(clips, field)
    if targets is not None:
        targets = as_written(targets, machines, "machines")
        require_known(targets, machines, "machines")
        roles = {machine: "target" if machine in targets else "reference" for machine in machines}
    else:
        roles = machine_values(clips, "role")
        roles |= _certain_roles(clips, [machine for machine in machines if machine not in roles])
    return [replace(clip, role=roles[clip.machine]) for clip in clips]


class _RowReader:
    """Converts rows to clips, and lists problems with them.

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
        self.machines: dict[str, str] = {}

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
                if is_known(value)
            }
        path = self._path(cells[self.path])
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
        if wrong := _misspelt(known["machine"]):
            problems += wrong
        else:
            twin = self.machines.setdefault(twin_key(known["machine"]), known["machine"])
            if twin != known["machine"]:
                problems.append(f"machine: {known['machine']!a} {_TWIN} {twin!a}")
        known["machine"] = spelling(known["machine"])
        if section := known.get("section"):
            try:
                known["section"] = section_name(section)
            except MetadataError as error:
                problems.append(str(error))
        for column in _FREE & set(known):
            known[column] = spelling(known[column]) if is_known(known[column]) else ""
        return {column: value or None for column, value in known.items()}, problems

    def _wrong_path(self, path: str, written: str, number: int) -> list[str]:
        if not written:
            return ["path: expected a file, found nothing"]
        if (earlier := self.first.setdefault(path, number)) != number:
            return [f"path: {written} is already in {self.place} {earlier}"]
        return [] if self._exists(path) else [f"path: {path} does not exist"]

    def _path(self, written: str) -> Path:
        path = self.folder / written
        if "\\" in written and not self._exists(str(path)):
            # As Windows separates folders.
            return self.folder / written.replace("\\", "/")
        return path

    def _exists(self, path: str) -> bool:
        # One listing of a folder is quicker than a question for each of its files.
        folder, name = os.path.split(path)
        if folder not in self.files:
            try:
                self.files[folder] = set(os.listdir(folder or "."))  # noqa: PTH208
            except (OSError, ValueError):
                # None there, or a name that no file can have.
                self.files[folder] = set()
        return name in self.files[folder]


def _announced(path: Path) -> int:
    """Return the largest number of rows in the head of a Parquet file.

    Memory is allocated for as many, and what repeats takes no room in a file.
    """
    from pyarrow import parquet

    about = parquet.read_metadata(path)
    groups = map(about.row_group, range(about.num_row_groups))
    return max([about.num_rows, *(group.num_rows for group in groups)])


def _parquet(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    try:
        if (count := _announced(path)) > _ROWS_PER_BYTE * path.stat().st_size:
            raise ValueError(f"{count:,} rows, which can have no path each in so few bytes")
        frame = pd.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
        yield 0, [str(column) for column in frame.columns]
        # Whole numbers stay whole beside empty cells, which become "".
        texts = frame.astype("string").fillna("")
        # Text is decoded here.
        yield from enumerate(texts.itertuples(index=False, name=None), start=1)
    except ImportError as error:
        raise MetadataError(
            f"{path}: Parquet needs pyarrow, which is not installed: pip install 'fsasd[parquet]', "
            "or save the table as CSV"
        ) from error
    except _NO_PARQUET as error:
        raise MetadataError(f"{path}: expected a Parquet file: {error}") from error


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    names = [name.strip() for name in header]
    present = ", ".join(names) or "none"
    if missing := [name for name in REQUIRED if name not in names]:
        others = len(names) == 1 and any(sign in present for sign in ";\t|")
        hint = ". Save it with commas between cells" if others else ""
        raise MetadataError(
            f"{path}: expected the columns {', '.join(REQUIRED)}; missing: {', '.join(missing)}; "
            f"found: {present}{hint}"
        )
    twice = [name or "(no name)" for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        raise MetadataError(f"{path}: expected a name of its own for each column, found: {present}")
    return {name: i for i, name in enumerate(names)}


def _attribute(column: str) -> tuple[str, str]:
    match = _UNIT.fullmatch(column)
    return (match["name"], match["unit"].strip()) if match else (column, "")


def _certain_roles(clips: Iterable[Clip], machines: Sequence[str]) -> dict[str, str]:
    splits: dict[str, set[str | None]] = {machine: set() for machine in machines}
    for clip in clips:
        if clip.machine in splits and clip.label == "anomaly":
            splits[clip.machine].add(clip.split)
    if open_ := [machine for machine, anomalous in splits.items() if anomalous == {"test"}]:
        raise MetadataError(
            f"{', '.join(open_)}: the anomalies are all in the test split. May they be learned "
            "from (a reference machine) or only be used to evaluate (a target)? Say "
            "data.targets=[<the new machines>], or add a column role"
        )
    return {
        machine: "reference" if anomalous else "target" for machine, anomalous in splits.items()
    }


def _misspelt(machine: str) -> list[str]:
    try:
        machine_name(machine)
    except MetadataError as error:
        return [str(error)]
    return []


def _misnamed(folder: Path, expected: Sequence[str]) -> list[str]:
    return [] if folder.name in expected else [f"{folder}: expected {' or '.join(expected)}"]


def _list(what: str, problems: Sequence[str], others: str = "") -> str:
    more = len(problems) - _SHOWN
    lines = [*problems[:_SHOWN], *([f"... and {more} more{others}"] if more > 0 else [])]
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
