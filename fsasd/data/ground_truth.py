"""DCASE's ground truth of evaluation clips, in the forms of the evaluators from 2020 on.

* Since 2022: ``ground_truth_data`` (label 0 or 1), ``ground_truth_domain`` (0 source, 1 target) and
  ``ground_truth_attributes`` (full names), in each ``ground_truth_<machine>_section_<nn>_test.csv``
  without header. 2022 has ``ground_truth_attributes/<machine>/attributes_<nn>.csv``, with a header
  and the full name in the last column; since 2024 machines whose attributes were withheld have a
  third column with the name that has them.
* 2021: ``ground_truth_data/ground_truth_<machine>_section_<nn>_<domain>_test.csv``.
* 2020, and the organisers' baseline: ``eval_data_list*.csv``, all machines in one, each below a row
  with its name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fsasd.data.audio_files import is_foreign
from fsasd.data.csv_table import is_known, read_column, read_rows
from fsasd.data.dcase_names import clip_named, parse_name
from fsasd.data.names import MetadataError, machine_name, section_name, spelling

log = logging.getLogger(__name__)

KINDS = ("data", "domain", "attributes")
"""What follows ``ground_truth_`` in the names of folders."""

LABELS = ("normal", "anomaly")
DOMAINS = ("source", "target")

Key = tuple[str, str]
"""Machine and section, e.g. ``("fan", "00")``."""

_FILE = re.compile(
    r"ground_truth_(?P<machine>.+)_(?:section|id)_(?P<section>[0-9]{1,9})"
    r"(?:_(?P<domain>source|target))?(?:_test)?\.csv",
    re.DOTALL,
)
_FILE_2022 = re.compile(r"attributes_(?P<section>[0-9]{1,9})\.csv")


class TruthTable(NamedTuple):
    """One of the evaluators' tables."""

    kind: str
    machine: str
    section: str
    domain: str | None
    path: Path


@dataclass
class SectionTruth:
    """Labels, domains and names of the clips of one section; clips as ``clip_named`` has them.

    Attributes:
        labels: 0 normal, 1 anomalous.
        domains: 0 source, 1 target.
        names: The full names of a clip, of which the last is the most complete.
        tables: Where it was read, but for lists of all machines.
    """

    labels: dict[str, int] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tables: list[TruthTable] = field(default_factory=list)

    def read(self, table: TruthTable, problems: list[str]) -> None:
        """Add the rows of a table; ``problems`` gets a sentence for each bad row."""
        self.tables.append(table)
        values = {"data": self.labels, "domain": self.domains}.get(table.kind)
        read = partial(
            read_column, table.path, problems=problems, clip_of=clip_named, header="file_name",
            repeats=True,
        )  # fmt: skip
        if values is None:
            names = read(convert=_full_names)
            for clip, full in names.items():
                if self.names.setdefault(clip, full) != full:
                    problems.append(f"{table.path}: {clip} has another full name elsewhere")
            return
        for clip, value in read(convert=zero_or_one).items():
            _set(values, clip, value, f"{table.path}: {clip}: {table.kind}", problems)
            if table.domain:
                domain = DOMAINS.index(table.domain)
                _set(self.domains, clip, domain, f"{table.path}: {clip}: domain", problems)

    def label(self, clip: str) -> int | None:
        """Return 0 normal, 1 anomalous: from the tables, or else from the clip's full name."""
        return self.labels.get(clip, self._named(clip, "label", LABELS))

    def domain(self, clip: str) -> int | None:
        """Return 0 source, 1 target: from the tables, or else from the clip's full name."""
        return self.domains.get(clip, self._named(clip, "domain", DOMAINS))

    def drop_wrong_names(self, key: Key) -> None:
        """Forget the full names where some of them are not those of their clips.

        Those of DCASE 2022's ToyCar and ToyTrain are in another order than the labels and domains.
        """
        wrong = [
            clip
            for clip in self.names
            if self.labels.get(clip) not in (None, self._named(clip, "label", LABELS))
            or self.domains.get(clip) not in (None, self._named(clip, "domain", DOMAINS))
        ]
        if wrong:
            log.warning(
                "%s section %s: %d of %d full names in the ground truth say another label or "
                "domain than its tables, %s first: the names, and their attributes, are not used",
                *key, len(wrong), len(self.names), wrong[0],
            )  # fmt: skip
            self.names.clear()

    def _named(self, clip: str, kind: str, words: tuple[str, str]) -> int | None:
        fields = parse_name(clip_named(self.names[clip][-1])) if clip in self.names else None
        word = fields.get(kind) if fields else None
        return words.index(word) if word else None


