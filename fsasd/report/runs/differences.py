"""Differences between settings on the same test clips, with intervals; the best per machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fsasd.data.names import SectionId
from fsasd.evaluation.metrics import Section, official_score
from fsasd.evaluation.uncertainty import OfficialResamples, official_resamples, percentile_interval
from fsasd.report.results import rows_of
from fsasd.report.runs.clips import LabelledClips
from fsasd.report.runs.settings import Setting

RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """How much better one setting is than another, official scores averaged over seeds.

    Attributes:
        value: Of their official scores on the sections that both have, fractions.
        low: Lower end of its 95 % interval: over resamples of the test clips.
        high: Upper end.
        sections: Sections that both have, with the same labelled test clips.
        left_out: Those that only one has, or with other clips.
    """

    value: float
    low: float
    high: float
    sections: list[SectionId]
    left_out: list[SectionId]

    @property
    def is_significant(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """What it means, in words."""
        if math.isnan(self.value):
            return "not comparable: no machine with the same labelled test clips"
        if not self.is_significant:
            return "not significant"
        return "better" if self.value > 0 else "worse"


def differences(
    settings: Sequence[Setting], baseline: Setting, machine: str | None = None
) -> dict[str, Difference]:
    """Compare settings with another by a paired bootstrap of the test clips.

    Each resample holds the same clips for all, drawn within machine, section, label and domain.
    The interval speaks of other clips of these machines, not of other seeds.

    Args:
        settings: The score of each, minus that of ``baseline``, is the difference.
        baseline: What they are compared with.
        machine: Of this one only.

    Returns:
        Names of the settings to their differences.
    """
    pairs = {setting.name: _Pair(setting, baseline, machine) for setting in settings}
    groups: dict[tuple[SectionId, ...], list[str]] = {}
    for name, pair in pairs.items():
        groups.setdefault(pair.common, []).append(name)
    compared: dict[str, Difference] = {}
    for common, names in groups.items():
        # Settings on the same clips share the resamples, and the baseline's scores on them.
        runs = [*baseline.clips, *(run for name in names for run in pairs[name].setting.clips)]
        sizes = [len(baseline.jobs), *(len(pairs[name].setting.jobs) for name in names)]
        means = _means([[run[key].section for key in common] for run in runs], sizes)
        for place, name in enumerate(names, 1):
            compared[name] = pairs[name].difference(means, place)
    return {name: compared[name] for name in pairs}


def machine_scores(settings: Sequence[Setting]) -> pd.DataFrame:
    """Return the official score of each machine with each setting.

    Args:
        settings: The settings.

    Returns:
        A row for each machine and setting: ``machine``, ``setting``, ``official``, the mean over
        seeds, ``std`` over them; fractions.
    """
    rows = []
    for setting in settings:
        scores: dict[str, list[float]] = {}
        for metrics in setting.metrics:
            for machine in metrics.loc[metrics["section"].notna(), "machine"].unique():
                value = official_score(rows_of(metrics, machine)).value
                scores.setdefault(machine, []).append(value)
        for machine, values in scores.items():
            # A seed of which the machine failed leaves its mean unknown.
            known = len(values) == len(setting.jobs)
            mean = float(np.mean(values)) if known else math.nan
            deviation = float(np.std(values, ddof=1)) if known and len(values) > 1 else math.nan
            rows.append((machine, setting.name, mean, deviation))
    return pd.DataFrame(rows, columns=["machine", "setting", "official", "std"])


def best_per_machine(settings: Sequence[Setting]) -> pd.DataFrame:
    """Return the best setting of each machine, and by how much it is better than the second.

    Args:
        settings: The settings.

    Returns:
        ``machine``, ``setting``, ``official``, ``second``, its name, ``difference`` to it with
        ``low`` and ``high`` (NaN and empty without a second), and ``verdict``; fractions.
    """
    by_name = {setting.name: setting for setting in settings}
    rows = []
    for machine, scores in (
        machine_scores(settings).dropna(subset="official").groupby("machine", sort=False)
    ):
        ranked = scores.sort_values("official", ascending=False, kind="stable")
        names = ranked["setting"].tolist()
        row = {"machine": machine, "setting": names[0], "official": ranked["official"].iloc[0],
               "second": "", "difference": math.nan, "low": math.nan, "high": math.nan,
               "verdict": ""}  # fmt: skip
        if len(names) > 1:
            first, second = (by_name[name] for name in names[:2])
            (gain,) = differences([first], second, str(machine)).values()
            row |= {"second": names[1], "difference": gain.value, "low": gain.low,
                    "high": gain.high, "verdict": gain.verdict}  # fmt: skip
        rows.append(row)
    columns = ["machine", "setting", "official", "second", "difference", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


class _Pair:
    """Two settings, and the sections that all their runs have, with the same labelled clips."""

    def __init__(self, setting: Setting, baseline: Setting, machine: str | None) -> None:
        runs = [*setting.clips, *baseline.clips]
        named = dict.fromkeys(key for run in runs for key in run)
        keys = [key for key in named if machine in (None, key.machine)]
        self.setting = setting
        self.common = tuple(k for k in keys if all(_agree(runs[0].get(k), r.get(k)) for r in runs))
        self._left_out = [key for key in keys if key not in set(self.common)]

    def difference(self, means: OfficialResamples | None, place: int) -> Difference:
        """Return the difference of the setting at a place to the baseline, which is at 0."""
        if means is None:
            return Difference(math.nan, math.nan, math.nan, [], self._left_out)
        interval = percentile_interval(means.resampled[place] - means.resampled[0])
        observed = float(means.observed[place] - means.observed[0])
        return Difference(observed, interval.low, interval.high, list(self.common), self._left_out)


def _means(systems: Sequence[Sequence[Section]], sizes: Sequence[int]) -> OfficialResamples | None:
    """Official scores of settings, means over so many runs of each; ``None`` without sections."""
    if not systems[0]:
        return None
    scores = official_resamples(systems, RESAMPLES)
    ends = np.cumsum(sizes)[:-1]
    return OfficialResamples(
        np.array([part.mean() for part in np.split(scores.observed, ends)]),
        np.stack([part.mean(axis=0) for part in np.split(scores.resampled, ends)]),
    )


def _agree(one: LabelledClips | None, other: LabelledClips | None) -> bool:
    return (
        one is not None
        and other is not None
        and one.files == other.files
        and np.array_equal(one.section.labels, other.section.labels)
        and np.array_equal(
            np.asarray(one.section.domains, object), np.asarray(other.section.domains, object)
        )
    )
