"""Figures of the comparison of runs, in the style of the report page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fsasd.report.figures import ANOMALY, INK, LINE, MUTED, PAPER, RC, SOURCE, SYNTHETIC, TARGET
from fsasd.report.runs.comparison import RunComparison

MOST = 40
"""Settings, or machines, that a figure shows at most; the tables have all."""

_COLOURS = (SOURCE, TARGET, SYNTHETIC, ANOMALY, INK, MUTED)
_MARKERS = "os^Dv<>Pp*"


def score_intervals(comparison: RunComparison) -> Figure:
    """Draw official scores with their intervals, and differences to the baseline with theirs.

    Args:
        comparison: The runs; the best settings are drawn, ``MOST`` at most.
    """
    known = comparison.table["official"].notna().to_numpy()
    table = comparison.table[known].head(MOST)
    names = [short(s.name) for s, one in zip(comparison.settings, known, strict=True) if one]
    names = names[:MOST]
    panels = 2 if comparison.differences else 1
    with matplotlib.rc_context(RC):
        height = 0.9 + 0.27 * len(names)
        figure = Figure(figsize=(4.2 + 3.1 * (panels - 1), height), layout="constrained")
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
        _intervals(axes[0], table, "official", "low", "high", SYNTHETIC)
        axes[0].set(xlabel="official score, %", yticks=range(len(names)))
        axes[0].set_yticklabels(names, color=INK)
        axes[0].set_title("Score, 95 % interval")
        if panels == 2:
            axes[1].axvline(0, color=INK, linewidth=1, linestyle=(0, (3, 2)), zorder=0)
            _intervals(axes[1], table, "difference", "difference_low", "difference_high", TARGET)
            axes[1].set(xlabel="points of the official score")
            axes[1].set_title("Difference to the baseline")
        axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def machine_dots(machines: pd.DataFrame, order: Sequence[str]) -> Figure:
    """Draw the official score of each machine with each setting, one line per machine.

    Args:
        machines: What ``differences.machine_scores`` returns.
        order: Names of the settings, the best first; as many as there are markers are drawn.
    """
    shown = list(order)[: len(_MARKERS)]
    lines = list(dict.fromkeys(machines["machine"]))[:MOST]
    rows = math.ceil(len(shown) / 2)
    with matplotlib.rc_context(RC):
        height = 0.9 + 0.19 * rows + 0.27 * len(lines)
        figure = Figure(figsize=(6.2, height), layout="constrained")
        axis = figure.subplots()
        places = np.arange(len(lines))
        axis.hlines(places, 0, 1, color=LINE, linewidth=0.6, zorder=0,
                    transform=axis.get_yaxis_transform())  # fmt: skip
        for number, name in enumerate(shown):
            scores = machines[machines["setting"] == name].set_index("machine")["official"]
            colour = _COLOURS[number % len(_COLOURS)]
            axis.plot(100 * scores.reindex(lines), places, _MARKERS[number], color=colour,
                      markerfacecolor=colour if number == 0 else PAPER, markersize=6,
                      label=short(name, 44))  # fmt: skip
        axis.set_yticks(places, lines, color=INK)
        axis.set(ylim=(len(lines) - 0.5, -0.5), xlabel="official score, %")
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2)
    return figure


def losses(comparison: RunComparison) -> Figure:
    """Draw the lowest validation loss of each setting, and the last one.

    Args:
        comparison: The runs, of which some were fine-tuned.
    """
    table = comparison.table
    known = table["val_loss"].notna().to_numpy()
    table = table[known].head(MOST)
    names = [short(s.name) for s, one in zip(comparison.settings, known, strict=True) if one]
    places = np.arange(len(table))
    with matplotlib.rc_context(RC):
        height = 1.1 + 0.27 * len(table)
        figure = Figure(figsize=(5.2, height), layout="constrained")
        axis = figure.subplots()
        axis.hlines(places, table["val_loss"], table["val_loss_last"], color=LINE, zorder=0)
        axis.plot(table["val_loss"], places, "o", color=SYNTHETIC, label="lowest")
        axis.plot(table["val_loss_last"], places, "o", color=MUTED, markerfacecolor=PAPER,
                  zorder=1, label="last")  # fmt: skip
        axis.set_yticks(places, names[:MOST], color=INK)
        axis.set(ylim=(len(table) - 0.5, -0.5), xlabel="val/loss")
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def short(name: str, length: int = 40) -> str:
    """Shorten the name of a setting for a figure.

    >>> short("detector=knn", 8)
    'detecto…'
    """
    return name if len(name) <= length else name[: length - 1] + "…"


def _intervals(
    axis: Axes, table: pd.DataFrame, value: str, low: str, high: str, colour: str
) -> None:
    places = np.arange(len(table))
    axis.hlines(
        places, 100 * table[low], 100 * table[high], color=colour, linewidth=2.2, alpha=0.45
    )
    axis.plot(100 * table[value], places, "o", color=colour, markersize=5)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
