"""Settings of a detector beside each other: on synthetic clips, and on the real test clips."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.metrics import (
    OFFICIAL,
    Section,
    harmonic_mean,
    known_domains,
    official_score,
    without_domains,
)
from fsasd.evaluation.uncertainty import paired_difference
from fsasd.report.results import ID, parameters, setting_titles

SETTING_TITLES = {
    "synthetic": "used",
    "argmax": "highest",
    "oracle": "oracle",
}
"""Names in ``settings.csv`` to how they are shown; baselines are shown as they are named."""

_DECIDED = ("precision", "recall", "f1")


def top_settings(curve: pd.DataFrame, real: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """Sort settings by their objective on synthetic clips, best first.

    Args:
        curve: ``selection.csv`` of one machine and section.
        real: ``real_curve.csv`` of the same, or empty.
        count: Number of settings; the chosen one and the oracle's are always among them.

    Returns:
        ``setting``, ``auc``, ``pauc``, ``objective``, ``chosen``; with real clips ``real``, their
        objective, and ``oracle``.
    """
    table = curve[["auc", "pauc", "objective", "chosen"]].reset_index(drop=True)
    table.insert(0, "setting", setting_titles(curve))
    table["oracle"] = False
    if not real.empty:
        real = real.assign(setting=setting_titles(real)).set_index("setting")
        table["real"] = table["setting"].map(real["objective"])
        table["oracle"] = table["setting"].map(real["oracle"]).eq(True)
    # Of equals the chosen one comes first.
    table = table.sort_values(["objective", "chosen"], ascending=False, kind="stable")
    place = np.arange(len(table))
    return table[(place < count) | table["chosen"] | table["oracle"]].reset_index(drop=True)


def compare_settings(settings: pd.DataFrame, scores: pd.DataFrame | None = None) -> pd.DataFrame:
    """Score each row of ``settings.csv`` over all machines and sections.

    Args:
        settings: ``Results.settings``.
        scores: ``Results.setting_scores``, for the intervals of the differences.

    Returns:
        Per setting, in the file's order: ``official`` score, ``auc_source``, ``auc_target`` and
        ``pauc`` (harmonic means), ``auc`` (that of sections whose clips have no domain),
        ``undefined`` values, ``difference`` to ``synthetic`` with ``low``
        and ``high``; fractions. Without ``argmax`` where that is the setting that is used.

    >>> columns = ["machine", "section", "setting", "auc_source", "auc_target", "pauc"]
    >>> rows = [["fan", "00", "r=1", 0.6, 0.6, 0.6], ["fan", "00", "synthetic", 0.7, 0.7, 0.7]]
    >>> compare_settings(pd.DataFrame(rows, columns=columns))["difference"].round(3).tolist()
    [-0.1, 0.0]
    """
    settings = settings[settings["setting"].isin(distinct_settings(settings))]
    rows = []
    for name, sections in settings.groupby("setting", sort=False):
        official = official_score(sections)
        means = {metric: harmonic_mean(sections[metric]) for metric in OFFICIAL}
        if (undivided := without_domains(sections)).any():
            means["auc"] = harmonic_mean(sections.loc[undivided, "auc"])
        rows.append(
            {"setting": name, "official": official.value, **means, "undefined": official.undefined}
        )
    table = pd.DataFrame(rows)
    used = table.loc[table["setting"] == "synthetic", "official"]
    table["difference"] = table["official"] - (used.iloc[0] if len(used) else math.nan)
    table[["low", "high"]] = math.nan
    if scores is not None and not scores.empty:
        reference = setting_sections(scores, "synthetic")
        for i, name in enumerate(table["setting"]):
            interval = paired_difference(setting_sections(scores, name), reference).interval
            table.loc[i, ["low", "high"]] = interval.low, interval.high
    return table


def setting_sections(scores: pd.DataFrame, setting: str) -> list[Section]:
    """Return the test clips of all machines and sections with the scores of one setting.

    Args:
        scores: ``Results.setting_scores``.
        setting: Its name there.
    """
    return [
        Section(
            clips["label"] == "anomaly",
            known_domains(clips["domain"]),
            clips["score"],
            groups=recording_groups(clips.get("recording", ())),
        )
        for _, clips in scores[scores["setting"] == setting].groupby(ID, sort=False)
    ]


def distinct_settings(settings: pd.DataFrame) -> list[str]:
    """Return the names in ``settings.csv``, without ``argmax`` where that is what is used."""
    names = list(dict.fromkeys(settings["setting"]))
    if "argmax" not in names:
        return names
    rows = [settings[settings["setting"] == name] for name in ("argmax", "synthetic")]
    values = [table[[*ID, *parameters(table)]].reset_index(drop=True) for table in rows]
    return [name for name in names if name != "argmax" or not values[0].equals(values[1])]


def decisions(clips: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Count the decisions on one section's clips, per domain.

    Args:
        clips: Its rows of ``Results.clips``.
        metrics: The section's row of ``metrics.csv``.

    Returns:
        ``domain`` (empty where no clip has one), ``normal`` and ``anomalous`` clips,
        ``false_alarms``, ``detected`` anomalies, ``precision``, ``recall`` and ``f1``.
    """
    row = metrics.iloc[0]
    domains = known_domains(clips["domain"])
    table = []
    for domain, group in clips.groupby(np.full(len(clips), "") if domains is None else domains):
        anomalous, called = group["label"] == "anomaly", group["decision"] == 1
        table.append(
            {
                "domain": domain,
                "normal": int((~anomalous).sum()),
                "false_alarms": int((~anomalous & called).sum()),
                "anomalous": int(anomalous.sum()),
                "detected": int((anomalous & called).sum()),
                **{name: row[f"{name}_{domain}".rstrip("_")] for name in _DECIDED},
            }
        )
    return pd.DataFrame(table)
