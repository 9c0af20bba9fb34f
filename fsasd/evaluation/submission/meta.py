"""``<label>.meta.yaml`` of a submission: authors, system and results on the development machines.

The fields are those of the challenge's submissions of 2024 and 2026, which are the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fsasd.evaluation.submission.reading import SubmissionError
from fsasd.settings.files import read_yaml

UNKNOWN = "?"
"""Stands for what the authors have to fill in. What does not apply to a system is null."""

LABEL = re.compile(r"(?P<lastname>[A-Za-z][A-Za-z-]*)_[A-Za-z0-9-]+_task2_[1-4]")
"""Last name of the corresponding author, their institute, the task, the number of the system."""

LABEL_FORM = "<last name>_<institute>_task2_<1 to 4>"

ABBREVIATION = 10
"""Most characters of a system's abbreviation."""

_AUTHOR = ("firstname", "lastname", "email")
_AFFILIATION = ("institution", "location")
_DESCRIPTION = (
    "input_sampling_rate", "data_augmentation", "front_end", "acoustic_features", "embeddings",
    "machine_learning_method", "aggregation_method", "domain_adaptation_method",
    "domain_generalization_method", "ensemble_method_subsystem_count", "decision_making",
    "attribute_usage", "external_data_usage", "development_data_usage",
)  # fmt: skip
_RESULTS = ("auc_source", "auc_target", "pauc")


def meta(
    label: str,
    given: Mapping[str, Any],
    parameters: int,
    results: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Return the content of the file; what nobody knows is ``UNKNOWN``.

    Args:
        label: Of the system.
        given: What the authors have written, of the same form; only the label of the system and
            what is known of a run is taken from elsewhere, where they have not written it.
        parameters: Of the system.
        results: Machine to ``auc_source``, ``auc_target`` and ``pauc``, in percent, on the
            development machines.

    >>> meta("Kim_CAU_task2_1", {"submission": {"name": "A"}}, 9, {})["submission"]["name"]
    'A'
    """
    affiliation = {"institution": UNKNOWN, "department": None, "location": UNKNOWN}
    author = dict.fromkeys(_AUTHOR, UNKNOWN)
    known = {
        "submission": {
            "label": label,
            "name": UNKNOWN,
            "abbreviation": UNKNOWN,
            "authors": [{**author, "corresponding": True, "affiliation": affiliation}],
        },
        "system": {
            "description": dict.fromkeys(_DESCRIPTION, UNKNOWN),
            "complexity": {"total_parameters": parameters},
            "external_datasets": [{"name": UNKNOWN, "url": UNKNOWN}],
            "source_code": UNKNOWN,
        },
        "results": {"development_dataset": {name: dict(row) for name, row in results.items()}},
    }
    filled = _filled(known, given)
    filled["submission"]["label"] = label
    return filled


def write_meta(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file."""
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def read_meta(path: Path) -> dict[str, Any]:
    """Read the file.

    Raises:
        SubmissionError: It is missing, no YAML, or lacks ``submission``, ``system`` or
            ``results`` as groups of fields.
    """
    try:
        return read_yaml(path, dict)
    except FileNotFoundError as error:
        raise SubmissionError([f"{path}: expected a YAML file, found none"]) from error
    except ValueError as error:
        groups = "expected the groups submission, system and results"
        raise SubmissionError([f"{error}: {groups}"]) from error


def meta_problems(path: Path, label: str) -> list[str]:
    """Return what is wrong with the file, a sentence each.

    Args:
        path: Of the file.
        label: That it has to have.
    """
    try:
        content = read_meta(path)
    except SubmissionError as error:
        return list(error.problems)
    problems = [
        *_submission_problems(content.get("submission"), label),
        *_system_problems(content.get("system")),
        *_result_problems(content.get("results")),
    ]
    return [f"{path}: {problem}" for problem in problems]


def _filled(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known, with what is given in its place or beside it."""
    filled = dict(known)
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            filled[name] = _filled(known[name], value)
        elif value != UNKNOWN:
            filled[name] = value
    return filled


def _submission_problems(group: Any, label: str) -> Iterator[str]:
    if not isinstance(group, dict):
        yield "expected the group submission, found none"
        return
    if group.get("label") != label:
        yield f"submission.label: expected {label}, as the folder, found {group.get('label')!r}"
    yield from _unknown(group, ("name", "abbreviation"), "submission", null=False)
    abbreviation = str(group.get("abbreviation", ""))
    if len(abbreviation) > ABBREVIATION:
        yield (
            f"submission.abbreviation: expected {ABBREVIATION} characters or fewer, found "
            f"{abbreviation!r}"
        )
    authors = group.get("authors")
    if not isinstance(authors, list) or not all(isinstance(one, dict) for one in authors):
        yield "submission.authors: expected a list of authors, found none"
        return
    for number, author in enumerate(authors, start=1):
        where = f"submission.authors, {number}"
        yield from _unknown(author, _AUTHOR, where, null=False)
        affiliation = author.get("affiliation")
        # Some have several.
        for one in affiliation if isinstance(affiliation, list) else [affiliation]:
            yield from _unknown(one, _AFFILIATION, f"{where}.affiliation", null=False)
    corresponding = [one for one in authors if one.get("corresponding") is True]
    if len(corresponding) != 1:
        yield f"submission.authors: expected one corresponding author, found {len(corresponding)}"
        return
    lastname = str(corresponding[0].get("lastname"))
    if lastname == UNKNOWN:
        return
    if (match := LABEL.fullmatch(label)) and _letters(match["lastname"]) != _letters(lastname):
        yield (
            f"submission.label: expected the last name of the corresponding author, {lastname}, "
            f"in front, found {match['lastname']}"
        )


def _system_problems(group: Any) -> Iterator[str]:
    if not isinstance(group, dict):
        yield "expected the group system, found none"
        return
    yield from _unknown(group.get("description"), _DESCRIPTION, "system.description")
    yield from _unknown(group, ("source_code",), "system")
    complexity = group.get("complexity")
    parameters = complexity.get("total_parameters") if isinstance(complexity, dict) else None
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 0:
        yield f"system.complexity.total_parameters: expected an integer, found {parameters!r}"
    datasets = group.get("external_datasets")
    if not isinstance(datasets, list):
        yield "system.external_datasets: expected a list, empty without any, found none"
        return
    for number, one in enumerate(datasets, start=1):
        yield from _unknown(one, ("name", "url"), f"system.external_datasets, {number}")


def _result_problems(group: Any) -> Iterator[str]:
    machines = group.get("development_dataset") if isinstance(group, dict) else None
    if not isinstance(machines, dict):
        yield "results.development_dataset: expected machines, or {} without results, found none"
        return
    for machine, row in machines.items():
        for name in _RESULTS:
            value = row.get(name) if isinstance(row, dict) else None
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 <= value <= 100):
                yield (
                    f"results.development_dataset.{machine}.{name}: expected a percentage, found "
                    f"{value!r}"
                )


def _unknown(group: Any, names: tuple[str, ...], where: str, *, null: bool = True) -> Iterator[str]:
    """Yield a sentence for the fields that are missing, and one for those not filled in."""
    values = group if isinstance(group, dict) else {}
    if missing := [name for name in names if name not in values]:
        yield f"{where}: expected the fields {', '.join(missing)}, found none of them"
    empty = (UNKNOWN,) if null else (UNKNOWN, None, "")
    if unknown := [name for name in names if name in values and values[name] in empty]:
        rule = " (null where it does not apply)" * null
        yield f"{where}: not filled in: {', '.join(unknown)}{rule}"


def _letters(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if c.isascii() and c.isalpha()).casefold()
