"""What a run left, read back, and the tables that are made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pandas.api.types import is_numeric_dtype

from fsasd.evaluation.metrics import (
    OFFICIAL,
    Section,
    harmonic_mean,
    known_domains,
    official_score,
    without_domains,
)
from fsasd.evaluation.uncertainty import paired_difference
from fsasd.selection.selector import title
from fsasd.settings.objects import described_by_name

UNIT = ["machine", "section"]
UNDEFINED = "—"
_TEXT = (*UNIT, "domain", "label", "caption", "raw_label", "reason", "wav", "setting")
_METRICS = {"auc", "auc_source", "auc_target", "pauc", "objective", "low", "high", "picked"}
_DECIDED = ("precision", "recall", "f1")
_NOT_PARAMETERS = {
    *UNIT, *_METRICS, "setting", "own", "argmax", "chosen", "oracle", "reason"
}  # fmt: skip


@dataclass(frozen=True)
class Headline:
    """The official score of a run, fractions; NaN where undefined.

    Attributes:
        score: Harmonic mean over all machines, sections and official metrics.
        low: Lower end of its 95 % interval.
        high: Upper end.
        cells: How many metrics could have entered it.
        undefined: How many of them do not exist.
    """

    score: float
    low: float
    high: float
    cells: int
    undefined: int


class Results:
    """The files in a run's folder. A table whose file is missing is empty.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.clips = self._table("clips.csv")
        if "score" in self.clips:
            # Those that could not be read have none.
            self.clips = self.clips.dropna(subset="score")
        self.metrics = self._table("metrics.csv")
        self.costs = self._table("costs.csv")
        self.selection = self._table("selection.csv")
        self.real_curve = self._table("real_curve.csv")
        self.settings = self._table("settings.csv")
        self.setting_scores = self._table("setting_scores.csv")
        self.gap = self._table("gap.csv")
        self.validation = self._table("validation.csv")
        made = {n: self.folder / f"table{n}.csv" for n in range(2, 7)}
        self.tables = {
            n: read_frame(path, [*_TEXT, "row", "column", *(["paper", "run"] if n == 3 else [])])
            for n, path in made.items()
            if path.is_file()
        }
        self.captions = self._table("captions.csv")
        self.manifest = self._table("synthetic/manifest.csv")
        self.quality = self._table("synthetic/quality.csv")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as Hydra wrote it, interpolations left as they are."""
        return self._yaml("config.yaml")

    @cached_property
    def choices(self) -> dict[str, str]:
        """Configuration group to what was chosen of it."""
        hydra = self._yaml("hydra.yaml").get("hydra", {})
        chosen = hydra.get("runtime", {}).get("choices", {})
        return {k: str(v) for k, v in chosen.items() if v is not None and "/" not in k}

    @cached_property
    def overrides(self) -> list[str]:
        """What the command line said."""
        return list(self._yaml("overrides.yaml") or [])

    @property
    def is_simulated(self) -> bool:
        """Whether the recordings are the simulated factory's."""
        return str(self._group("data").get("_target_", "")).endswith("from_factory")

    @property
    def units(self) -> list[tuple[str, str]]:
        """Machine and section of everything that was scored, in the order of the files."""
        pairs = self.clips[UNIT].drop_duplicates()
        return list(zip(pairs["machine"], pairs["section"], strict=True))

    @property
    def machines(self) -> list[str]:
        """Machines that were scored or synthesised."""
        return list(dict.fromkeys([*self.clips["machine"], *self.manifest["machine"]]))

    @property
    def trials(self) -> Results:
        """What reference machines left that played the target."""
        return Results(self.folder / "validation")

    def reason(self, machine: str, section: str) -> str:
        """Say why a detector keeps its own setting; empty where it takes another."""
        curve = of(self.selection, machine, section)
        told = curve["reason"].dropna() if "reason" in curve else curve["machine"][:0]
        return "" if told.empty else str(told.iloc[0])

    def setting(self, machine: str, section: str) -> str:
        """Say which setting the detector has, e.g. ``r=0.98``.

        Without synthetic clips it keeps its own: then the parameters that could have been chosen
        are told as the saved detector has them.
        """
        curve = of(self.selection, machine, section)
        if not curve.empty:
            return title(curve[curve["chosen"]].iloc[0][parameters(curve)].to_dict())
        saved = self.folder / "models" / machine / f"section_{section}" / "detector.json"
        about = json.loads(saved.read_text()) if saved.is_file() else None
        own = dict(described_by_name(about["params"])) if about else {}
        grids = self._group("selection").get("grid") or {}
        grids = [grids] if isinstance(grids, dict) else grids
        # Interpolated values are not known here; of several grids, the others tell which it is.
        own_grid = next(
            (
                grid
                for grid in grids
                if all(isinstance(v, str) or own.get(k) in v for k, v in grid.items())
            ),
            {key: None for grid in grids for key in grid},
        )
        return title({key: own[key] for key in own_grid if key in own}) or "its own"

    def _group(self, name: str) -> dict[str, Any]:
        group = self.config.get(name)
        return group if isinstance(group, dict) else {}

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        if not path.is_file():
            return pd.DataFrame(columns=UNIT)
        return read_frame(path)

    def _yaml(self, name: str) -> Any:
        path = self.folder / ".hydra" / name
        return (yaml.safe_load(path.read_text()) if path.is_file() else None) or {}


