"""The trainings of a run on its page: losses, speed and memory, as ``logger=csv`` has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fsasd.generation.training import Training
from fsasd.report import figures
from fsasd.report.figures import MUTED, PAPER, RC, SOURCE, SYNTHETIC

TRAIN_LOSS, VAL_LOSS = "train/loss", "val/loss"
_TITLES = {
    "finetune": "Fine-tuning of the generator",
    "train": "Network that the detectors of all machines share",
}
"""Folders of logs in a run's ``log/``; below ``train`` is one for each network."""


@dataclass(frozen=True)
class TrainingPart:
    """One training on the page.

    Attributes:
        title: What was trained.
        facts: What is known of it, by names.
        picture: Its losses against the step.
        is_validated: Whether a validation loss is among them.
    """

    title: str
    facts: dict[str, str]
    picture: Markup
    is_validated: bool


def read_log(log: Path) -> pd.DataFrame:
    """Read what ``logger=csv`` logged of a training.

    Args:
        log: The folder of the log.

    Returns:
        A row for each step at which something was logged; ``step`` counts from 1. Empty without a
        log.
    """
    # A training that was resumed has a folder for each time it ran.
    parts = sorted(log.rglob("metrics.csv"), key=lambda path: (len(path.parent.name), path))
    if not parts:
        return pd.DataFrame(columns=["step"])
    table = pd.concat([pd.read_csv(part) for part in parts], ignore_index=True)
    # Of a step that was logged before and after an interruption, the last values count.
    return table.groupby("step", as_index=False).last().assign(step=lambda rows: rows["step"] + 1)


def trainings(folder: Path) -> list[TrainingPart]:
    """Return the trainings of a run that logged a loss.

    Args:
        folder: The run's folder.
    """
    return [
        _part(_TITLES[kind], read_log(log), Training.read(folder) if kind == "finetune" else None,
              f"{kind}-{number}")
        for number, (kind, log) in enumerate(_logs(folder))
        if TRAIN_LOSS in read_log(log)
    ]  # fmt: skip


def loss_curves(log: pd.DataFrame, kept: Training | None = None) -> Figure:
    """Draw the losses of a training against its steps.

    Args:
        log: What ``read_log`` returns.
        kept: The weights that were kept, which are marked.
    """
    train = log.dropna(subset=[TRAIN_LOSS])
    # The loss of a step is of one batch: a mean over a twentieth of all says where it goes.
    width = max(len(train) // 20, 1)
    smooth = train[TRAIN_LOSS].rolling(width, center=True, min_periods=1).mean()
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        axis = figure.subplots()
        axis.plot(train["step"], train[TRAIN_LOSS], color=SOURCE, linewidth=0.8, alpha=0.35)
        axis.plot(train["step"], smooth, color=SOURCE, label="training")
        if VAL_LOSS in log:
            val = log.dropna(subset=[VAL_LOSS])
            axis.plot(val["step"], val[VAL_LOSS], "o-", color=SYNTHETIC, markersize=3.5,
                      label="validation")  # fmt: skip
        if kept is not None:
            axis.axvline(kept.step, color=MUTED, linewidth=1, linestyle=(0, (3, 2)), zorder=0,
                         label="weights that were kept")  # fmt: skip
            if kept.loss is not None:
                axis.plot(kept.step, kept.loss, "o", color=SYNTHETIC, markerfacecolor=PAPER)
        shown = [train[TRAIN_LOSS], *([log[VAL_LOSS]] if VAL_LOSS in log else [])]
        if min(values.min() for values in shown) > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
            axis.tick_params(axis="y", which="minor", labelsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set(xlabel="optimizer step", ylabel="loss")
        figure.legend(loc="outside upper left", ncols=3)
    return figure


def _logs(folder: Path) -> Iterator[tuple[str, Path]]:
    log = folder / "log"
    if (log / "finetune").is_dir():
        yield "finetune", log / "finetune"
    for network in sorted(log.glob("train/*")):
        yield "train", network


def _part(title: str, log: pd.DataFrame, kept: Training | None, name: str) -> TrainingPart:
    facts = {"Steps": f"{log['step'].max():,}"}
    if kept is not None:
        facts["Kept weights"] = f"of step {kept.step:,}"
    if kept is not None and kept.loss is not None:
        facts["Their validation loss"] = f"{kept.loss:.4g}"
    for column, fact, unit in (
        ("train/clips_per_second", "Speed", "clips/s"),
        ("train/gpu_memory_gib", "Memory of a GPU", "GiB"),
    ):
        if column in log and log[column].notna().any():
            of_all = np.median if unit == "clips/s" else np.max
            facts[fact] = f"{of_all(log[column].dropna()):.3g} {unit}"
    # Written by matplotlib, which escapes the text in it.
    picture = Markup(figures.svg(loss_curves(log, kept), f"training-{name}"))
    return TrainingPart(title, facts, picture, VAL_LOSS in log)
