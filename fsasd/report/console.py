"""The results of a run on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fsasd.report.comparison import SETTING_TITLES, compare_settings
from fsasd.report.evidence import explanation
from fsasd.report.formatting import UNDEFINED, interval, percent, points, signed
from fsasd.report.headline import Headline, headline
from fsasd.report.results import Results, metric_titles, rows_of
from fsasd.report.tables import readable
from fsasd.report.validation import gain_with_site

LISTED = 100
"""Sections that are listed one by one; of more, the means."""

_WIDTH = 100
_OUTPUTS = {
    "report.html": "report",
    "metrics.csv": "metrics",
    "scores": "scores",
    "failed.csv": "failed",
    "unreadable.csv": "unreadable",
    "models": "models",
    "synthetic": "synthetic clips",
    "model": "generator",
}
_NOTES = {
    "synthetic": "chosen, or the default",
    "argmax": "on synthetic clips, the paper's rule",
    "oracle": "best objective on the test labels",
}


def console(folder: Path) -> None:
    """Print the metrics of a run, what the choice of settings gained, what failed, and where.

    Args:
        folder: The run's folder; every file in it is optional, and tables may have rows of some
            sections only.
    """
    results = Results(folder)
    out = terminal()
    official = headline(results)
    if results.sections:
        out.print(_metrics(results))
    if official:
        out.print(_official(official), soft_wrap=True)
    elif results.sections:
        out.print("Official score: not known, because the labels of the test clips are not.")
    reasons = {section: results.abstain_reason(section) for section in results.sections}
    abstained = {section: reason for section, reason in reasons.items() if reason}
    for section, reason in abstained.items() if len(reasons) <= LISTED else ():
        setting = results.setting(section)
        out.print(Text(f"{section}: default setting {setting}: {reason}.", style="dim"))
    if abstained and len(reasons) > LISTED:
        text = f"{len(abstained):,} of {len(reasons):,} sections keep the default setting"
        out.print(Text(f"{text}: see the column abstain_reason of selection.csv.", style="dim"))
    for section in results.sections if len(reasons) <= LISTED else ():
        if text := explanation(results.rows("sources", *section)):
            out.print(Text(f"{section}: {text}.", style="dim"), soft_wrap=True)
    if not results.settings.empty:
        out.print(_settings(compare_settings(results.settings, results.setting_scores)))
    if not results.validation.empty:
        out.print(_validation(results.validation))
        if text := gain_with_site(results.validation):
            out.print(text, soft_wrap=True)
    for number, table in results.tables.items():
        out.print(_paper(number, table))
    for row in results.failed.itertuples():
        line = f"FAILED {row.machine} section {row.section} in stage {row.stage}: {row.reason}"
        out.print(Text(line), soft_wrap=True)
    for name, what in _OUTPUTS.items():
        if (results.folder / name).exists():
            note = " (incomplete)" if name == "scores" and results.missing_scores else ""
            out.print(f"{what + ':':<16} {results.folder / name}{note}", soft_wrap=True)


def _metrics(results: Results) -> Table:
    many = len(results.sections) > LISTED
    name = f"Over {len(results.sections):,} sections (each is in metrics.csv), %"
    title = name if many else "Per machine and section, %"
    table = titled(title, "Machine", "Section", "Setting")
    titles = metric_titles(results.metrics[results.metrics["section"].notna()])
    for name in titles.values():
        table.add_column(name, justify="right")
    for section in [] if many else results.sections:
        rows = results.rows("metrics", *section)
        table.add_row(*map(Text, (*section, results.setting(section))), *_cells(rows, titles))
    means = results.metrics[results.metrics["machine"].isin(["arithmetic mean", "harmonic mean"])]
    if len(means) and not many:
        table.add_section()
    for machine in means["machine"]:
        table.add_row(Text(machine), "", "", *_cells(rows_of(means, machine), titles), style="dim")
    return table


def _cells(rows: pd.DataFrame, names: Iterable[str]) -> list[str]:
    return [UNDEFINED if rows.empty else percent(rows[name].iloc[0]) for name in names]


def _official(official: Headline) -> Text:
    text = Text("Official score: ")
    text.append(f"{percent(official.score)} %", style="bold")
    text.append(f" over {official.over}, ")
    text.append(f"95 % interval {percent(official.low)} to {percent(official.high)} %")
    text.append(f"; {official.undefined or 'none'} of {official.n_metrics} values undefined")
    return text


def _settings(comparison: pd.DataFrame) -> Table:
    table = titled("Was the choice of setting worth it? Official score, %", "Setting")
    for name in ("Official", "Difference", "95 % interval"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in comparison.to_dict("records"):
        name = row["setting"]
        style = "bold" if name == "synthetic" else "dim" if name == "oracle" else ""
        difference = ["", ""]
        if name != "synthetic":
            difference = [points(row["difference"]), interval(row["low"], row["high"])]
        shown = SETTING_TITLES.get(name, name)
        official = percent(row["official"])
        table.add_row(Text(shown), official, *difference, _NOTES.get(name, ""), style=style)
    return table


def _validation(validation: pd.DataFrame) -> Table:
    table = titled(
        "Leave-one-machine-out validation, objective in points",
        "Machine", "Setting",
    )  # fmt: skip
    for name in ("Gain", "95 % interval", "Regret", "Rank correlation"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in validation.to_dict("records"):
        mean = row["machine"] == "mean"
        if mean:
            table.add_section()
        strict = mean or str(row["strict"]) == "True"
        table.add_row(
            Text(str(row["machine"])), "" if mean else Text(str(row["chosen"])),
            points(row["gain"]), interval(row["gain_low"], row["gain_high"]),
            points(row["regret"]), signed(row["spearman"]),
            "" if strict else "generator trained on its anomalies", style="bold" if mean else "",
        )  # fmt: skip
    return table


def _paper(number: int, rows: pd.DataFrame) -> Table:
    text = readable(number, rows)
    table = titled(f"Table {number} of the paper", "Row", "Column")
    for name in text.columns[2:]:
        table.add_column(name, justify="right")
    for row in text.itertuples(index=False):
        table.add_row(*map(Text, row))
    return table


def terminal(width: int = _WIDTH) -> Console:
    """Return a console for standard output.

    Args:
        width: Columns where standard output is no terminal, which has a width of its own.
    """
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=width)


def titled(title: str, *columns: str) -> Table:
    """Return an empty table in the style of all of them."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table
