"""Score files and ground truth, matched clip by clip."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from fsasd.data.csv_table import SHOWN, read_column
from fsasd.data.dcase_names import clip_named
from fsasd.data.ground_truth import DOMAINS, Key, SectionTruth, read_truth, zero_or_one
from fsasd.data.names import section_name, spelling
from fsasd.evaluation.metrics import Section

T = TypeVar("T")

_FILE = re.compile(
    r"(?:anomaly_score|decision_result)_(?P<edition>DCASE20\d\dT2)?(?P<machine>.+)"
    r"_(?:section|id)_(?P<section>[0-9]{1,9})(?:_(?P<domain>source|target))?"
    r"(?:_test)?(?:(?<=_test)_seed\d+.*)?",
    re.DOTALL,
)


class SubmissionError(ValueError):
    """Score or ground-truth files are not what they should be.

    Attributes:
        problems: A sentence for each, naming the file and, where there is one, the row.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Submission(NamedTuple):
    """A submission, read.

    Attributes:
        sections: By machine and section, sorted.
        by_domain: Whether it has a file for each domain, as in DCASE 2021.
    """

    sections: dict[Key, Section]
    by_domain: bool


def read_submission(scores_dir: str | Path, ground_truth_dir: str | Path) -> dict[Key, Section]:
    """Read a submission's files and match them with the ground truth.

    Args:
        scores_dir: Folder of score and decision files.
        ground_truth_dir: What DCASE's evaluators publish: a folder with ``ground_truth_data`` and
            ``ground_truth_domain`` (2021 has no domains there, they are in the files' names), or
            2020's ``eval_data_list.csv``, or a folder with that.

    Returns:
        By machine and section, sorted: the clips with labels, domains, scores and, where there is
        a decision file, decisions, in the order of the ground truth. So two submissions read
        with the same ground truth can be compared clip by clip. Ground truth of 2020 has no
        domains, so sections have none.

    Raises:
        SubmissionError: With every problem found, of one file's rows the first ten: a folder that
            is missing or empty; a missing file, or two for one machine and section; a machine
            without ground truth; a row that is missing, unknown, duplicate, or has no number.
    """
    return read_whole(scores_dir, ground_truth_dir).sections


def read_whole(scores_dir: str | Path, ground_truth_dir: str | Path) -> Submission:
    """Read what ``read_submission`` does, and whether its files are divided by domain."""
    problems: list[str] = []
    truth = _read_truth(Path(ground_truth_dir), problems)
    folder = Path(scores_dir)
    scores = _find_files(folder, "anomaly_score", truth, problems)
    decisions: dict[Key, _Files] = {}
    if scores:
        decisions = _find_files(folder, "decision_result", truth, problems)
        for key in sorted(truth.keys() - scores.keys()):
            problems.append(f"{folder}: no anomaly_score file for {title(key)}")
    sections: dict[Key, Section] = {}
    for key, files in [*scores.items(), *decisions.items()] if truth else []:
        if key not in truth:
            path = next(iter(files.values()))
            problems.append(f"{path}: no ground truth for {title(key)}{_suggest(key, truth)}")
    for key in sorted(truth.keys() & scores.keys()):
        known = truth[key]
        read = _read_files(scores[key], _finite, known, key, "anomaly_score", problems)
        decided = None
        if key in decisions:
            decided = _read_files(
                decisions[key], zero_or_one, known, key, "decision_result", problems
            )
        if not problems:
            sections[key] = Section(
                [known.labels[clip] for clip in known.labels],
                [DOMAINS[known.domains[c]] for c in known.labels] if known.domains else None,
                [read[clip] for clip in known.labels],
                None if decided is None else [decided[clip] for clip in known.labels],
            )
    if problems:
        raise SubmissionError(problems)
    return Submission(sections, any(domain for files in scores.values() for domain in files))


def title(key: Key) -> str:
    """Return a machine and its section in words."""
    return f"{key[0]} section {key[1]}"


_Files = dict[str | None, Path]
"""By domain; ``None`` where one file has both."""


@dataclass(frozen=True)
class _Truth:
    """Labels and domains by clip (no domains: 2020), and the clip behind every name it goes by."""

    labels: dict[str, int]
    domains: dict[str, int]
    clips: dict[str, str]


def _read_truth(place: Path, problems: list[str]) -> dict[Key, _Truth]:
    sections = read_truth(place, problems)
    kinds = {table.kind for section in sections.values() for table in section.tables}
    by_domain = any(table.domain for section in sections.values() for table in section.tables)
    listed = place.is_file() or any(place.glob("eval_data_list*.csv"))
    # 2021 has domains in the names of files; lists in those of clips, where there are any.
    needed = [] if listed else ["data"] if by_domain else ["data", "domain"]
    for kind in needed:
        inner = place / f"ground_truth_{kind}"
        if _require_folder(inner, "ground_truth", problems) and kind not in kinds:
            problems.append(
                f"{inner}: expected files ground_truth_<machine>_section_<nn>_test.csv, found none"
            )
    truth = {}
    for key, section in sections.items():
        tables = {table.kind: table.path for table in section.tables}
        if tables.keys() == {"attributes"} and needed:
            # Names alone, of a section that was not published with labels.
            continue
        missing = [kind for kind in needed if kind in kinds and kind not in tables]
        problems += [f"{place}: no ground_truth_{kind} file for {title(key)}" for kind in missing]
        if not missing:
            truth[key] = _section_truth(key, section, tables, problems)
    return truth


