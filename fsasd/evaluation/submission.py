"""DCASE Task 2 submission files: write them, read anyone's, and evaluate them (``fsasd-evaluate``).

A submission is a folder of CSV files without header, one row per test clip in any order:

* ``anomaly_score_<machine>_section_<nn>_test.csv``: ``section_00_0000.wav,<score>``
* ``decision_result_<machine>_section_<nn>_test.csv``: ``section_00_0000.wav,<0 or 1>``, optional

Read as well: names without ``_test``, the baseline's
``anomaly_score_DCASE2023T2<machine>_section_<nn>_test_seed<seed><tag>_Eval.csv``, and clips called
by their full attribute name (``section_00_source_test_normal_0001_res_2``), with or without
``.wav``.

The ground truth is a folder with ``ground_truth_data`` (label 0 or 1), ``ground_truth_domain``
(0 source, 1 target) and, where clips are called by them, ``ground_truth_attributes`` (full names);
in each ``ground_truth_<machine>_section_<nn>_test.csv``, again without header.
"""

import argparse
import csv
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from fsasd.evaluation.metrics import (
    DOMAINS,
    OfficialScore,
    Section,
    SectionMetrics,
    metrics_table,
    official_score,
    section_metrics,
)
from fsasd.evaluation.uncertainty import Interval, bootstrap_official

Key = tuple[str, str]
"""Machine and section, e.g. ``("fan", "00")``."""

T = TypeVar("T")

_SHOWN = 10

_ENDING = r"_section_(?P<section>\d+)(?:_test)?"
_TRUTH_FILE = re.compile(rf"ground_truth_(?P<machine>.+){_ENDING}\.csv")
_SCORE_FILE = re.compile(
    rf"(?:anomaly_score|decision_result)_(?:DCASE20\d\dT2)?(?P<machine>.+){_ENDING}"
    r"(?:(?<=_test)_seed\d+.*)?\.csv"
)


class SubmissionError(ValueError):
    """Score or ground-truth files are not what they should be.

    Attributes:
        problems: A sentence for each, naming the file and, where there is one, the row.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` finds.

    Attributes:
        metrics: The metrics of each machine and section.
        official: The official score.
        interval: Its 95 % bootstrap interval; None when not asked for.
        notes: A sentence for each thing left undefined, and why.
    """

    metrics: dict[Key, SectionMetrics]
    official: OfficialScore
    interval: Interval | None
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """All of it as ``fsasd.evaluation.metrics.metrics_table`` lays it out."""
        interval = self.interval or Interval(math.nan, math.nan)
        return metrics_table(self.metrics, (interval.low, interval.high))


def write_scores(
    folder: str | Path, machine: str, section: str, names: Sequence[str], scores: ArrayLike
) -> Path:
    r"""Write ``anomaly_score_<machine>_section_<nn>_test.csv``.

    The file appears complete or not at all, and the numbers read back exactly.

    Args:
        folder: Made if need be.
        machine: Machine name, spelled as in the data set.
        section: Digits, e.g. ``"00"``.
        names: File names of the clips, e.g. ``section_00_0000.wav``, shape (n,).
        scores: Anomaly scores, shape (n,).

    Returns:
        The path of the file.

    Raises:
        ValueError: Lengths differ, a name repeats, or a score is not finite.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_scores(folder, "fan", "00", ["section_00_0000.wav"], [0.1])
    ...     path.name, path.read_text()
    ('anomaly_score_fan_section_00_test.csv', 'section_00_0000.wav,0.1\n')
    """
    values = [float(score) for score in np.asarray(scores)]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{machine} section {section}: expected finite scores, found {values}")
    return _write(Path(folder), "anomaly_score", machine, section, names, map(repr, values), values)


def write_decisions(
    folder: str | Path, machine: str, section: str, names: Sequence[str], decisions: ArrayLike
) -> Path:
    r"""Write ``decision_result_<machine>_section_<nn>_test.csv``.

    Args:
        folder: Made if need be.
        machine: Machine name, spelled as in the data set.
        section: Digits, e.g. ``"00"``.
        names: File names of the clips, shape (n,).
        decisions: 1 (or True) where the clip is called anomalous, else 0, shape (n,).

    Returns:
        The path of the file.

    Raises:
        ValueError: Lengths differ, a name repeats, or a decision is not 0 or 1.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_decisions(folder, "fan", "00", ["section_00_0000.wav"], [True])
    ...     path.name, path.read_text()
    ('decision_result_fan_section_00_test.csv', 'section_00_0000.wav,1\n')
    """
    values = np.asarray(decisions).tolist()
    wrong = [value for value in values if value not in (0, 1)]
    if wrong:
        raise ValueError(f"{machine} section {section}: expected decisions 0 or 1, found {wrong}")
    texts = (str(int(value)) for value in values)
    return _write(Path(folder), "decision_result", machine, section, names, texts, values)


