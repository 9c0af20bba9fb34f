"""The comparison of runs on the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from fsasd.report.console import terminal, titled
from fsasd.report.formatting import UNDEFINED, decimal, duration, interval, percent, points, span
from fsasd.report.objective import DIRECTIONS
from fsasd.report.results import metric_titles
from fsasd.report.runs.comparison import RunComparison, is_finetuned, is_scored
from fsasd.report.runs.jobs import settings_of
from fsasd.report.runs.settings import Setting
from fsasd.report.runs.status import NOT_STARTED

_WIDTH = 120
_HEADS = {
    "AUC source": "AUC\nsource", "AUC target": "AUC\ntarget", "95 % interval": "95 %\ninterval",
    "Official score, %": "Official\nscore, %", "Its 95 % interval": "95 %\ninterval",
}  # fmt: skip
"""Titles in two lines, so that numbers have room."""

_FIRST_NUMBERS = {"Parameters", "Training", "AUC", "AUC source", "pAUC", "Official score, %",
                  "val/loss"}  # fmt: skip
_LEAST = ("Scoring", "Training", "Parameters", "95 % interval", "AUC source", "AUC target", "pAUC",
          "Model", "Steps", "Second")  # fmt: skip
"""Columns that matter least first."""


def with_deviation(mean: float, deviation: float, form: Callable[[float], str] = percent) -> str:
    """Format a mean over seeds, with the standard deviation where there are several.

    >>> with_deviation(0.81, 0.0141), with_deviation(0.81, float("nan"))
    ('81.0 ± 1.4', '81.0')
    """
    return form(mean) if math.isnan(deviation) else f"{form(mean)} ± {form(deviation)}"


def formatted(comparison: RunComparison) -> pd.DataFrame:
    """Return the table of settings that were scored as text, the best first.

    Args:
        comparison: The runs.
    """
    areas = metric_titles(comparison.table, decided=False)
    objective = comparison.objective
    is_loss = objective is not None and DIRECTIONS[objective] == "minimize"
    rows = []
    for cells, setting, row in _rows(comparison, is_scored):
        cells |= {
            "Parameters": _number(row["parameters"], "{:,.0f}"),
            "Training": _number(row["training_seconds"], "{:.1f} s"),
            "Scoring": _number(row["scoring_ms"], "{:.1f} ms"),
        }
        if objective is not None:
            value, deviation = row["objective_value"], row["objective_value_std"]
            cells["Objective"] = with_deviation(value, deviation, decimal if is_loss else percent)
        cells |= {title: percent(row[name]) for name, title in areas.items()}
        cells["Official score, %"] = with_deviation(row["official"], row["official_std"])
        cells["95 % interval"] = span(row["low"], row["high"])
        if comparison.differences:
            low, high = row["difference_low"], row["difference_high"]
            is_baseline = setting is comparison.baseline
            cells["Difference"] = "baseline" if is_baseline else points(row["difference"])
            cells["Its 95 % interval"] = "" if is_baseline else interval(low, high)
        rows.append(cells | {"Jobs": str(row["jobs"])})
    return pd.DataFrame(rows)


def formatted_finetuning(comparison: RunComparison) -> pd.DataFrame:
    """Return the table of settings that were fine-tuned as text, the lowest loss first.

    Args:
        comparison: The runs.
    """
    rows = []
    for cells, _, row in _rows(comparison, is_finetuned):
        rows.append(cells | {
            "val/loss": with_deviation(row["val_loss"], row["val_loss_std"], decimal),
            "at step": _number(row["best_step"], "{:,.0f}"),
            "Last": with_deviation(row["val_loss_last"], row["val_loss_last_std"], decimal),
            "Steps": _number(row["steps"], "{:,.0f}"),
            "Time": duration(row["finetuning_seconds"]),
            "Model": str(row["model"]),
            "Jobs": str(row["jobs"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def formatted_best(comparison: RunComparison) -> pd.DataFrame:
    """Return the best setting of each machine as text.

    Args:
        comparison: The runs.
    """
    rows = []
    for row in comparison.best.to_dict("records"):
        several = bool(row["second"])
        rows.append({
            "Machine": row["machine"], "Best": row["setting"],
            "Official score, %": percent(row["official"]), "Second": row["second"],
            "Difference": points(row["difference"]) if several else "",
            "Its 95 % interval": interval(row["low"], row["high"]) if several else "",
            "Verdict": row["verdict"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def print_comparison(comparison: RunComparison, title: str, machines: bool = False) -> None:
    """Print the settings, the best first, and in words which of them differ.

    Args:
        comparison: The runs.
        title: Of the table.
        machines: Whether the best setting of each machine is printed, too.
    """
    out = terminal(_WIDTH)
    if comparison.is_scored:
        _show(title, formatted(comparison))
        for sentence in comparison.verdicts():
            out.print(Text(sentence), soft_wrap=True)
    if comparison.is_finetuned:
        _show("Fine-tuning", formatted_finetuning(comparison))
    if machines and comparison.is_scored and len(comparison.best):
        _show("Best setting per machine", formatted_best(comparison))
    for note in comparison.notes:
        out.print(Text(f"Note: {note}."), soft_wrap=True)


def _rows(
    comparison: RunComparison, shown: Callable[[Setting], bool]
) -> Iterator[tuple[dict[str, str], Setting, dict[str, Any]]]:
    """Yield what names a setting, the setting, and its row of the table."""
    table = zip(comparison.settings, comparison.table.to_dict("records"), strict=True)
    pairs = [(setting, row) for setting, row in table if shown(setting)]
    names = [n for n in pairs[0][0].choices if len({s.choices[n] for s, _ in pairs}) > 1]
    for setting, row in pairs:
        cells = {name: setting.choices[name] for name in names}
        yield cells or {"Setting": setting.name}, setting, {str(k): v for k, v in row.items()}


def print_missing(comparison: RunComparison) -> None:
    """Print on standard error which jobs have no result, or not all of it, and why.

    Args:
        comparison: The runs.
    """
    table = comparison.jobs
    lines = []
    # A sweep that was refused before its first job has said why.
    if len(without := table[table["reason"] != ""]) and set(table["state"]) != {NOT_STARTED}:
        begun = without[without["state"] != NOT_STARTED]
        lines += ["", f"{len(without)} of {len(table)} jobs have no result:"]
        lines += [f"  {title}: {begun['reason'][job]}" for job, title in _titles(table, begun)]
        if waiting := len(without) - len(begun):
            lines.append(f"  {waiting} never started")
    if len(partial := table[table["failed"] != ""]):
        done = len(table) - len(without)
        lines += [
            "",
            f"In {len(partial)} of {done} jobs sections failed; their scores are undefined:",
        ]
        lines += [f"  {title}: {partial['failed'][job]}" for job, title in _titles(table, partial)]
    if lines:
        print(*lines, sep="\n", file=sys.stderr, flush=True)


def _titles(table: pd.DataFrame, jobs: pd.DataFrame) -> Iterator[tuple[Any, str]]:
    """Yield the index of some jobs of a table, and the settings that distinguish them in it."""
    names = [name for name in settings_of(table) if len({*map(str, table[name])}) > 1]
    for index, row in jobs.iterrows():
        yield index, " ".join(f"{name}={row[name]}" for name in names) or row["overrides"]


def _number(value: float, form: str) -> str:
    return UNDEFINED if math.isnan(value) else form.format(value)


def _printed(title: str, text: pd.DataFrame) -> Table:
    table = titled(title)
    names = list(text.columns)
    first = min(map(names.index, _FIRST_NUMBERS & set(names)))
    for place, name in enumerate(names):
        if place < first or name in ("Model", "Second", "Verdict"):
            # Settings may be long.
            table.add_column(name, overflow="fold", min_width=min(text[name].map(len).max(), 12))
        else:
            table.add_column(_HEADS.get(name, name), justify="right", no_wrap=True)
    for row in text.itertuples(index=False):
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def _show(title: str, text: pd.DataFrame) -> None:
    """Print a table; on a narrow terminal without the columns that matter least.

    Elsewhere it is as wide as it needs to be.
    """
    out = terminal(_WIDTH)
    unlimited = out.options.update(width=10_000)
    dropped = iter(_LEAST)
    table = _printed(title, text)
    while (width := out.measure(table, options=unlimited).maximum) > out.width:
        if not out.is_terminal:
            out = terminal(width)
        elif name := next(dropped, ""):
            text = text.drop(columns=name, errors="ignore")
            table = _printed(title, text)
        else:
            break
    out.print("", table)