def read_truth(
    place: Path, problems: list[str], machines: Collection[str] | None = None
) -> dict[Key, SectionTruth]:
    """Read a ground truth, whatever its form.

    Args:
        place: The evaluators' folder, or an ``eval_data_list*.csv``.
        problems: Gets a sentence for everything that is wrong.
        machines: Whose tables to read; all by default.

    Returns:
        By machine and section, sorted. Unknown values are missing.
    """
    truth: dict[Key, SectionTruth] = {}
    for table in [] if place.is_file() else truth_tables(place, problems):
        if machines is None or table.machine in machines:
            truth.setdefault((table.machine, table.section), SectionTruth()).read(table, problems)
    for path in [place] if place.is_file() else sorted(place.glob("eval_data_list*.csv")):
        _read_list(path, truth, machines, problems)
    for key, section in truth.items():
        section.drop_wrong_names(key)
    return dict(sorted(truth.items()))


def truth_tables(folder: Path, problems: list[str]) -> list[TruthTable]:
    """Return the tables in the evaluators' folder; ``problems`` gets names that are out of form."""
    tables = []
    for kind in KINDS:
        inner = folder / f"ground_truth_{kind}"
        for path in sorted(inner.glob("ground_truth_*.csv")):
            if match := _FILE.fullmatch(path.name):
                tables.append((kind, match["machine"], match["section"], match["domain"], path))
            else:
                problems.append(
                    f"{path}: expected a name like ground_truth_<machine>_section_<nn>_test.csv"
                )
        # 2022 has the attributes in tables like those of the training clips.
        for path in sorted(inner.glob("*/attributes_*.csv")):
            if is_foreign(path.parent.name):
                continue
            if match := _FILE_2022.fullmatch(path.name):
                tables.append((kind, path.parent.name, match["section"], None, path))
    valid = []
    for kind, machine, section, domain, path in tables:
        try:
            name = machine_name(machine)
        except MetadataError as error:
            problems.append(f"{path}: {error}")
            continue
        valid.append(TruthTable(kind, name, section_name(section), domain, path))
    return valid


def zero_or_one(text: str) -> int:
    """Read 0 or 1, also written ``0.0`` and ``1.0``.

    Raises:
        ValueError: It is neither.
    """
    if text.strip() not in ("0", "1", "0.0", "1.0"):
        raise ValueError(f"expected 0 or 1, found {text!r}")
    return int(float(text))


def _full_names(text: str) -> tuple[str, ...]:
    cells = [cell.strip() for cell in text.split(",") if is_known(cell)]
    if not cells:
        raise ValueError("expected the clip's full name, found nothing")
    # Of 2022's cells the others are attributes, as in the tables of training clips.
    return tuple(cell for cell in cells if parse_name(clip_named(cell))) or (cells[-1],)


def _read_list(
    path: Path,
    truth: dict[Key, SectionTruth],
    machines: Collection[str] | None,
    problems: list[str],
) -> None:
    """Read the one list that DCASE 2020 has for the clips of all machines."""
    machine = ""
    try:
        for number, row in read_rows(path):
            first, *others = [cell.strip() for cell in row if cell.strip()]
            if not others:
                machine = spelling(first)
                continue
            if machines is not None and machine not in machines:
                continue
            clip = clip_named(first)
            fields = parse_name(clip)
            if not machine or fields is None:
                problems.append(
                    f"{path}, row {number}: expected the name of a machine in a row of its own, "
                    f"and rows like id_01_00000000.wav,normal_id_01_00000098.wav,0 below it, found "
                    f"{','.join(row)}"
                )
                return
            section = truth.setdefault((machine, str(fields["section"])), SectionTruth())
            where = f"{path}, row {number}: {clip}"
            if section.names.setdefault(clip, (others[0],)) != (others[0],):
                problems.append(f"{where}: {others[0]}, and {section.names[clip][0]} elsewhere")
            if len(others) > 1:
                try:
                    label = zero_or_one(others[1])
                except ValueError as error:
                    problems.append(f"{where}: {error}")
                    return
                _set(section.labels, clip, label, f"{where}: label", problems)
    except MetadataError as error:
        problems.append(str(error))


def _set(values: dict[str, int], clip: str, value: int, where: str, problems: list[str]) -> None:
    if values.setdefault(clip, value) != value:
        problems.append(f"{where} {value}, and {values[clip]} elsewhere")
