"""The comparison of a sweep's jobs: printed when it ends, written to ``sweep.csv``."""

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
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.text import Text

from fsasd.evaluation.metrics import OFFICIAL, without_domains
from fsasd.report.console import terminal, titled
from fsasd.report.formatting import UNDEFINED, percent
from fsasd.report.headline import headline
from fsasd.report.results import Results, metric_titles
from fsasd.runtime.ranks import rank

log = logging.getLogger(__name__)

MARK = "failed.txt"
"""Name of the file in a job's folder that holds the reason why the job has no result."""

_MEASURED = [
    "parameters", "training_seconds", "scoring_ms", "auc", *OFFICIAL, "official", "low", "high",
]  # fmt: skip
_COSTS = ["Parameters", "Training", "Scoring"]
_WIDTH = 120


class Comparison(Callback):
    """Compares the jobs of a sweep when it ends, also where some have failed.

    It reads the folders that the jobs leave, whatever launcher starts them, and wherever.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Register the comparison for the end of this process.

        Hydra calls nothing after a job that failed.
        """
        # Jobs copy what these are now; a launcher's processes may inherit no variables.
        folder = Path(config.hydra.sweep.dir)
        OmegaConf.to_container(config.hydra.job.env_set, resolve=True)
        # Other ranks run the sweep, too, and end before rank 0 has detected.
        if rank() == 0:
            atexit.register(compare, folder.resolve())


def mark_failed(folder: Path, reason: str) -> None:
    """Write into the folder of a sweep's job why it has no result; Hydra runs the other jobs.

    Args:
        folder: The job's folder.
        reason: The error.
    """
    log.error("the job failed: %s", reason)
    if rank() == 0:
        (folder / MARK).write_text(reason + "\n", encoding="utf-8")


def unmark(folder: Path) -> None:
    """Remove what ``mark_failed`` wrote when the job ran before."""
    (folder / MARK).unlink(missing_ok=True)


def compare(folder: Path) -> None:
    """Print the jobs of a sweep, the best first, and write ``sweep.csv``; list those that failed.

    Jobs that differ only in their seed are one row. Of a sweep without the stage ``detect``, only
    jobs that failed are listed.

    Args:
        folder: The sweep's folder.
    """
    table = jobs(folder)
    done = table[table["reason"] == ""]
    if len(done):
        table.to_csv(folder / "sweep.csv", index=False)
        out = terminal(_WIDTH)
        out.print("", _printed(done))
        out.print(f"{'sweep:':<16} {folder / 'sweep.csv'}", soft_wrap=True)
    if len(without := table[table["reason"] != ""]):
        lines = [f"{job.overrides}: {job.reason}" for job in without.itertuples()]
        message = f"{len(without)} of {len(_folders(folder))} jobs have no result:"
        print("", message, *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)
    if len(partial := table[table["failed"] != ""]):
        lines = [f"{job.overrides}: {job.failed}" for job in partial.itertuples()]
        message = (
            f"In {len(partial)} of {len(done)} jobs sections failed; their scores are undefined:"
        )
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
        undefined; ``reason``, why the job has no result at all. Both are empty where nothing
        failed. Fractions; NaN is what is not known.
    """
    folders = _folders(folder)
    detected = any((job / "clips.csv").is_file() for job in folders)
    rows = []
    for job in folders:
        results, mark = Results(job), job / MARK
        row: dict[str, Any] = {
            "job": str(job.relative_to(folder)),
            "overrides": " ".join(results.overrides),
        }
        row |= dict(_named(override) for override in results.overrides)
        if mark.is_file():
            rows.append(row | {"reason": mark.read_text(encoding="utf-8").strip()})
        elif results.sections or len(results.failed):
            rows.append(row | _measured(results) | {"reason": "", "failed": _failures(results)})
        elif detected:
            rows.append(row | {"reason": f"it ended without a result, see {job / 'run.log'}"})
    reasons = ["failed", "reason"]
    named = dict.fromkeys(
        name for row in rows for name in row if name not in [*_MEASURED, *reasons]
    )
    table = pd.DataFrame(rows, columns=[*named, *_MEASURED, *reasons])
    return table.fillna(dict.fromkeys(reasons, ""))


def _folders(folder: Path) -> list[Path]:
    """Return the folders of all jobs that began, in their order."""
    folders = [path.parent.parent for path in folder.rglob(".hydra/overrides.yaml")]
    return sorted(folders, key=lambda job: (len(job.name), job.name))


def cells(rows: pd.DataFrame, areas: Iterable[str] = OFFICIAL) -> list[str]:
    """Format means over jobs that differ in their seed.

    Args:
        rows: Of these jobs, ``parameters`` to ``high`` as in ``jobs``.
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
    mean = rows.drop(columns=rows.columns.difference(_MEASURED)).astype(float).mean(skipna=False)
    spread = rows["official"].std(ddof=0)
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
    settings = [name for name in done.columns[2 : done.columns.get_loc(_MEASURED[0])]
                if name != "seed" and len(done[name].unique()) > 1]  # fmt: skip
    table = titled("The sweep, the best first")
    for name in settings or ["Job"]:
        table.add_column(name, overflow="fold")
    areas = metric_titles(done, decided=False)
    for head in [*_COSTS, *areas.values(), "Official score, %", "Jobs"]:
        table.add_column(head, justify="right")
    # A setting that only some of the jobs were given is empty in the others.
    done = done.fillna(dict.fromkeys(settings, ""))
    groups = [group for _, group in done.groupby(settings, sort=False)] if settings else [done]
    for rows in sorted(groups, key=_official, reverse=True):
        named = [Text(rows[name].iloc[0]) for name in settings] or [Text("all")]
        table.add_row(*named, *cells(rows, areas), str(len(rows)))
    return table


def _official(rows: pd.DataFrame) -> float:
    mean = rows["official"].astype(float).mean(skipna=False)
    return -math.inf if math.isnan(mean) else mean


def _named(override: str) -> tuple[str, str]:
    name, _, value = override.partition("=")
    return name.lstrip("+"), value


def _measured(results: Results) -> dict[str, float]:
    costs, metrics = results.costs, results.metrics
    measured: dict[str, float] = {}
    if not costs.empty:
        measured |= {
            "parameters": costs["parameters"].max(),
            "training_seconds": costs["fit_seconds"].sum(),
            "scoring_ms": costs["score_ms"].mean(),
        }
    official = headline(results)
    if official is not None and not official.failed:
        measured |= {"official": official.score, "low": official.low, "high": official.high}
        mean = metrics[metrics["machine"] == "arithmetic mean"].iloc[0]
        measured |= {name: mean[name] for name in OFFICIAL}
        if (undivided := without_domains(metrics) & metrics["section"].notna()).any():
            measured["auc"] = metrics.loc[undivided, "auc"].mean()
    return measured


def _failures(results: Results) -> str:
    return "; ".join(
        f"{row.machine} section {row.section} in stage {row.stage}: {row.reason}"
        for row in results.failed.itertuples()
    )
