"""The comparison of runs as one HTML page: self-contained, and sortable by its script."""

from __future__ import annotations

import math
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from fsasd.report.figures import svg
from fsasd.report.runs import figures
from fsasd.report.runs.comparison import RunComparison, is_scored
from fsasd.report.runs.console import formatted, formatted_best, formatted_finetuning
from fsasd.report.runs.status import STATES
from fsasd.report.templates import environment
from fsasd.store.atomic import write_text

MOST_JOBS = 2000
"""Rows of the table of jobs; ``jobs.csv`` has all."""


def write_page(comparison: RunComparison, path: Path) -> Path:
    """Write the page of a comparison.

    Args:
        comparison: The runs.
        path: Of the page.

    Returns:
        The page.
    """
    scored, finetuned = comparison.is_scored, comparison.is_finetuned
    has_scores = scored and comparison.baseline is not None
    page = (
        environment()
        .get_template("runs/comparison.html")
        .render(
            name="Comparison",
            title="",
            comparison=comparison,
            best_setting=comparison.settings[0] if comparison.settings else None,
            top=comparison.table.iloc[0].to_dict() if comparison.settings else {},
            scores=_sortable(formatted(comparison)) if scored else None,
            finetuning=_sortable(formatted_finetuning(comparison)) if finetuned else None,
            best=_sortable(formatted_best(comparison)) if has_scores else None,
            intervals=_svg(figures.score_intervals(comparison), "intervals")
            if has_scores
            else None,
            dots=_dots(comparison) if has_scores else None,
            losses=_losses(comparison) if finetuned else None,
            most=figures.MOST,
            jobs=comparison.jobs.head(MOST_JOBS),
            more_jobs=max(len(comparison.jobs) - MOST_JOBS, 0),
            order=list(STATES),
            date=f"{datetime.now():%Y-%m-%d %H:%M}",
            version=metadata.version("fsasd"),
        )
    )
    write_text(path, page)
    return path


def _sortable(text: pd.DataFrame) -> dict[str, Any]:
    """A table's titles, and its rows of pairs: a cell's text, and whether it is a number."""
    rows = [
        [(str(cell), _starts_as_number(str(cell))) for cell in row]
        for row in text.itertuples(index=False)
    ]
    columns = zip(*rows, strict=True)
    numeric = [all(number or cell in ("", "baseline") for cell, number in c) for c in columns]
    # The first column names the row.
    numeric[0] = False
    return {"titles": list(zip(text.columns, numeric, strict=True)), "rows": rows}


def _starts_as_number(cell: str) -> bool:
    return cell[:1] in "−+—0123456789" and cell != ""


def _dots(comparison: RunComparison) -> Markup | None:
    if comparison.machines["machine"].nunique() < 2 or len(comparison.settings) < 2:
        return None
    order = [setting.name for setting in comparison.settings if is_scored(setting)]
    return _svg(figures.machine_dots(comparison.machines, order), "machines")


def _losses(comparison: RunComparison) -> Markup | None:
    known = any(not math.isnan(setting.mean("val_loss")) for setting in comparison.settings)
    return _svg(figures.losses(comparison), "losses") if known else None


def _svg(figure: Any, name: str) -> Markup:
    # Written by matplotlib, which escapes the text in it.
    return Markup(svg(figure, name))
