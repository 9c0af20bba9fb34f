"""What the jobs of a sweep found, side by side: told at its end, kept in ``sweep.csv``."""

from __future__ import annotations

import atexit
import logging
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.experimental.callback import Callback
from rich.table import Table
from rich.text import Text

from fsasd.evaluation.metrics import OFFICIAL, without_domains
from fsasd.report.console import terminal, titled
from fsasd.report.formatting import UNDEFINED, percent
from fsasd.report.headline import headline
from fsasd.report.results import Results, metric_titles
from fsasd.runtime.ranks import rank

log = logging.getLogger(__name__)

LEFT_OUT = "left_out.txt"
"""Says in a job's folder why it has no result."""

_FOUND = [
    "parameters", "training_seconds", "scoring_ms", "auc", *OFFICIAL, "official", "low", "high",
]  # fmt: skip
_COSTS = ["Parameters", "Training", "Scoring"]
_WIDTH = 120


class Comparison(Callback):
    """Tells at the end of a sweep what its jobs found, also where some have failed.

    Whatever starts the jobs, and wherever, this reads the folders that they leave.

    Args:
        folder: The sweep's folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Have it told when this process ends: Hydra calls nothing after a job that failed."""
        # Other ranks run the sweep, too, and know nothing of what the first has yet to do.
        if rank() > 0:
            return
        atexit.register(compare, Path(self.folder).resolve())


def leave_out(folder: Path, why: str) -> None:
    """Note in the folder of a job of a sweep that it has no result.

    Hydra goes on with the other jobs.
    """
    log.error("left out: %s", why)
    if rank() > 0:
        return
    (folder / LEFT_OUT).write_text(why + "\n", encoding="utf-8")


def compare(folder: Path) -> None:
    """Print the jobs of a sweep, the best first, and write ``sweep.csv``; name those left out.

    Jobs that differ in nothing but their seed are one row. A sweep that detects nothing, of
    fine-tunings for instance, has nothing to compare.
    """
    table = jobs(folder)
    done = table[table["left_out"] == ""]
    if len(done):
        table.to_csv(folder / "sweep.csv", index=False)
        out = terminal(_WIDTH)
        out.print("", _printed(done))
        out.print(f"{'sweep:':<16} {folder / 'sweep.csv'}", soft_wrap=True)
    if len(absent := table[table["left_out"] != ""]):
        lines = [f"{job.overrides}: {job.left_out}" for job in absent.itertuples()]
        said = "The sweep left out what follows; all other jobs have their results:"
        print("", said, *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)
    if len(partial := table[table["failed"] != ""]):
        lines = [f"{job.overrides}: {job.failed}" for job in partial.itertuples()]
        message = "Sections failed in these jobs, whose scores are undefined therefore:"
        print("", message, *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)


def jobs(folder: Path) -> pd.DataFrame:
    """Return a row for each job of a sweep.

    Args:
        folder: The sweep's folder.

    Returns:
        ``job``, its folder; ``overrides``, and a column for each of them; ``parameters`` of the
        largest detector, ``training_seconds`` of all, ``scoring_ms`` of a clip; ``auc_source``,
        ``auc_target`` and ``pauc``, means over machines and sections, and ``auc`` of sections whose
        clips have no domain; the ``official`` score and the ends of its interval, ``low`` and
        ``high``; ``failed``, the sections that failed and why, which leave the scores of their job
        undefined; ``left_out``, why all of that is missing.
        Fractions; NaN is what is not known.
    """
    folders = [path.parent.parent for path in folder.rglob(".hydra/overrides.yaml")]
    folders.sort(key=lambda job: (len(job.name), job.name))
    detected = any((job / "clips.csv").is_file() for job in folders)
    rows = []
    for job in folders:
        results, told = Results(job), job / LEFT_OUT
        row: dict[str, Any] = {
            "job": str(job.relative_to(folder)),
            "overrides": " ".join(results.overrides),
        }
        row |= dict(_named(override) for override in results.overrides)
        if told.is_file():
            rows.append(row | {"left_out": told.read_text(encoding="utf-8").strip()})
        elif results.sections or len(results.failed):
            rows.append(row | _found(results) | {"left_out": "", "failed": _failures(results)})
        elif detected:
            rows.append(row | {"left_out": f"it ended without a result, see {job / 'run.log'}"})
    reasons = ["failed", "left_out"]
    named = dict.fromkeys(name for row in rows for name in row if name not in [*_FOUND, *reasons])
    table = pd.DataFrame(rows, columns=[*named, *_FOUND, *reasons])
    return table.fillna(dict.fromkeys(reasons, ""))


