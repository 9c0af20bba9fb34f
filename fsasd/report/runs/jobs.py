"""Runs and the jobs of sweeps as one table: settings, state, costs and metrics of each."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fsasd.evaluation.metrics import OFFICIAL, without_domains
from fsasd.report.headline import headline
from fsasd.report.objective import DIRECTIONS, objective
from fsasd.report.results import FAILED as FAILURES
from fsasd.report.results import Results
from fsasd.report.runs.finetuning import FINETUNED, finetuned
from fsasd.report.runs.status import (
    DONE,
    FAILED,
    INCOMPLETE,
    INTERRUPTED,
    NOT_STARTED,
    RUNNING,
    Status,
    Sweep,
    job_folders,
    jobs_of,
)

MEASURED = [
    "parameters", "training_seconds", "scoring_ms", "auc", *OFFICIAL, "official", "low", "high",
    "objective_value",
    *FINETUNED,
]  # fmt: skip
"""Columns of ``jobs`` with what was measured."""

_FIRST = ["job", "overrides"]
_LAST = ["state", "ended", "seconds", *MEASURED, "failed", "reason", "folder"]


def jobs(*folders: Path) -> pd.DataFrame:
    """Return a row for each run below some folders, and each job of a sweep.

    Args:
        folders: Of runs, of sweeps, or of several.

    Returns:
        ``job``, its folder; ``overrides``, and a column for each of them, with the run's value
        where it was not given; ``state`` (see ``status.STATES``), when it ``ended`` and the
        ``seconds`` it took; ``parameters`` of the largest detector, ``training_seconds`` of all,
        ``scoring_ms`` of a clip; ``auc_source``,
        ``auc_target`` and ``pauc``, means over machines and sections, and ``auc`` of sections whose
        clips have no domain; the ``official`` score and the ends of its interval, ``low`` and
        ``high``; the ``objective_value`` of a search; of a run that fine-tuned, the columns of
        ``finetuning.FINETUNED``; ``failed``, the sections that failed and why, which leave the
        scores of their job undefined; ``reason``, why the job has no result at all. Both are empty
        where nothing failed. ``folder`` is where it is. Fractions; NaN is what is not known.

    Raises:
        ValueError: There is no run below a folder.
    """
    rows = [row for folder in _distinct(folders) for row in _rows(folder, len(folders) > 1)]
    names = dict.fromkeys(name for row in rows for name in row["settings"])
    rows = [
        {"failed": "", "reason": "", "model": "", **row}
        | {name: row["settings"].get(name, _configured(row["results"], name)) for name in names}
        for row in rows
    ]
    return pd.DataFrame(rows, columns=[*_FIRST, *names, *_LAST])


def settings_of(table: pd.DataFrame) -> list[str]:
    """Return the columns of ``jobs`` that hold settings.

    >>> settings_of(pd.DataFrame(columns=[*_FIRST, "detector", "seed", *_LAST]))
    ['detector', 'seed']
    """
    return list(table.columns[len(_FIRST) : table.columns.get_loc(_LAST[0])])


def _distinct(folders: Iterable[Path]) -> list[Path]:
    return list({folder.resolve(): folder for folder in folders}.values())


def _sweeps(folder: Path) -> dict[Path, Sweep]:
    """Sweeps in a folder or one level below it."""
    below = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    return {path: sweep for path in below if (sweep := Sweep.read(path)) is not None}


def _rows(folder: Path, several: bool) -> list[dict[str, Any]]:
    runs = job_folders(folder)
    sweeps = _sweeps(folder)
    if not runs and not sweeps:
        raise ValueError(
            f"{folder}: expected the folder of a run or of a sweep, found no run in it (a run's "
            "folder has a folder .hydra with its configuration)"
        )
    rows, detected = [], any((run / "clips.csv").is_file() for run in runs)
    for run in runs:
        sweep = next((s for path, s in sweeps.items() if path in run.parents), None)
        status = Status.read(run)
        if sweep is not None and not _counts(status, sweep):
            continue
        name = str(run.relative_to(folder)) if run != folder else run.name
        row = _row(run, status.current() if status else None, detected)
        if row is not None:
            rows.append({"job": str(run) if several else name} | row)
    for path, sweep in sweeps.items():
        begun = jobs_of(path, sweep)
        rows += [_not_started(sweep, n) for n in range(sweep.n_jobs) if n not in begun]
    return rows


def _counts(status: Status | None, sweep: Sweep) -> bool:
    """Whether a job in the folder of a sweep is one of it, and not of an earlier sweep there.

    A search goes on with the jobs of its earlier commands, but for those in which one was killed:
    it has repeated them in jobs of its own.
    """
    if status is None or status.sweep == sweep.started:
        return status is not None
    return sweep.jobs is None and status.state not in (RUNNING, INTERRUPTED)


def _row(run: Path, status: Status | None, detected: bool) -> dict[str, Any] | None:
    results = Results(run)
    row: dict[str, Any] = {
        "overrides": " ".join(results.overrides),
        "settings": _named(results.overrides),
        "results": results,
        "state": DONE if status is None else status.state,
        "folder": str(run),
        "ended": _ended(run) if status is None else status.ended,
        "seconds": status.seconds if status is not None and status.ended else math.nan,
    }
    log = f"see {run / 'run.log'}"
    if row["state"] == FAILED:
        assert status is not None
        return row | {"reason": status.reason}
    if row["state"] == RUNNING:
        assert status is not None
        return row | {"reason": f"it runs on {status.host}, {log}"}
    if row["state"] == INTERRUPTED:
        return row | {"reason": f"it was interrupted or killed, {log}"}
    if results.sections or len(results.failed):
        state = INCOMPLETE if len(results.failed) else row["state"]
        return row | {"state": state, "failed": _failures(results)} | _measured(results)
    if finetuned(run):
        return row | _measured(results)
    if status is not None:
        return row
    if detected:
        return row | {"state": INTERRUPTED, "reason": f"it ended without a result, {log}"}
    return None


def _not_started(sweep: Sweep, number: int) -> dict[str, Any]:
    # A search chooses the settings of a job when it starts it.
    overrides = sweep.jobs[number] if sweep.jobs is not None else sweep.overrides
    named = {} if sweep.jobs is None else _named(overrides)
    return {
        "job": str(number), "overrides": " ".join(overrides), "settings": named,
        "folder": "", "results": None, "state": NOT_STARTED, "reason": "it never started",
    }  # fmt: skip


def _ended(run: Path) -> str:
    written = [run / name for name in ("clips.csv", FAILURES, ".hydra")]
    times = [path.stat().st_mtime for path in written if path.exists()]
    return datetime.fromtimestamp(max(times), UTC).isoformat() if times else ""


def _named(overrides: Iterable[str]) -> dict[str, str]:
    """Name to value of overrides, of which the last counts.

    >>> _named(["detector=knn", "+detector.k=02.0", "seed=1e-3", "~callbacks.evaluation"])
    {'detector': 'knn', 'detector.k': '2.0', 'seed': '0.001', '~callbacks.evaluation': ''}
    """
    pairs = (override.partition("=") for override in overrides)
    return {name.lstrip("+"): _canonical(value) for name, _, value in pairs}


def _canonical(value: Any) -> str:
    """Write equal values alike: 1e-3 and 0.001, [a,b] and [a, b]."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    elif isinstance(value, str) and not value.lstrip("+-").isdigit():
        # What reads as an integer stays as it is: 00 is the name of a section.
        try:
            value = float(value)
        except ValueError:
            value = {"True": "true", "False": "false", "null": "", "None": ""}.get(value, value)
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value).replace('"', "")


