"""The number of a run that a sweeper optimises, by its name, read from the run's folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from fsasd.generation.training import Training
from fsasd.report.headline import headline
from fsasd.report.results import Results


def objective(name: str, folder: str | Path) -> float:
    """Return what a sweeper optimises.

    Args:
        name: One of ``DIRECTIONS``.
        folder: The run's folder.

    Returns:
        ``validation/objective``: the mean over reference machines' sections of what the setting
        chosen on synthetic clips alone is worth on their real anomalies (``validation.csv``).
        ``synthetic/objective``: the mean over target machines' sections of the chosen setting's
        objective on synthetic clips (``selection.csv``). ``val/loss``: of the weights that
        fine-tuning kept. ``official``: the official score, which needs the labels of test clips.
        NaN where it is not known. That is so, too, where a section failed, since the mean over the
        others would favour settings that fail on difficult machines; a loss is of no section.
    """
    return _READ[name](Results(folder))


def _validation(results: Results) -> float:
    table = results.validation
    if table.empty or len(results.failed):
        return math.nan
    return float(table.loc[table["machine"] == "mean", "objective"].iloc[0])


def _synthetic(results: Results) -> float:
    table = results.selection
    if table.empty or len(results.failed):
        return math.nan
    return float(table.loc[table["chosen"], "objective"].mean(skipna=False))


def _loss(results: Results) -> float:
    training = Training.read(results.folder)
    return math.nan if training is None or training.loss is None else training.loss


def _official(results: Results) -> float:
    official = headline(results)
    return math.nan if official is None or results.failed_targets else official.score


_READ: dict[str, Callable[[Results], float]] = {
    "validation/objective": _validation,
    "synthetic/objective": _synthetic,
    "val/loss": _loss,
    "official": _official,
}

DIRECTIONS = {name: "minimize" if name == "val/loss" else "maximize" for name in _READ}
"""Name of an objective to what a sweeper does with it."""