def cells(own: pd.DataFrame, areas: Iterable[str] = OFFICIAL) -> list[str]:
    """Write what was found as text, means over the rows, which differ in their seed.

    Args:
        own: ``parameters`` to ``high`` as in ``jobs``.
        areas: The AUCs to write.

    Returns:
        Parameters, training, scoring, the AUCs, official score: mean, spread over seeds where there
        is any, interval.

    >>> row = {"parameters": 33026, "training_seconds": 0.61, "scoring_ms": 1.84, "pauc": 0.75,
    ...        "auc_source": 0.9, "auc_target": 0.8, "low": 0.7, "high": 0.9}
    >>> cells(pd.DataFrame([row | {"official": 0.80}, row | {"official": 0.82}]))
    ['33,026', '0.6 s', '1.8 ms', '90.0', '80.0', '75.0', '81.0 ± 1.0 [70.0 to 90.0]']
    """
    # A mean without the seeds of which a section failed would be of other machines.
    mean = own.drop(columns=own.columns.difference(_FOUND)).astype(float).mean(skipna=False)
    spread = own["official"].std(ddof=0)
    official = percent(mean["official"])
    if spread > 5e-4:
        official += f" ± {percent(spread)}"
    if not math.isnan(mean["low"]):
        official += f" [{percent(mean['low'])} to {percent(mean['high'])}]"
    units = {"parameters": "{:,.0f}", "training_seconds": "{:.1f} s", "scoring_ms": "{:.1f} ms"}
    return [
        *(UNDEFINED if math.isnan(mean[name]) else unit.format(mean[name])
          for name, unit in units.items()),
        *(percent(mean[name]) for name in areas),
        official,
    ]  # fmt: skip


def _printed(done: pd.DataFrame) -> Table:
    settings = [name for name in done.columns[2 : done.columns.get_loc(_FOUND[0])]
                if name != "seed" and len(done[name].unique()) > 1]  # fmt: skip
    table = titled("The sweep, the best first")
    for name in settings or ["Job"]:
        table.add_column(name, overflow="fold")
    areas = metric_titles(done, decided=False)
    for head in [*_COSTS, *areas.values(), "Official score, %", "Jobs"]:
        table.add_column(head, justify="right")
    # A setting that only some of the jobs were given is empty in the others.
    done = done.fillna(dict.fromkeys(settings, ""))
    groups = [own for _, own in done.groupby(settings, sort=False)] if settings else [done]
    for own in sorted(groups, key=_official, reverse=True):
        named = [Text(own[name].iloc[0]) for name in settings] or [Text("all")]
        table.add_row(*named, *cells(own, areas), str(len(own)))
    return table


def _official(own: pd.DataFrame) -> float:
    mean = own["official"].astype(float).mean(skipna=False)
    return -math.inf if math.isnan(mean) else mean


def _named(override: str) -> tuple[str, str]:
    name, _, value = override.partition("=")
    return name.lstrip("+"), value


def _found(results: Results) -> dict[str, float]:
    costs, metrics = results.costs, results.metrics
    found: dict[str, float] = {}
    if not costs.empty:
        found |= {
            "parameters": costs["parameters"].max(),
            "training_seconds": costs["fit_seconds"].sum(),
            "scoring_ms": costs["score_ms"].mean(),
        }
    official = headline(results)
    if official is not None and not official.failed:
        found |= {"official": official.score, "low": official.low, "high": official.high}
        mean = metrics[metrics["machine"] == "arithmetic mean"].iloc[0]
        found |= {name: mean[name] for name in OFFICIAL}
        if (undivided := without_domains(metrics) & metrics["section"].notna()).any():
            found["auc"] = metrics.loc[undivided, "auc"].mean()
    return found


def _failures(results: Results) -> str:
    return "; ".join(
        f"{row.machine} section {row.section} in stage {row.stage}: {row.reason}"
        for row in results.failed.itertuples()
    )