def read_frame(path: Path, text: Sequence[str] = _TEXT) -> pd.DataFrame:
    """Read a table that fsasd wrote; an empty cell is unknown.

    A section is a name, 00 is not 0; so is a machine, which may be called 101 or NA; and a column
    of text without any value is no number.

    Args:
        path: The CSV file.
        text: Columns of text.
    """
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])


def of(table: pd.DataFrame, machine: str, section: str | None = None) -> pd.DataFrame:
    """Return the rows of a machine, and section."""
    rows = table[table["machine"] == machine]
    return rows if section is None else rows[rows["section"] == section]


def parameters(curve: pd.DataFrame) -> list[str]:
    """Return the columns of a selection curve that are a detector's parameters.

    >>> parameters(pd.DataFrame(columns=["machine", "section", "r", "auc", "pauc", "chosen"]))
    ['r']
    """
    return [column for column in curve.columns if column not in _NOT_PARAMETERS]


def is_path(curve: pd.DataFrame) -> bool:
    """Say whether settings lie on a line: one numeric parameter with a few values at least.

    >>> is_path(pd.DataFrame({"r": [0.0, 0.5, 1.0, 1.1], "auc": 0.5}))
    True
    >>> is_path(pd.DataFrame({"pool": ["mean", "max"], "auc": 0.5}))
    False
    """
    names = parameters(curve)
    return len(names) == 1 and is_numeric_dtype(curve[names[0]]) and curve[names[0]].nunique() > 3


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction in percent, without the sign; undefined is a dash.

    >>> percent(0.78958), percent(float("nan"))
    ('79.0', '—')
    """
    return UNDEFINED if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def decimal(value: float) -> str:
    """Write a number with three significant digits; undefined is a dash.

    >>> decimal(0.04309), decimal(1665.57), decimal(-1.0274), decimal(float("nan"))
    ('0.0431', '1670', '−1.03', '—')
    """
    if math.isnan(value):
        return UNDEFINED
    text = f"{float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".")
    return text.replace("-", "−")


def points(difference: float) -> str:
    """Write a difference of fractions in percentage points, with its sign.

    >>> points(0.042), points(-0.01), points(-0.0001)
    ('+4.2', '−1.0', '0.0')
    """
    if math.isnan(difference):
        return UNDEFINED
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def headline(metrics: pd.DataFrame) -> Headline | None:
    """Return the official score and its interval; ``None`` without metrics."""
    if metrics.empty:
        return None
    counted = official_score(metrics)
    row = metrics[metrics["machine"] == "official score"].iloc[0]
    score, low, high = (float(row[name]) for name in ("official_score", "ci_low", "ci_high"))
    return Headline(score, low, high, counted.cells, counted.undefined)


def metric_titles(metrics: pd.DataFrame, decided: bool = True) -> dict[str, str]:
    """Return the columns of ``metrics.csv`` to show, with their titles.

    Two AUCs and two F1s where clips have a domain, one of each where they have none.

    Args:
        metrics: Rows of ``metrics.csv``, or of another table with AUCs.
        decided: Whether F1 is among them.

    >>> metrics = pd.DataFrame([{"auc": 0.8, "auc_source": None, "auc_target": None, "pauc": 0.7}])
    >>> metric_titles(metrics)
    {'auc': 'AUC', 'pauc': 'pAUC', 'f1': 'F1'}
    """
    undivided = without_domains(metrics)
    suffixes = [""] * bool(undivided.any())
    suffixes += ["_source", "_target"] * (not undivided.any() or not undivided.all())
    titles = {f"auc{suffix}": "AUC" + suffix.replace("_", " ") for suffix in suffixes}
    titles["pauc"] = "pAUC"
    if decided:
        titles |= {f"f1{suffix}": "F1" + suffix.replace("_", " ") for suffix in suffixes}
    return titles


def top_settings(curve: pd.DataFrame, real: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """Sort settings by their objective on synthetic clips, best first.

    Args:
        curve: ``selection.csv`` of one machine and section.
        real: ``real_curve.csv`` of the same, or empty.
        count: How many to keep; the chosen one and the oracle's stay whatever their place.

    Returns:
        ``setting``, ``auc``, ``pauc``, ``objective``, ``chosen``; with real clips ``real``, their
        objective, and ``oracle``.
    """
    names = parameters(curve)
    table = curve[["auc", "pauc", "objective", "chosen"]].reset_index(drop=True)
    table.insert(0, "setting", [title(row) for row in curve[names].to_dict("records")])
    table["oracle"] = False
    if not real.empty:
        titles = [title(row) for row in real[names].to_dict("records")]
        known = real.assign(setting=titles).set_index("setting")
        table["real"] = table["setting"].map(known["objective"])
        table["oracle"] = table["setting"].map(known["oracle"]).eq(True)
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
        ``undefined`` cells, ``difference`` to ``synthetic`` with ``low``
        and ``high``; fractions. Without ``argmax`` where that is what is used.

    >>> columns = ["machine", "section", "setting", "auc_source", "auc_target", "pauc"]
    >>> rows = [["fan", "00", "r=1", 0.6, 0.6, 0.6], ["fan", "00", "synthetic", 0.7, 0.7, 0.7]]
    >>> compare_settings(pd.DataFrame(rows, columns=columns))["difference"].round(3).tolist()
    [-0.1, 0.0]
    """
    settings = settings[settings["setting"].isin(told_apart(settings))]
    rows = []
    for name, own in settings.groupby("setting", sort=False):
        official = official_score(own)
        means = {metric: harmonic_mean(own[metric]) for metric in OFFICIAL}
        if (undivided := without_domains(own)).any():
            means["auc"] = harmonic_mean(own.loc[undivided, "auc"])
        rows.append(
            {"setting": name, "official": official.value, **means, "undefined": official.undefined}
        )
    table = pd.DataFrame(rows)
    chosen = table.loc[table["setting"] == "synthetic", "official"]
    table["difference"] = table["official"] - (chosen.iloc[0] if len(chosen) else math.nan)
    table[["low", "high"]] = math.nan
    if scores is not None and not scores.empty:
        used = setting_sections(scores, "synthetic")
        for i, name in enumerate(table["setting"]):
            interval = paired_difference(setting_sections(scores, name), used).interval
            table.loc[i, ["low", "high"]] = interval.low, interval.high
    return table


