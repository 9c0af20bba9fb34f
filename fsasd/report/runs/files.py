"""The comparison of runs as files: CSV, Markdown, LaTeX and one HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fsasd.report.runs.comparison import RunComparison
from fsasd.report.runs.console import formatted, formatted_best, formatted_finetuning
from fsasd.report.runs.page import write_page
from fsasd.store.atomic import write_text

_TITLES = {"scores": "Official scores", "finetuning": "Fine-tuning", "best": "Best per machine"}
_SIGNS = {"−": "$-$", "±": "$\\pm$", "—": "--"}


def write_comparison(comparison: RunComparison, folder: Path) -> list[Path]:
    """Write a comparison into a folder: tables for people and for programs, and a page.

    Args:
        comparison: The runs.
        folder: Where to; it is made if it does not exist.

    Returns:
        The files: ``comparison.html``, ``comparison.md``, ``comparison.tex``, ``comparison.csv`` (a
        row per setting), ``jobs.csv`` (as ``sweep.csv``), ``machines.csv`` (a row per machine and
        setting).
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = tables(comparison)
    paths = [write_page(comparison, folder / "comparison.html")]
    for name, write in (("comparison.md", markdown), ("comparison.tex", latex)):
        write_text(folder / name, write(texts, comparison))
        paths.append(folder / name)
    frames = {"comparison": comparison.table, "jobs": comparison.jobs}
    if comparison.is_scored:
        frames["machines"] = comparison.machines
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
        paths.append(folder / f"{name}.csv")
    return paths


def tables(comparison: RunComparison) -> dict[str, pd.DataFrame]:
    """Return the tables of a comparison as text: ``scores``, ``finetuning`` and ``best``.

    Args:
        comparison: The runs.
    """
    texts = {}
    if comparison.is_scored:
        texts["scores"] = formatted(comparison)
    if comparison.is_finetuned:
        texts["finetuning"] = formatted_finetuning(comparison)
    if comparison.is_scored and len(comparison.best):
        texts["best"] = formatted_best(comparison)
    return texts


def markdown(texts: dict[str, pd.DataFrame], comparison: RunComparison) -> str:
    """Write tables in Markdown, with what they say in words.

    Args:
        texts: What ``tables`` returns.
        comparison: The runs.
    """
    lines = [comparison.states + ".", ""]
    for name, text in texts.items():
        lines += [f"## {_TITLES[name]}", "", _row(text.columns), _row(["---"] * text.shape[1])]
        lines += [_row(row) for row in text.itertuples(index=False)]
        lines.append("")
        if name == "scores":
            lines += [f"{sentence}\n" for sentence in comparison.verdicts()]
    lines += [f"- {note}." for note in comparison.notes]
    return "\n".join(lines).rstrip() + "\n"


def latex(texts: dict[str, pd.DataFrame], comparison: RunComparison) -> str:
    """Write tables in LaTeX, with the rules of booktabs.

    Args:
        texts: What ``tables`` returns.
        comparison: The runs.
    """
    parts = ["% \\usepackage{booktabs}"]
    for name, text in texts.items():
        numbers = [_is_number(text[column]) for column in text]
        body = "".join("r" if number else "l" for number in numbers)
        table = text.to_latex(index=False, escape=True, column_format=body)
        for sign, command in _SIGNS.items():
            table = table.replace(sign, command)
        caption = "" if name != "scores" else "".join(f"% {v}\n" for v in comparison.verdicts())
        parts.append(f"% {_TITLES[name]}\n{caption}{table}")
    return "\n".join(parts)


def _row(cells: Iterable[object]) -> str:
    escaped = (str(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _is_number(column: pd.Series) -> bool:
    return bool(column.str.match(r"^[−+\d—]|^$|^baseline$").all())
