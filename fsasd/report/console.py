"""What a run has to say when it ends, on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fsasd.report.results import (
    UNDEFINED,
    Headline,
    Results,
    compare_settings,
    headline,
    metric_titles,
    of,
    percent,
    points,
)
from fsasd.report.tables import readable

_WIDTH = 100
_LEFT = {
    "report.html": "report",
    "metrics.csv": "metrics",
    "scores": "scores",
    "unreadable.csv": "not read",
    "models": "models",
    "synthetic": "synthetic clips",
    "model": "generator",
}


def console(folder: Path) -> float | None:
    """Print the metrics of a run, what the choice of settings was worth and where things are.

    Args:
        folder: The run's folder; every file in it is optional.

    Returns:
        The official score, a fraction; ``None`` where the test labels are not known, nothing was
        detected or no metric is defined.
    """
    results = Results(folder)
    out = terminal()
    found = headline(results.metrics)
    if results.units:
        out.print(_sections(results))
    if found:
        out.print(_official(found))
    elif results.units:
        out.print("Official score: not known, as the labels of the test clips are not.")
    for unit in results.units:
        if reason := results.reason(*unit):
            setting = results.setting(*unit)
            out.print(Text(f"{' '.join(unit)} keeps {setting}: {reason}.", style="dim"))
    if not results.settings.empty:
        out.print(_settings(compare_settings(results.settings, results.setting_scores)))
    if not results.validation.empty:
        out.print(_validation(results.validation))
    for number, made in results.tables.items():
        out.print(_paper(number, made))
    for name, what in _LEFT.items():
        if (results.folder / name).exists():
            out.print(f"{what + ':':<16} {results.folder / name}", soft_wrap=True)
    return None if found is None or math.isnan(found.score) else found.score


def _sections(results: Results) -> Table:
    table = titled("Per machine and section, %", "Machine", "Section", "Setting")
    titles = metric_titles(results.metrics[results.metrics["section"].notna()])
    for name in titles.values():
        table.add_column(name, justify="right")
    for machine, section in results.units:
        rows = of(results.metrics, machine, section)
        setting = results.setting(machine, section)
        table.add_row(Text(machine), Text(section), Text(setting), *_cells(rows, titles))
    means = results.metrics[results.metrics["machine"].isin(["arithmetic mean", "harmonic mean"])]
    if len(means):
        table.add_section()
    for machine in means["machine"]:
        table.add_row(Text(machine), "", "", *_cells(of(means, machine), titles), style="dim")
    return table


def _cells(rows: pd.DataFrame, names: Iterable[str]) -> list[str]:
    return [UNDEFINED if rows.empty else percent(rows[name].iloc[0]) for name in names]


def _official(found: Headline) -> Text:
    text = Text("Official score: ")
    text.append(f"{percent(found.score)} %", style="bold")
    text.append(f", 95 % interval {percent(found.low)} to {percent(found.high)} %")
    text.append(f"; {found.undefined or 'none'} of {found.cells} cells undefined")
    return text


def _settings(comparison: pd.DataFrame) -> Table:
    table = titled("Was the choice worth it? Official score, %", "Setting")
    table.add_column("Official", justify="right")
    table.add_column("To synthetic", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("")
    notes = {
        "synthetic": "the method's choice",
        "argmax": "the paper's choice, where in doubt, too",
        "oracle": "best objective on the test labels",
    }
    for row in comparison.to_dict("records"):
        name = row["setting"]
        style = "bold" if name == "synthetic" else "dim" if name == "oracle" else ""
        against = ["", ""]
        if name != "synthetic":
            against = [points(row["difference"]), _between(row["low"], row["high"])]
        table.add_row(
            Text(name), percent(row["official"]), *against, notes.get(name, ""), style=style
        )
    return table


def _validation(validation: pd.DataFrame) -> Table:
    table = titled("Reference machines as targets: what synthetic clips chose", "Machine", "Chosen")
    for name in ("Gain", "95 % interval", "Regret", "Rank correlation"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in validation.to_dict("records"):
        mean = row["machine"] == "mean"
        if mean:
            table.add_section()
        strict = "" if mean or str(row["strict"]) == "True" else "the generator knows its anomalies"
        unknown = math.isnan(row["spearman"])
        table.add_row(
            Text(str(row["machine"])), "" if mean else Text(str(row["chosen"])),
            points(row["gain"]), _between(row["gain_low"], row["gain_high"]),
            points(row["regret"]), UNDEFINED if unknown else f"{row['spearman']:+.2f}", strict,
            style="bold" if mean else "",
        )  # fmt: skip
    return table


def _paper(number: int, made: pd.DataFrame) -> Table:
    text = readable(number, made)
    table = titled(f"Table {number} of the paper", "Row", "Column")
    for name in text.columns[2:]:
        table.add_column(name, justify="right")
    for row in text.itertuples(index=False):
        table.add_row(*map(Text, row))
    return table


def _between(low: float, high: float) -> str:
    return UNDEFINED if math.isnan(low) else f"{points(low)} to {points(high)}"


def terminal(width: int = _WIDTH) -> Console:
    """Return where to print to; what is no terminal is as wide as is said."""
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=width)


def titled(title: str, *columns: str) -> Table:
    """Return an empty table as all of them look."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table