def setting_sections(scores: pd.DataFrame, setting: str) -> list[Section]:
    """Return the test clips of all machines and sections as one of the settings scored them.

    Args:
        scores: ``Results.setting_scores``.
        setting: Its name there.
    """
    own = scores[scores["setting"] == setting]
    return [
        Section(part["label"] == "anomaly", known_domains(part["domain"]), part["score"])
        for _, part in own.groupby(UNIT, sort=False)
    ]


def told_apart(settings: pd.DataFrame) -> list[str]:
    """Return the names in ``settings.csv``, without ``argmax`` where that is what is used."""
    names = list(dict.fromkeys(settings["setting"]))
    if "argmax" not in names:
        return names
    parts = [settings[settings["setting"] == name] for name in ("argmax", "synthetic")]
    values = [part[[*UNIT, *parameters(part)]].reset_index(drop=True) for part in parts]
    return [name for name in names if name != "argmax" or not values[0].equals(values[1])]


def decisions(clips: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Count the decisions on one section's clips, per domain.

    Args:
        clips: Its rows of ``Results.clips``.
        metrics: The section's row of ``metrics.csv``.

    Returns:
        ``domain`` (empty where no clip has one), ``normal`` and ``anomalous`` clips, false
        ``alarms``, ``found`` anomalies, ``precision``, ``recall`` and ``f1``.
    """
    row = metrics.iloc[0]
    domains = known_domains(clips["domain"])
    table = []
    for domain, own in clips.groupby(np.full(len(clips), "") if domains is None else domains):
        anomalous, called = own["label"] == "anomaly", own["decision"] == 1
        table.append(
            {
                "domain": domain,
                "normal": int((~anomalous).sum()),
                "alarms": int((~anomalous & called).sum()),
                "anomalous": int(anomalous.sum()),
                "found": int((anomalous & called).sum()),
                **{name: row[f"{name}_{domain}".rstrip("_")] for name in _DECIDED},
            }
        )
    return pd.DataFrame(table)
