"""What ``fsasd plan`` prints: what would be built, what is there, and why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.table import Table

from fsasd.pipeline.plan import Lookup, Step
from fsasd.pipeline.stage import Stage
from fsasd.report.console import terminal, titled
from fsasd.report.formatting import size

WIDTH = 120

LISTED = 20
"""Sections of a stage that are listed one by one; of more, a row counts those of one action."""

PLAN = "plan.csv"
"""Gets a row for each section where the printed plan has not."""

_NAMED = 3
"""Sections, or reasons, that a row names."""


def print_plan(
    stages: Sequence[Stage], lookup: Lookup, wanted: Collection[str], folder: Path
) -> pd.DataFrame:
    """Print what a run would do, and what that takes.

    Of a stage with many sections, those of one action share a row, and ``plan.csv`` has all.

    Args:
        stages: Inputs before those that need them.
        lookup: Finds what is in the store.
        wanted: Names of the stages that may be built.
        folder: Of the run; gets ``plan.csv`` where sections share a row.

    Returns:
        A row for each stage and section: ``stage``, ``section``, ``action`` (``reuse``, ``build``,
        ``missing`` where it is not among those wanted, and one that is to be built needs it,
        ``not needed`` where none does), ``why``, ``hours`` and ``gigabytes``.
    """
    rows: dict[Stage, dict[str, object]] = {}
    for stage in stages:
        rows[stage] = _row(lookup.step(stage), lookup, wanted, rows)
    _mark_not_needed(rows)
    table = pd.DataFrame(rows.values())
    out = terminal(WIDTH)
    shared = _shared(table)
    out.print("", _printed(shared))
    to_build = table[table["action"] == "build"]
    hours, gigabytes = to_build["hours"].sum(), to_build["gigabytes"].sum()
    unknown = int(to_build["hours"].isna().sum())
    line = f"{len(to_build)} of {len(table)} artifacts to build"
    if len(to_build) > unknown:
        line += f": about {rough_time(hours)} and {size(1e9 * gigabytes)}"
        line += f", and {unknown} of which nothing is known yet" if unknown else ""
    out.print(line, soft_wrap=True)
    if len(shared) < len(table):
        table.to_csv(folder / PLAN, index=False)
        out.print(f"each section: {folder / PLAN}", soft_wrap=True)
    return table


def rough_time(hours: float) -> str:
    """Write an estimated time in the unit that suits it.

    >>> rough_time(0), rough_time(0.004), rough_time(0.4), rough_time(12.3), rough_time(math.nan)
    ('< 1 s', '14 s', '24 min', '12.3 h', '')
    """
    if math.isnan(hours):
        return ""
    for factor, unit in ((1, "h"), (60, "min"), (3600, "s")):
        if hours * factor >= 1:
            return f"{hours * factor:.3g} {unit}" if unit == "h" else f"{hours * factor:.0f} {unit}"
    return "< 1 s"


def _row(
    step: Step, lookup: Lookup, wanted: Collection[str], before: Mapping[Stage, dict[str, object]]
) -> dict[str, object]:
    stage = step.stage
    # What waits for a value is built as soon as that is there, if it is not in the store.
    action = "build" if step.action == "wait" else step.action
    if action == "build" and stage.name not in wanted:
        action = "missing"
    expected = lookup.estimate(step) if action == "build" else None
    return {
        "stage": stage.name,
        "section": str(stage.section or "all machines"),
        "action": action,
        "why": "; ".join(_why(step, before)),
        "hours": expected.hours if expected else math.nan,
        "gigabytes": expected.gigabytes if expected else math.nan,
    }


def _mark_not_needed(rows: Mapping[Stage, dict[str, object]]) -> None:
    """Mark what is not in the store and is read by nothing that is to be built."""
    needed: set[Stage] = set()
    for stage, row in reversed(list(rows.items())):
        if row["action"] == "missing" and stage not in needed:
            row["action"] = "not needed"
        elif row["action"] != "reuse":
            needed.update(one for _, one in stage.input_stages())


def _why(step: Step, before: Mapping[Stage, dict[str, object]]) -> list[str]:
    """Return the reasons that are the stage's own, and which of its inputs are built before it."""
    # The stage's own differences come first; where inputs are listed, the rest are of inputs, too.
    reasons = list(itertools.takewhile(lambda line: not line.startswith("input "), step.why))
    built = {needed.name for _, needed in step.stage.input_stages() if _is_built(needed, before)}
    if built:
        return [*reasons, f"{', '.join(sorted(built))} before it"]
    return list(step.why) or ([] if step.wanted else ["depends on what is chosen"])


def _is_built(stage: Stage, rows: Mapping[Stage, dict[str, object]]) -> bool:
    return stage in rows and rows[stage]["action"] == "build"


def _shared(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for the sections of a stage that have one action, where there are many."""
    shared = []
    for stage, of_stage in rows.groupby("stage", sort=False):
        if len(of_stage) <= LISTED:
            shared += of_stage.to_dict("records")
            continue
        for action, alike in of_stage.groupby("action", sort=False):
            known = alike[["hours", "gigabytes"]].sum(min_count=1)
            shared.append(
                {
                    "stage": stage,
                    "section": _sections(alike["section"]),
                    "action": action,
                    "why": _reasons(alike["why"]),
                    **known.to_dict(),
                }
            )
    return pd.DataFrame(shared)


def _sections(names: pd.Series) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names):,} sections"


def _reasons(reasons: pd.Series) -> str:
    """Return the most frequent reasons, with the number of sections where there are several."""
    counts = reasons[reasons != ""].value_counts()
    if len(counts) == 1 and counts.iloc[0] == len(reasons):
        return str(counts.index[0])
    named = [f"{count:,}: {reason}" for reason, count in counts.head(_NAMED).items()]
    others = int(counts.iloc[_NAMED:].sum())
    return "; ".join([*named, f"{others:,} for other reasons"] if others else named)


def _printed(rows: pd.DataFrame) -> Table:
    table = titled("The plan")
    for head in ("Stage", "Section", "", "Why"):
        table.add_column(head, overflow="fold")
    for head in ("Time", "Disk"):
        table.add_column(head, justify="right")
    for row in rows.to_dict("records"):
        texts = (row[name] for name in ("stage", "section", "action", "why"))
        table.add_row(*texts, rough_time(row["hours"]), size(1e9 * row["gigabytes"]))
    return table
