"""One machine on the report page: its sections, recordings and the quality of synthetic clips."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.names import SectionId
from fsasd.detection.decision import DECISION, read_decision
from fsasd.detectors.saved import NotAModelError
from fsasd.evaluation.calibration import Calibration
from fsasd.evaluation.metrics import known_domains
from fsasd.report import figures, listening
from fsasd.report.comparison import decisions, distinct_settings, top_settings
from fsasd.report.evidence import explanation
from fsasd.report.figures import EXPECTED
from fsasd.report.results import Results, is_path, metric_titles, setting_titles
from fsasd.report.test_clips import TestClipPart, test_clips


@dataclass(frozen=True)
class SectionPart:
    """One section on the page; what the run's folder does not have is ``None``."""

    name: str
    setting: str
    is_chosen: bool
    abstain_reason: str
    explanation: str
    gap: dict | None
    spectra: Markup | None
    best: float
    curve: Markup | None
    top: pd.DataFrame | None
    divided: bool
    areas: dict[str, str]
    roc: Markup | None
    no_roc: str
    histogram: Markup
    decisions: pd.DataFrame | None
    settings: pd.DataFrame | None
    threshold: float
    false_alarm_rate: float | None
    odd: str
    clips: int
    alarms: int
    cost: dict | None


@dataclass(frozen=True)
class MachinePart:
    """One machine on the page."""

    name: str
    anchor: str
    sections: list[SectionPart]
    rows: list[listening.Row]
    synthesised: int
    kept: Counter[str]
    rejected: list[tuple[str, str, int]]
    quality: pd.DataFrame
    test_clips: list[TestClipPart]


def machine_part(
    results: Results,
    data: FirstShotDataModule | None,
    machine: str,
    number: int,
    scenes: int,
    seconds: float,
    few: bool,
) -> MachinePart:
    """Return what the page shows of a machine.

    Args:
        results: Of the run.
        data: Of whose real recordings some are played; ``None`` plays none.
        machine: Its name.
        number: Of the machine on the page, for its anchor.
        scenes: How many recordings to play beside synthetic ones.
        seconds: Of each that are played.
        few: Show one test clip only.
    """
    manifest = results.rows("manifest", machine)
    real = []
    if data is not None:
        normal = data.machine(machine).where(split="train", label="normal")
        real = [(clip, data.captions(clip)) for clip in normal]
    chosen = listening.scenes(manifest, results.folder / "synthetic", real, scenes)
    rejected = listening.rejected(manifest)
    kept = Counter(manifest["label"]) if len(manifest) else Counter()
    for label, _, rejections in rejected:
        kept[label] -= rejections
    return MachinePart(
        name=machine,
        anchor=f"machine-{number}",
        sections=[_section(results, s) for s in results.sections_of(machine)],
        rows=listening.players(chosen, seconds, data.cache.channel if data else None),
        synthesised=len(manifest),
        kept=kept,
        rejected=rejected,
        quality=results.rows("quality", machine),
        test_clips=test_clips(results, data, machine, seconds, few),
    )


def _section(results: Results, section: SectionId) -> SectionPart:
    clips = results.rows("clips", *section)
    curve = results.rows("selection", *section)
    real = results.rows("real_curve", *section)
    metrics = results.rows("metrics", *section)
    settings = results.rows("settings", *section)
    name = "-".join(section)
    path = not curve.empty and is_path(curve)
    gap = results.rows("gap", *section)
    differences = results.rows("differences", *section)
    no_roc = _no_roc(clips)
    cost = results.rows("costs", *section)
    model = results.folder / "models" / section.machine / f"section_{section.section}"
    calibration = _calibration(model / DECISION)
    return SectionPart(
        name=section.section,
        setting=results.setting(section),
        is_chosen=not curve.empty,
        abstain_reason=results.abstain_reason(section),
        explanation=explanation(results.rows("sources", *section)),
        gap=None if gap.empty else gap.fillna({"words": ""}).iloc[0].to_dict(),
        spectra=None
        if differences.empty
        else inline(figures.spectra(differences), f"spectra-{name}"),
        best=math.nan if curve.empty else float(curve["objective"].max()),
        curve=curve_figure(curve, real, f"curve-{name}") if path else None,
        top=None if path or curve.empty else top_settings(curve, real),
        divided=known_domains(clips["domain"]) is not None,
        areas=metric_titles(settings, decided=False),
        roc=None if no_roc else inline(figures.roc(clips), f"roc-{name}"),
        no_roc=no_roc,
        histogram=inline(figures.score_histogram(clips), f"histogram-{name}"),
        decisions=None if metrics.empty else decisions(clips, metrics),
        settings=None if settings.empty else _titled_settings(settings),
        threshold=float(clips["threshold"].iloc[0]),
        false_alarm_rate=calibration.false_alarm_rate if calibration else None,
        odd=calibration.odd_clips() if calibration else "",
        clips=len(clips),
        alarms=int(clips["decision"].sum()),
        cost=None if cost.empty else cost.iloc[0].to_dict(),
    )


def curve_figure(curve: pd.DataFrame, real: pd.DataFrame, name: str) -> Markup:
    """Return the figure of a section's curve on synthetic clips, and on real ones below it."""
    draw = figures.expected_gains if EXPECTED in curve else figures.selection_curve
    return inline(draw(curve, real), name)


def inline(figure: Figure, name: str) -> Markup:
    """Return a figure as a part of the page."""
    # Written by matplotlib, which escapes the text in it.
    return Markup(figures.svg(figure, name))


def _calibration(decision: Path) -> Calibration | None:
    try:
        return read_decision(decision)[0] if decision.is_file() else None
    except NotAModelError:
        # Written by another version: the page shows the other results of the run.
        return None


def _no_roc(clips: pd.DataFrame) -> str:
    if unknown := int(clips["label"].isna().sum()):
        return f"the labels of {unknown} of {len(clips)} test clips are not known"
    missing = {"normal", "anomaly"} - set(clips["label"])
    return f"there is no test clip with label {missing.pop()}" if missing else ""


def _titled_settings(settings: pd.DataFrame) -> pd.DataFrame:
    settings = settings[settings["setting"].isin(distinct_settings(settings))]
    return settings.assign(value=setting_titles(settings))
