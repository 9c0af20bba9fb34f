"""The package of a submission to DCASE Task 2: written from a run, and checked.

``task2/<label>/`` has the score and decision files of every machine of the evaluation data set and
``<label>.meta.yaml``, as the challenge's submissions since 2023 have them; a folder for each of up
to four systems. The technical report is the authors'.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from fsasd.data.csv_table import SHOWN, read_rows
from fsasd.data.download.catalogue import archives, editions
from fsasd.data.metadata import read_clips
from fsasd.data.names import MetadataError, SectionId
from fsasd.evaluation.submission.meta import (
    LABEL,
    LABEL_FORM,
    meta,
    meta_problems,
    read_meta,
    write_meta,
)
from fsasd.evaluation.submission.reading import SubmissionError

TASK = "task2"
"""Folder of the systems in a package."""

FIRST_EDITION = "dcase2023"
"""The first whose packages have this form."""

SCORES, DECISIONS = "anomaly_score", "decision_result"

_FILE = re.compile(rf"({SCORES}|{DECISIONS})_(.+)_section_([0-9]{{2,9}})_test\.csv")

_Check = Callable[[str], str | None]
_Clips = Mapping[SectionId, Collection[str]]


@dataclass(frozen=True)
class System:
    """A system of a package.

    Attributes:
        folder: ``task2/<label>/``.
        sections: Number of clips by machine and section.
        edition: Whose machines these are; ``None`` of other data.
        problems: What is against the rules, a sentence each.
    """

    folder: Path
    sections: Mapping[SectionId, int]
    edition: str | None
    problems: Sequence[str]


def write_package(
    run: Path,
    label: str,
    out: Path,
    given: Path | None = None,
    development: Path | None = None,
) -> Path:
    """Write the folder of a system.

    Args:
        run: A run's folder, with ``scores/`` and ``costs.csv``.
        label: Of the system.
        out: The package's folder; it may have other systems.
        given: A YAML file of the form of ``meta.yaml`` with what the authors know.
        development: The folder of a run whose ``metrics.csv`` has the development machines.

    Returns:
        ``<out>/task2/<label>/``.

    Raises:
        FileNotFoundError: The run has no score files, or a table is missing.
        FileExistsError: The package has this system.
        SubmissionError: The label is not of the challenge's form, score files are marked as
            incomplete, or the YAML file is none.
    """
    if not LABEL.fullmatch(label):
        raise SubmissionError([f"expected a label {LABEL_FORM}, found {label!r}"])
    scores = run / "scores"
    files = [path for path in sorted(scores.glob("*.csv")) if _FILE.fullmatch(path.name)]
    if not files:
        raise FileNotFoundError(f"{scores}: expected the score files of a run, found none")
    if (mark := scores / "INCOMPLETE.txt").is_file():
        raise SubmissionError([f"{mark}: {' '.join(mark.read_text(encoding='utf-8').split())}"])
    folder = out / TASK / label
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: give another label, or delete it")
    content = meta(
        label,
        read_meta(given) if given else {},
        _parameters(run / "costs.csv"),
        _results(development / "metrics.csv") if development else {},
    )
    unfinished = folder.with_name(f".{label}.{os.getpid()}.unfinished")
    unfinished.mkdir(parents=True)
    try:
        for path in files:
            shutil.copyfile(path, unfinished / path.name)
        write_meta(unfinished / f"{label}.meta.yaml", content)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def check_package(
    package: Path, edition: str | None = None, data: Path | None = None
) -> list[System]:
    """Check a package by the challenge's rules.

    Args:
        package: The folder that has ``task2/``.
        edition: Whose evaluation machines it has to have, such as ``dcase2025``; by default that
            whose machines they are.
        data: Root of the data set: each test clip of its targets has to be there once. Without,
            score and decision files have to name the same clips.

    Returns:
        Its systems.

    Raises:
        SubmissionError: There is no package.
        FileNotFoundError, MetadataError: There are no such data, or there is no such edition.
    """
    task = package / TASK
    folders = sorted(path for path in task.glob("*") if path.is_dir())
    if not folders:
        raise SubmissionError([f"{package}: expected {TASK}/<label>/, found no such folder"])
    expected = None if data is None else _test_clips(data)
    systems = [_check_system(folder, edition, expected) for folder in folders]
    of_task = [
        f"{path}: expected folders of systems and the technical report alone"
        for path in sorted(task.iterdir())
        if path.is_file() and path.suffix != ".pdf"
    ]
    if len(teams := {folder.name.rpartition("_")[0] for folder in folders}) > 1:
        of_task.append(f"{task}: expected the systems of one team, found {_listed(teams)}")
    first, *others = systems
    return [replace(first, problems=[*of_task, *first.problems]), *others]


def _check_system(folder: Path, edition: str | None, expected: _Clips | None) -> System:
    label = folder.name
    problems = []
    if not LABEL.fullmatch(label):
        problems.append(f"{folder}: expected a label {LABEL_FORM} as its name, found {label!r}")
    problems += meta_problems(folder / f"{label}.meta.yaml", label)
    files: dict[str, dict[SectionId, Path]] = {SCORES: {}, DECISIONS: {}}
    for path in sorted(folder.iterdir()):
        if match := _FILE.fullmatch(path.name):
            files[match[1]][SectionId(match[2], match[3])] = path
        elif path.name != f"{label}.meta.yaml":
            problems.append(
                f"{path}: expected {SCORES}_<machine>_section_<nn>_test.csv, {DECISIONS}_... and "
                f"{label}.meta.yaml alone"
            )
    sections = files[SCORES].keys() | files[DECISIONS].keys()
    edition = edition or _edition_of({section.machine for section in sections})
    if edition is None and expected is None:
        problems.append(
            f"{folder}: expected the machines of an edition since {FIRST_EDITION}, found "
            f"{_listed({section.machine for section in sections})}: give the data set (--data), or "
            "the edition"
        )
    due = set(expected or ())
    if edition:
        due |= {SectionId(machine, "00") for machine in _machines(edition)}
    for kind, there in files.items():
        problems += _section_problems(folder, kind, there, due, edition or "the data set")
    counts = {}
    for section in sorted(files[SCORES].keys() & files[DECISIONS].keys()):
        pair = files[SCORES][section], files[DECISIONS][section]
        clips = None if expected is None else set(expected.get(section, ()))
        counts[section] = _check_clips(*pair, section, clips, problems)
    return System(folder, counts, edition, problems)


def _section_problems(
    folder: Path, kind: str, there: Mapping[SectionId, Path], due: set[SectionId], of: str
) -> Iterator[str]:
    for section in sorted(due - there.keys()):
        yield f"{folder}: no {kind} file of {section}"
    for section in sorted(there.keys() - due) if due else ():
        yield f"{there[section]}: {section} is not in the evaluation data of {of}"


def _check_clips(
    scores: Path, decisions: Path, section: SectionId, clips: set[str] | None, problems: list[str]
) -> int:
    """Note what is wrong with the two files of a section; return how many clips have a score."""
    named = {
        scores: _rows(scores, section, _score, problems),
        decisions: _rows(decisions, section, _decision, problems),
    }
    if clips is None:
        clips = named[scores] | named[decisions]
    for path, there in named.items():
        if missing := clips - there:
            problems.append(f"{path}: {len(missing)} clips missing: {_listed(missing)}")
        if unknown := there - clips:
            problems.append(f"{path}: {len(unknown)} unknown clips: {_listed(unknown)}")
    return len(named[scores])


def _rows(path: Path, section: SectionId, check: _Check, problems: list[str]) -> set[str]:
    """Return the clips that a file names, and note what is wrong with its rows."""
    names: Counter[str] = Counter()
    wrong = list(_wrong_rows(path, section, check, names))
    wrong += [f"{path}: {name} is there {n} times" for name, n in names.items() if n > 1]
    problems += wrong[:SHOWN]
    if len(wrong) > SHOWN:
        problems.append(f"{path}: {len(wrong) - SHOWN} more rows like these")
    return set(names)


def _wrong_rows(
    path: Path, section: SectionId, check: _Check, names: Counter[str]
) -> Iterator[str]:
    """Yield a sentence for each row that is wrong, and count the clips of the others."""
    name_form = re.compile(rf"section_{section.section}_[0-9]{{4,}}\.wav")
    try:
        for number, cells in read_rows(path):
            where = f"{path}, row {number}"
            if len(cells) != 2:
                yield f"{where}: expected two columns, found {len(cells)}"
                continue
            name, value = cells
            if not name_form.fullmatch(name):
                yield (
                    f"{where}: expected section_{section.section}_<nnnn>.wav and no header, found "
                    f"{name!r}"
                )
                continue
            names[name] += 1
            if wrong := check(value):
                yield f"{where}: {wrong}, found {value!r}"
    except MetadataError as error:
        yield str(error)


def _score(text: str) -> str | None:
    try:
        is_finite = math.isfinite(float(text))
    except ValueError:
        is_finite = False
    return None if is_finite else "expected a finite score"


def _decision(text: str) -> str | None:
    return None if text in ("0", "1") else "expected the decision 0 or 1"


def _machines(edition: str) -> set[str]:
    return {archive.machine for archive in archives(edition, ["eval_test"])}


def _edition_of(machines: set[str]) -> str | None:
    """Return the one edition of this form whose evaluation data has these machines."""
    having = [
        edition
        for edition in editions()
        if edition >= FIRST_EDITION and machines and machines <= _machines(edition)
    ]
    return having[0] if len(having) == 1 else None


def _test_clips(data: Path) -> dict[SectionId, set[str]]:
    clips: dict[SectionId, set[str]] = {}
    for clip in read_clips(data):
        if clip.role == "target" and clip.split == "test":
            section = SectionId(clip.machine, clip.section or "00")
            clips.setdefault(section, set()).add(clip.path.name)
    if not clips:
        raise SubmissionError([f"{data}: expected test clips in eval_data/, found none"])
    return clips


def _parameters(costs: Path) -> int:
    """Return the parameters of the largest section's detector, which scores a clip by itself."""
    return int(pd.read_csv(costs)["parameters"].max())


def _results(metrics: Path) -> dict[str, dict[str, float]]:
    """Return the metrics of each machine in percent, those that are defined."""
    table = pd.read_csv(metrics, dtype={"section": str})
    rows = table[table["section"].notna()].groupby("machine")[["auc_source", "auc_target", "pauc"]]
    return {
        str(machine): {str(name): 100 * float(value) for name, value in row.dropna().items()}
        for machine, row in rows.mean().iterrows()
    }


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN]) + ", ..." * (len(names) > SHOWN)
