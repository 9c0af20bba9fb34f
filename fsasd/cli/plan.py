"""What ``fsasd plan`` prints: what would be built, what is there, and why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence

import pandas as pd
from rich.table import Table

from fsasd.pipeline.plan import Lookup, Step, estimate
from fsasd.pipeline.stage import Stage
from fsasd.report.console import terminal, titled
from fsasd.report.formatting import size

WIDTH = 120


def print_plan(stages: Sequence[Stage], lookup: Lookup, wanted: Collection[str]) -> pd.DataFrame:
    """Print what a run would do, and what that takes.

    Args:
        stages: Inputs before those that need them.
        lookup: Finds what is in the store.
        wanted: Names of the stages that may be built.

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
    out.print("", _printed(table))
    to_build = table[table["action"] == "build"]
    hours, gigabytes = to_build["hours"].sum(), to_build["gigabytes"].sum()
    unknown = int(to_build["hours"].isna().sum())
    line = f"{len(to_build)} of {len(table)} artifacts to build"
    if len(to_build) > unknown:
        line += f": about {duration(hours)} and {size(1e9 * gigabytes)}"
        line += f", and {unknown} of which nothing is known yet" if unknown else ""
    out.print(line, soft_wrap=True)
    return table


def duration(hours: float) -> str:
    """Write a time in the unit that suits it.

    >>> duration(0), duration(0.004), duration(0.4), duration(12.3), duration(float("nan"))
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
    expected = estimate(step, lookup.store) if action == "build" else None
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


def _printed(rows: pd.DataFrame) -> Table:
    table = titled("The plan")
    for head in ("Stage", "Section", "", "Why"):
        table.add_column(head, overflow="fold")
    for head in ("Time", "Disk"):
        table.add_column(head, justify="right")
    for row in rows.to_dict("records"):
        texts = (row[name] for name in ("stage", "section", "action", "why"))
        table.add_row(*texts, duration(row["hours"]), size(1e9 * row["gigabytes"]))
    return table
