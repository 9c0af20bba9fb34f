"""Runs grouped by their settings: those that differ only in their seed are repetitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fsasd.data.names import SectionId
from fsasd.report.results import Results
from fsasd.report.runs.clips import LabelledClips, labelled_clips
from fsasd.report.runs.jobs import settings_of
from fsasd.settings.no_result import changes_no_result

SEED = "seed"


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs with one setting, which differ in their seed.

    Attributes:
        choices: Value of each setting that differs among the runs that are compared.
        jobs: Rows of ``jobs``.
    """

    choices: dict[str, str]
    jobs: pd.DataFrame

    @property
    def name(self) -> str:
        """What distinguishes it, as on the command line: ``detector=knn detector.k=2``."""
        return " ".join(f"{name}={value}" for name, value in self.choices.items() if value) or "all"

    @cached_property
    def clips(self) -> list[dict[SectionId, LabelledClips]]:
        """The labelled test clips of each run, by section, as they are when first asked for."""
        return [labelled_clips(Results(folder)) for folder in self.jobs["folder"]]

    @cached_property
    def metrics(self) -> list[pd.DataFrame]:
        """The metrics of each run, as they are when first asked for."""
        return [Results(folder).metrics for folder in self.jobs["folder"]]

    def mean(self, column: str) -> float:
        """Mean over seeds; NaN if it is unknown of one.

        That of the others would be of other machines.

        Args:
            column: One of ``MEASURED``.
        """
        return float(self.jobs[column].astype(float).mean(skipna=False))

    def deviation(self, column: str) -> float:
        """Standard deviation over seeds, of the sample (n - 1); NaN for one seed.

        Args:
            column: One of ``MEASURED``.
        """
        return float(self.jobs[column].astype(float).std(ddof=1, skipna=False))


def settings(jobs: pd.DataFrame) -> list[Setting]:
    """Group runs by the settings that differ among them.

    Args:
        jobs: Rows of ``jobs`` that have a result, each setting and seed once (``distinct``).

    >>> table = pd.DataFrame({"job": "0", "overrides": "", "data": "a", "k": ["1", "1", "2"],
    ...                       "seed": ["0", "1", "0"], "state": "done"})
    >>> [(setting.name, list(setting.jobs["seed"])) for setting in settings(table)]
    [('k=1', ['0', '1']), ('k=2', ['0'])]
    """
    names = [n for n in _relevant(jobs) if n != SEED and len(jobs[n].unique()) > 1]
    if not names:
        return [Setting({}, jobs)] if len(jobs) else []
    return [
        Setting(dict(zip(names, map(str, values), strict=True)), rows)
        for values, rows in jobs.groupby(names, sort=False)
    ]


def distinct(jobs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keep the last of the runs that repeat one another: the same settings, and the same seed.

    Args:
        jobs: Rows of ``jobs`` that have a result.

    Returns:
        The other rows, and a sentence for each run that is left out.
    """
    names = _relevant(jobs)
    if not names:
        return jobs, []
    ordered = jobs.sort_values("ended", kind="stable")
    repeated = ordered[ordered.duplicated(names, keep="last")]
    notes = []
    for _, row in repeated.iterrows():
        same = (jobs[names] == row[names]).all(axis=1) & ~jobs.index.isin(repeated.index)
        kept = jobs[same].iloc[0]
        equal = _same_numbers(row, kept)
        why = "it is the same" if equal else "it is older, and its results differ"
        notes.append(f"{row['job']} is not counted: {kept['job']} has its settings and seed; {why}")
    return jobs.drop(index=repeated.index), notes


def _relevant(jobs: pd.DataFrame) -> list[str]:
    return [name for name in settings_of(jobs) if not changes_no_result(name)]


def _same_numbers(one: pd.Series, other: pd.Series) -> bool:
    names = ["auc", "auc_source", "auc_target", "pauc", "official", "val_loss", "val_loss_last"]
    first, second = (np.array(row[names], float) for row in (one, other))
    return bool(np.array_equal(first, second, equal_nan=True))


def find(settings: Sequence[Setting], text: str) -> Setting:
    """Return the setting that a user names, by some of its values.

    Args:
        settings: Those there are.
        text: As in ``detector=knn detector.k=2``.

    Raises:
        ValueError: None, or several, have these values.

    >>> empty = pd.DataFrame()
    >>> two = [Setting({"model": "a", "k": k}, empty) for k in ("1", "2")]
    >>> find(two, "k=2").name
    'model=a k=2'
    >>> find(two, "model=a")
    Traceback (most recent call last):
    ValueError: setting 'model=a': expected one, found 2: 'model=a k=1', 'model=a k=2'
    """
    wanted = set(re.split(r"[\s,]+(?=\S+=)", text.strip()))
    matching = [
        setting
        for setting in settings
        if wanted <= {f"{k}={v}" for k, v in setting.choices.items()} or text == setting.name
    ]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(f"'{setting.name}'" for setting in matching or settings)
    if not matching:
        raise ValueError(f"setting '{text}': expected one of {names}")
    raise ValueError(f"setting '{text}': expected one, found {len(matching)}: {names}")