def read_submission(scores_dir: str | Path, ground_truth_dir: str | Path) -> dict[Key, Section]:
    """Read a submission's files and match them with the ground truth.

    Args:
        scores_dir: Folder of score and decision files.
        ground_truth_dir: Folder that contains ``ground_truth_data`` and ``ground_truth_domain``.

    Returns:
        By machine and section, sorted: the clips with labels, domains, scores and, where there is
        a decision file, decisions, in the order of the ground truth. So two submissions read
        with the same ground truth can be compared clip by clip.

    Raises:
        SubmissionError: With every problem found, of one file's rows the first ten: a folder that
            is missing or empty; a missing file, or two for one machine and section; a machine
            without ground truth; a row that is missing, unknown, duplicate, or has no number.
    """
    problems: list[str] = []
    truth = _read_ground_truth(Path(ground_truth_dir), problems)
    folder = Path(scores_dir)
    scores = _find_files(folder, "anomaly_score", _SCORE_FILE, problems)
    decisions: dict[Key, Path] = {}
    if scores:
        decisions = _find_files(folder, "decision_result", _SCORE_FILE, problems)
        for key in sorted(truth.keys() - scores.keys()):
            problems.append(f"{folder}: no anomaly_score file for {_title(key)}")
    sections: dict[Key, Section] = {}
    for key, path in [*scores.items(), *decisions.items()] if truth else []:
        if key not in truth:
            problems.append(f"{path}: no ground truth for {_title(key)}{_suggest(key, truth)}")
    for key in sorted(truth.keys() & scores.keys()):
        known = truth[key]
        read = _read_column(scores[key], _finite, problems, known.clips)
        decided = None
        if key in decisions:
            decided = _read_column(decisions[key], _zero_or_one, problems, known.clips)
        if not problems:
            sections[key] = Section(
                [known.labels[clip] for clip in known.labels],
                [DOMAINS[known.domains[clip]] for clip in known.labels],
                [read[clip] for clip in known.labels],
                None if decided is None else [decided[clip] for clip in known.labels],
            )
    if problems:
        raise SubmissionError(problems)
    return sections


def evaluate(
    scores_dir: str | Path, ground_truth_dir: str | Path, bootstrap: int = 1000, seed: int = 0
) -> Evaluation:
    """Evaluate a submission with the official metrics.

    Args:
        scores_dir: Folder of score and decision files.
        ground_truth_dir: Folder that contains ``ground_truth_data`` and ``ground_truth_domain``.
        bootstrap: Resamples for the interval of the official score; 0 for no interval.
        seed: Seed of the bootstrap.

    Raises:
        SubmissionError: As ``read_submission``, or no metric at all is defined.
    """
    sections = read_submission(scores_dir, ground_truth_dir)
    metrics = {
        key: section_metrics(section.labels, section.domains, section.scores, section.decisions)
        for key, section in sections.items()
    }
    notes = [note for key, section in sections.items() for note in _undefined(key, section)]
    undecided = [_title(key) for key, section in sections.items() if section.decisions is None]
    if undecided:
        notes.append(
            f"No decision files, so no precision, recall and F1, for: {', '.join(undecided)}."
        )
    official = official_score(metrics_table(metrics))
    if official.undefined == official.cells:
        raise SubmissionError([f"{ground_truth_dir}: no metric is defined", *notes])
    interval = None
    if bootstrap:
        interval = bootstrap_official(list(sections.values()), n=bootstrap, seed=seed)
    return Evaluation(metrics, official, interval, tuple(notes))


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``fsasd-evaluate``.

    Returns:
        0 after an evaluation; 2 when arguments or files are wrong, with every problem on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="fsasd-evaluate",
        description="The official DCASE Task 2 metrics of a folder of score files.",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with anomaly_score_<machine>_section_<nn>_test.csv and, optionally, "
        "decision_result_... files",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with ground_truth_data, ground_truth_domain and ground_truth_attributes",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: fractions, null where undefined, machines by name, or by "
        "name/section_<nn> where a machine has several sections",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples for the 95 %% interval of the official score; 0 for none (default: 1000)",
    )
    arguments = parser.parse_args(argv)
    if arguments.bootstrap < 0:
        parser.error(f"--bootstrap: expected 0 or more, found {arguments.bootstrap}")
    try:
        evaluation = evaluate(arguments.scores, arguments.ground_truth, arguments.bootstrap)
    except SubmissionError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(_json(evaluation))
        for note in evaluation.notes:
            print(note, file=sys.stderr)
    else:
        _show(evaluation, arguments.bootstrap)
    return 0


