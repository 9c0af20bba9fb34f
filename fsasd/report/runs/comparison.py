"""Runs and sweeps compared: one row per setting, differences to a baseline, best per machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fsasd.evaluation.metrics import OFFICIAL
from fsasd.report.formatting import count
from fsasd.report.objective import DIRECTIONS
from fsasd.report.results import Results
from fsasd.report.runs.differences import (
    Difference,
    best_per_machine,
    differences,
    machine_scores,
)
from fsasd.report.runs.jobs import MEASURED, jobs
from fsasd.report.runs.settings import Setting, distinct, find, settings
from fsasd.report.runs.status import INCOMPLETE, STATES

MEANS = [name for name in MEASURED if name != "model"]
"""Columns of the table of settings that are means over seeds."""

DEVIATIONS = ["official", "auc", *OFFICIAL, "objective_value", "val_loss", "val_loss_last"]
"""Those that have a standard deviation over seeds, too: ``<name>_std``."""
_NAMED = 6
"""Settings that a sentence names at most."""


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Runs beside each other, the best setting first.

    Attributes:
        jobs: What ``runs.jobs`` returns, with a row for jobs that have no result, too.
        settings: The settings of those that have one, the best first.
        baseline: The setting with which the others are compared; ``None`` if nothing was scored.
        notes: What was left out, and why, a sentence each.
        objective: What all of them were to optimise, as the trials of a search, by which settings
            are ranked then; ``None`` where that is the official score.
    """

    jobs: pd.DataFrame
    settings: Sequence[Setting]
    baseline: Setting | None
    notes: Sequence[str]
    objective: str | None = None

    @property
    def order(self) -> str:
        """How settings are ranked, in words."""
        return f"the best by {self.objective} first" if self.objective else "the best first"

    @property
    def is_scored(self) -> bool:
        """Whether a detector scored or was fitted in any run."""
        return any(map(is_scored, self.settings))

    @property
    def is_finetuned(self) -> bool:
        """Whether a generator was fine-tuned in any run."""
        return any(map(is_finetuned, self.settings))

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Difference of each setting to the baseline, by name; none where there is no score."""
        if self.baseline is None:
            return {}
        others = [s for s in self.settings if s is not self.baseline and is_scored(s)]
        return differences(others, self.baseline)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each setting.

        Its values, a column each; ``jobs``, their number; means over seeds of what was measured
        (as in ``runs.jobs``), ``<name>_std``, their standard deviation; ``model``, that of the
        lowest validation loss; ``difference`` of the official score to the baseline's with
        ``difference_low``, ``difference_high``, ``verdict`` and the number of ``sections`` that it
        is over. Fractions.
        """
        rows = []
        for setting in self.settings:
            row: dict[str, Any] = {**setting.choices, "jobs": len(setting.jobs)}
            for name in MEANS:
                row[name] = setting.mean(name)
                if name in DEVIATIONS:
                    row[f"{name}_std"] = setting.deviation(name)
            ranked = setting.jobs.sort_values("val_loss", kind="stable")
            row["model"] = ranked["model"].iloc[0]
            row |= self._difference(setting)
            rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def machines(self) -> pd.DataFrame:
        """What ``differences.machine_scores`` returns."""
        return machine_scores(self.settings)

    @cached_property
    def best(self) -> pd.DataFrame:
        """What ``differences.best_per_machine`` returns."""
        return best_per_machine(self.settings)

    @property
    def states(self) -> str:
        """How many jobs are in which state, in words."""
        counted = Counter(self.jobs["state"])
        words = ", ".join(f"{counted[state]} {state}" for state in STATES if counted[state])
        return f"{count(len(self.jobs), 'job')}: {words}"

    @property
    def exit_code(self) -> int:
        """1 where a job has no result, 3 where results lack sections or recordings, else 0."""
        if (self.jobs["reason"] != "").any():
            return 1
        return 3 if (self.jobs["state"] == INCOMPLETE).any() else 0

    def verdicts(self) -> list[str]:
        """Describe in sentences which settings differ from the baseline."""
        if self.baseline is None or not self.differences:
            return []
        groups: dict[str, list[str]] = {}
        for name, gain in self.differences.items():
            groups.setdefault(gain.verdict, []).append(name)
        titles = {
            "better": f"Better than {self.baseline.name}",
            "worse": f"Worse than {self.baseline.name}",
            "not significant": f"No significant difference to {self.baseline.name}",
        }
        return [
            f"{titles.get(verdict, verdict.capitalize())}: {_listed(names)}."
            for verdict, names in groups.items()
        ]

    def _difference(self, setting: Setting) -> dict[str, Any]:
        gain = self.differences.get(setting.name)
        if gain is None:
            verdict = "baseline" if setting is self.baseline else ""
            return dict.fromkeys(["difference", "difference_low", "difference_high"], math.nan) | {
                "verdict": verdict,
                "sections": 0,
            }
        return {
            "difference": gain.value, "difference_low": gain.low, "difference_high": gain.high,
            "verdict": gain.verdict, "sections": len(gain.sections),
        }  # fmt: skip