def _section_truth(
    key: Key, section: SectionTruth, tables: Mapping[str, Path], problems: list[str]
) -> _Truth:
    """Labels, domains and names of a section's clips; a problem for each that is not known."""
    labels: dict[str, int | None] = dict(section.labels)
    if "data" not in tables:
        labels = {clip: section.label(clip) for clip in section.names}
    domains: dict[str, int | None]
    if "domain" in tables or any(table.domain for table in section.tables):
        domains = {clip: section.domains.get(clip) for clip in labels}
    else:
        domains = {clip: section.domain(clip) for clip in labels}
        if not any(domain is not None for domain in domains.values()):
            # 2020 has none.
            domains = {}
    for kind, values in (("data", labels), ("domain", domains)):
        if unknown := [clip for clip, value in values.items() if value is None]:
            where = tables.get(kind, title(key))
            problems.append(f"{where}: {len(unknown)} rows missing or wrong: {_listed(unknown)}")
    for kind, clips in (("domain", section.domains), ("attributes", section.names)):
        if kind in tables and (strange := sorted(clips.keys() - labels.keys())):
            problems.append(f"{tables[kind]}: no label of {_listed(strange)} in the ground truth")
    names = {clip: clip for clip in labels}
    for clip, full in section.names.items():
        for name in map(clip_named, full):
            if names.setdefault(name, clip) != clip:
                where = tables.get("attributes", title(key))
                problems.append(f"{where}: {name} means {clip} and {names[name]}")
    return _Truth(
        {clip: label for clip, label in labels.items() if label is not None},
        {clip: domain for clip, domain in domains.items() if domain is not None},
        names,
    )


def _find_files(
    folder: Path, kind: str, truth: Mapping[Key, _Truth], problems: list[str]
) -> dict[Key, _Files]:
    """The files of a kind by machine and section; decisions may be absent."""
    if not _require_folder(folder, kind, problems):
        return {}
    of_section: dict[Key, _Files] = {}
    machines = {machine for machine, _ in truth}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(f"{kind}_") or path.suffix.lower() != ".csv":
            continue
        match = _FILE.fullmatch(path.stem)
        if match is None:
            problems.append(f"{path}: expected a name like {kind}_<machine>_section_<nn>_test.csv")
            continue
        machine, edition = spelling(match["machine"]), match["edition"] or ""
        # The baseline puts its edition in front; a machine may be called so, too.
        if edition + machine in machines:
            machine = edition + machine
        key = (machine, section_name(match["section"]))
        files = of_section.setdefault(key, {})
        other = files.get(match["domain"]) or files.get(None)
        if match["domain"] is None and files:
            other = next(iter(files.values()))
        if other:
            problems.append(f"{other} and {path}: two {kind} files for {title(key)}")
        else:
            files[match["domain"]] = path
    if not of_section and kind != "decision_result":
        problems.append(
            f"{folder}: expected files {kind}_<machine>_section_<nn>_test.csv, found none"
        )
    return dict(sorted(of_section.items()))


def _require_folder(folder: Path, kind: str, problems: list[str]) -> bool:
    if folder.is_dir():
        return True
    there = next(p for p in (folder, *folder.parents) if p.exists())
    content = "no folder"
    if there.is_dir():
        content = _listed([p.name for p in there.iterdir()]) or "nothing"
    problems.append(f"{folder}: expected a folder with {kind} files, found in {there}: {content}")
    return False


def _read_files(
    files: _Files,
    convert: Callable[[str], T],
    truth: _Truth,
    key: Key,
    kind: str,
    problems: list[str],
) -> dict[str, T]:
    """Read the values of a section's clips, from one file or from one for each domain."""
    values: dict[str, T] = {}
    for domain, path in files.items():
        expected = {
            clip
            for clip in truth.labels
            if domain is None or DOMAINS[truth.domains.get(clip, 0)] == domain
        }
        seen: set[str] = set()

        def clip_of(name: str, expected: set[str] = expected, seen: set[str] = seen) -> str | None:
            clip = truth.clips.get(clip_named(name))
            if clip not in expected:
                return None
            seen.add(clip)
            return clip

        values |= read_column(path, convert, problems, clip_of)
        if missing := expected - seen:
            problems.append(f"{path}: {len(missing)} rows missing: {_listed(missing)}")
    if None not in files:
        needed = {DOMAINS[domain] for domain in truth.domains.values()}
        folder = next(iter(files.values())).parent
        problems += [
            f"{folder}: no {kind} file for {title(key)}, {domain} domain"
            for domain in sorted(needed - files.keys())
        ]
    return values


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN]) + ", ..." * (len(names) > SHOWN)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number (and no header), found {text!r}")
    return value


def _suggest(key: Key, truth: Iterable[Key]) -> str:
    titles = {title(known).casefold(): title(known) for known in truth}
    close = difflib.get_close_matches(title(key).casefold(), titles, n=1, cutoff=0.8)
    return f"; did you mean {titles[close[0]]}?" if close else ""
