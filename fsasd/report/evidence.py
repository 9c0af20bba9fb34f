"""Why a section has its setting, in words: what each source of evidence contributed."""

from __future__ import annotations

import json

import pandas as pd

from fsasd.report.formatting import interval, points
from fsasd.selection.sources import ALL

NAMED = 3
"""Reference machines of a source that are named, those of the largest shares."""


def explanation(sources: pd.DataFrame) -> str:
    """Explain the choice of a section's setting; empty where there was one source alone.

    Args:
        sources: Rows of ``sources.csv`` of one machine and section.

    >>> explanation(pd.DataFrame({
    ...     "source": ["references", "synthetic", "all"], "weight": [0.5, 0.1, None],
    ...     "gain": [0.02, 0.0, 0.03], "low": [None, None, -0.01], "high": [None, None, 0.07],
    ...     "best": ["r=0.9", "", "r=0.93"], "reason": ["", "too few clips", ""],
    ...     "origins": ['{"pump section 00": 0.7, "fan section 00": 0.3}', "{}", ""],
    ...     "details": ["", "", ""]}))
    ... # doctest: +NORMALIZE_WHITESPACE
    'r=0.93 is expected to gain +3.0 points over the default (95 % interval −1.0 to +7.0, not
    sure): references +2.0 (weight 0.50; pump 0.70, fan 0.30; alone r=0.9). Nothing from synthetic:
    too few clips'
    """
    if sources.empty:
        return ""
    (total,) = sources[sources["source"] == ALL].to_dict("records")
    rows = sources[sources["source"] != ALL].fillna(
        {"reason": "", "best": "", "origins": "{}", "details": ""}
    )
    speaking = rows[rows["reason"] == ""].sort_values("gain", ascending=False, kind="stable")
    contributions = "; ".join(_contribution(row) for row in speaking.to_dict("records"))
    without = rows[rows["reason"] != ""].to_dict("records")
    silent = [f"{row['source']}: {row['reason']}" for row in without]
    text = f"{total['best']} {_expected(total)}: {contributions or 'no source says anything'}"
    return text + (f". Nothing from {'; nor from '.join(silent)}" if silent else "")


def _expected(total: dict) -> str:
    if pd.isna(total["gain"]):
        return "is used"
    sure = "sure" if total["low"] > 0 else "not sure"
    return (
        f"is expected to gain {points(total['gain'])} points over the default (95 % interval "
        f"{interval(total['low'], total['high'])}, {sure})"
    )


def _contribution(row: dict) -> str:
    shares = sorted(json.loads(row["origins"]).items(), key=lambda item: -item[1])
    named = ", ".join(
        f"{name.removesuffix(' section 00')} {share:.2f}" for name, share in shares[:NAMED]
    )
    more = f" and {len(shares) - NAMED} more" if len(shares) > NAMED else ""
    weight, alone = f"weight {row['weight']:.2f}", f"alone {row['best']}"
    details = "; ".join(filter(None, [weight, named + more, row["details"], alone]))
    return f"{row['source']} {points(row['gain'])} ({details})"