def _listed(names: list[str]) -> str:
    """Name settings; of a search there may be hundreds, which the table lists."""
    return ", ".join(names) if len(names) <= _NAMED else count(len(names), "setting")


def compare_runs(*folders: Path, baseline: str | None = None) -> RunComparison:
    """Compare the runs below some folders.

    Args:
        folders: Of runs, of sweeps, or of several.
        baseline: Setting with which the others are compared, e.g. ``detector=knn``; by default the
            best one.

    Raises:
        ValueError: There is no run below a folder, or not this setting.
    """
    table = jobs(*folders)
    done, notes = distinct(table[table["reason"] == ""].copy())
    objective = _common_objective(done)
    ranked = sorted(settings(done), key=lambda setting: _rank(setting, objective))
    chosen = find(ranked, baseline) if baseline is not None else None
    if chosen is None and ranked and not math.isnan(ranked[0].mean("official")):
        chosen = ranked[0]
    comparison = RunComparison(table, ranked, chosen, notes, objective)
    notes += _left_out(comparison)
    return comparison


def _common_objective(jobs: pd.DataFrame) -> str | None:
    """Return the objective that all runs have, unless it is the official score."""
    names = {Results(folder).config.get("objective") for folder in jobs["folder"]}
    (name,) = names if len(names) == 1 else (None,)
    return name if name in DIRECTIONS and name != "official" else None


def _rank(setting: Setting, objective: str | None) -> tuple[float, ...]:
    """The best objective comes first, then the highest official score, the lowest loss."""
    values = [-setting.mean("official"), setting.mean("val_loss")]
    if objective is not None:
        sign = 1 if DIRECTIONS[objective] == "minimize" else -1
        values.insert(0, sign * setting.mean("objective_value"))
    return tuple(math.inf if math.isnan(value) else value for value in values)


def is_scored(setting: Setting) -> bool:
    """Return whether a detector scored or was fitted in any run of a setting."""
    return _is_known(setting, ["official", "pauc", "parameters", "scoring_ms"])


def is_finetuned(setting: Setting) -> bool:
    """Return whether a generator was fine-tuned in any run of a setting."""
    return _is_known(setting, ["steps", "val_loss", "finetuning_seconds"])


def _is_known(setting: Setting, columns: list[str]) -> bool:
    return bool(setting.jobs[columns].notna().any(axis=None))


def _left_out(comparison: RunComparison) -> list[str]:
    notes = []
    for name, gain in comparison.differences.items():
        if gain.sections and gain.left_out:
            names = ", ".join(str(section) for section in gain.left_out[:5])
            more = f" and {len(gain.left_out) - 5} more" if len(gain.left_out) > 5 else ""
            assert comparison.baseline is not None
            notes.append(
                f"The difference of {name} to {comparison.baseline.name} is over "
                f"{count(len(gain.sections), 'section')} that both have; without {names}{more}"
            )
    return notes