@dataclass(frozen=True)
class _Truth:
    """Labels and domains by clip, and the clip behind every name it goes by."""

    labels: dict[str, int]
    domains: dict[str, int]
    clips: dict[str, str]


def _read_ground_truth(folder: Path, problems: list[str]) -> dict[Key, _Truth]:
    files = {}
    for kind in ("data", "domain", "attributes"):
        inner = folder / f"ground_truth_{kind}"
        # Only clips called by their attribute names need the attributes.
        if inner.is_dir() or kind != "attributes":
            files[kind] = _find_files(inner, "ground_truth", _TRUTH_FILE, problems)
    for key in sorted(files["data"].keys() ^ files["domain"].keys()):
        missing = "domain" if key in files["data"] else "data"
        if files[missing]:
            problems.append(f"{folder}: no ground_truth_{missing} file for {_title(key)}")
    truth = {}
    for key in sorted(files["data"].keys() & files["domain"].keys()):
        labels = _read_column(files["data"][key], _zero_or_one, problems)
        clips = {clip: clip for clip in labels}
        domains = _read_column(files["domain"][key], _zero_or_one, problems, clips)
        attributes = files.get("attributes", {}).get(key)
        if attributes:
            for clip, names in _read_column(attributes, _names, problems, clips).items():
                for name in names:
                    if clips.setdefault(name, clip) != clip:
                        problems.append(f"{attributes}: {name} means {clip} and {clips[name]}")
        truth[key] = _Truth(labels, domains, clips)
    return truth


def _find_files(
    folder: Path, kind: str, pattern: re.Pattern[str], problems: list[str]
) -> dict[Key, Path]:
    """The files of a kind by machine and section; decisions may be absent."""
    if not folder.is_dir():
        there = next(p for p in (folder, *folder.parents) if p.exists())
        found_there = "no folder"
        if there.is_dir():
            found_there = _listed([p.name for p in there.iterdir()]) or "nothing"
        problems.append(
            f"{folder}: expected a folder with {kind} files, found in {there}: {found_there}"
        )
        return {}
    found: dict[Key, Path] = {}
    for path in sorted(folder.glob(f"{kind}_*.csv")):
        match = pattern.fullmatch(path.name)
        if match is None:
            problems.append(f"{path}: expected a name like {kind}_<machine>_section_<nn>_test.csv")
            continue
        key = (match["machine"], f"{int(match['section']):02d}")
        if key in found:
            problems.append(f"{found[key]} and {path}: two {kind} files for {_title(key)}")
        else:
            found[key] = path
    if not found and kind != "decision_result":
        problems.append(
            f"{folder}: expected files {kind}_<machine>_section_<nn>_test.csv, found none"
        )
    return dict(sorted(found.items()))


def _read_column(
    path: Path,
    convert: Callable[[str], T],
    problems: list[str],
    clips: dict[str, str] | None = None,
) -> dict[str, T]:
    """What follows the name, by clip; ``clips`` maps the names to expect to the clips they mean."""
    values: dict[str, T] = {}
    wrong: list[str] = []
    rows: dict[str, int] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: expected UTF-8 text, found {error}")
        return values
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        where = f"{path}, row {number}"
        if not row:
            continue
        name = _clip_name(row[0])
        clip = name if clips is None else clips.get(name)
        if clip is None:
            wrong.append(f"{where}: {row[0]!r} is not a clip of the ground truth")
        elif clip in rows:
            wrong.append(f"{where}: {row[0]!r} duplicates row {rows[clip]}")
        else:
            rows[clip] = number
            try:
                values[clip] = convert(",".join(row[1:]))
            except ValueError as error:
                wrong.append(f"{where}: {row[0]}: {error}")
    problems += wrong[:_SHOWN]
    if len(wrong) > _SHOWN:
        problems.append(f"{path}: {len(wrong) - _SHOWN} more rows like these")
    missing = set((clips or {}).values()) - rows.keys()
    if missing:
        problems.append(f"{path}: {len(missing)} rows missing: {_listed(missing)}")
    return values


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def _clip_name(text: str) -> str:
    return text.strip().removesuffix(".wav")


def _names(text: str) -> list[str]:
    # Since 2024 machines whose attributes were withheld have two: ``..._noAttribute`` and the full.
    return [_clip_name(name) for name in text.split(",")]


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number (and no header), found {text!r}")
    return value