def _configured(results: Results | None, name: str) -> str:
    """Value of a setting in a run whose command line does not name it; empty if it is unknown."""
    if results is None:
        return ""
    if name in results.choices:
        return results.choices[name]
    value: Any = results.config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if isinstance(value, dict) or "${" in str(value) else _canonical(value)


def _measured(results: Results) -> dict[str, Any]:
    costs, metrics = results.costs, results.metrics
    measured: dict[str, Any] = dict(finetuned(results.folder))
    if (name := results.config.get("objective")) in DIRECTIONS:
        measured["objective_value"] = objective(name, results.folder)
    if not costs.empty:
        measured |= {
            "parameters": costs["parameters"].max(),
            "training_seconds": costs["fit_seconds"].sum(),
            "scoring_ms": costs["score_ms"].mean(),
        }
    official = headline(results)
    if official is not None and not official.failed:
        measured |= {"official": official.score, "low": official.low, "high": official.high}
        mean = metrics[metrics["machine"] == "arithmetic mean"].iloc[0]
        measured |= {name: mean[name] for name in OFFICIAL}
        if (undivided := without_domains(metrics) & metrics["section"].notna()).any():
            measured["auc"] = metrics.loc[undivided, "auc"].mean()
    return measured


def _failures(results: Results) -> str:
    return "; ".join(
        f"{row.machine} section {row.section} in stage {row.stage}: {row.reason}"
        for row in results.failed.itertuples()
    )