def _zero_or_one(text: str) -> int:
    if text.strip() not in ("0", "1", "0.0", "1.0"):
        raise ValueError(f"expected 0 or 1, found {text!r}")
    return int(float(text))


def _title(key: Key) -> str:
    return f"{key[0]} section {key[1]}"


def _suggest(key: Key, truth: Iterable[Key]) -> str:
    titles = {_title(known).casefold(): _title(known) for known in truth}
    close = difflib.get_close_matches(_title(key).casefold(), titles, n=1, cutoff=0.8)
    return f"; did you mean {titles[close[0]]}?" if close else ""


def _undefined(key: Key, section: Section) -> list[str]:
    """Why which metrics of a section are undefined."""
    anomalous = section.labels == 1
    left_out = "undefined and left out of the means"
    notes = []
    if not anomalous.any():
        notes.append(f"{_title(key)}: no anomalous clips, so AUC and pAUC are {left_out}.")
    elif anomalous.all():
        notes.append(f"{_title(key)}: no normal clips, so AUC and pAUC are {left_out}.")
    for domain in DOMAINS:
        inside = section.domains == domain
        if anomalous.any() and not anomalous.all() and not (inside & ~anomalous).any():
            notes.append(
                f"{_title(key)}: no {domain}-domain normal clips, so AUC ({domain}) is {left_out}."
            )
        if section.decisions is not None and not (inside & anomalous).any():
            notes.append(
                f"{_title(key)}: no {domain}-domain anomalous clips, so precision, recall and F1 "
                f"({domain}) are {left_out}."
            )
    return notes


def _label(key: Key, keys: Iterable[Key]) -> str:
    several = sum(key[0] == machine for machine, _ in keys) > 1
    return f"{key[0]}/section_{key[1]}" if several else key[0]


def _json(evaluation: Evaluation) -> str:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    interval = evaluation.interval
    content = {
        "official_score": plain(evaluation.official.value),
        "official_score_ci95": interval and [interval.low, interval.high],
        "undefined_cells": evaluation.official.undefined,
        "machines": {
            _label(key, evaluation.metrics): {
                name: plain(value) for name, value in metrics.named().items()
            }
            for key, metrics in evaluation.metrics.items()
        },
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _show(evaluation: Evaluation, resamples: int) -> None:
    table = evaluation.table.set_index("machine").drop(columns=["section", "undefined"])
    numbers = table.iloc[:-1].drop(columns=["official_score", "ci_low", "ci_high"])
    numbers = numbers.dropna(axis="columns", how="all")
    view = Table(title="DCASE Task 2 metrics, percent", title_justify="left")
    view.add_column("machine", no_wrap=True)
    for column in numbers:
        view.add_column(str(column).replace("_", "\n"), justify="right", no_wrap=True)
    names = [_label(key, evaluation.metrics) for key in evaluation.metrics]
    labels = [*names, "arithmetic mean", "harmonic mean"]
    partial = numbers.iloc[: len(names)].isna().any().to_list()
    for index, (label, row) in enumerate(zip(labels, numbers.to_numpy(float), strict=True)):
        marks = ("*" if index >= len(names) and some else "" for some in partial)
        cells = (
            "" if math.isnan(v) else f"{100 * v:.2f}{m}" for v, m in zip(row, marks, strict=True)
        )
        view.add_row(label, *cells, end_section=index == len(names) - 1)
    if any(partial):
        view.caption = "* mean over the defined cells"
    # A pipe has no width of its own, and numbers must not be cut to fit one.
    width = max(120, Console().width)
    console = Console(width=width, markup=False, highlight=False, soft_wrap=True)
    console.print(view)
    official, interval = evaluation.official, evaluation.interval
    line = f"official score {100 * official.value:.6f} %"
    if official.undefined:
        line += f" (over {official.cells - official.undefined} of {official.cells} cells)"
    if interval:
        line += f", 95 % interval {100 * interval.low:.2f} to {100 * interval.high:.2f} %"
        line += f" ({resamples} bootstrap resamples)"
    console.print(line)
    for note in evaluation.notes:
        console.print(note)


def _write(
    folder: Path,
    kind: str,
    machine: str,
    section: str,
    names: Sequence[str],
    texts: Iterable[str],
    values: Sequence[float],
) -> Path:
    path = folder / f"{kind}_{machine}_section_{int(section):02d}_test.csv"
    if len(names) != len(values):
        raise ValueError(
            f"{path}: expected a value for each of {len(names)} clips, found {len(values)}"
        )
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise ValueError(f"{path}: expected each clip once, found several {twice}")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(zip(names, texts, strict=True))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
