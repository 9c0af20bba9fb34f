"""One HTML page of a run: self-contained, for the screen and for paper."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata, resources
from pathlib import Path

import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.detection.section import DECISION, read_decision
from fsasd.detectors.saved import NotAModelError
from fsasd.evaluation.metrics import OFFICIAL, known_domains
from fsasd.report import figures, listening
from fsasd.report.results import (
    UNIT,
    Headline,
    Results,
    compare_settings,
    decimal,
    decisions,
    headline,
    is_path,
    metric_titles,
    of,
    parameters,
    percent,
    points,
    title,
    told_apart,
    top_settings,
)
from fsasd.report.tables import readable
from fsasd.selection.selector import WIDE_GAP

PAGE = "report.html"
_FILES = {
    "metrics.csv": "the metrics of each machine and section, as fractions",
    "clips.csv": "score, decision, p-value and what is known of each test clip",
    "unreadable.csv": "recordings that could not be read, and why: the run went on without them",
    "selection.csv": "what each setting achieved on synthetic clips",
    "real_curve.csv": "what each setting would have achieved on the real test clips",
    "settings.csv": "baselines, the chosen setting and the oracle's",
    "setting_scores.csv": "the scores of every test clip with these settings",
    "gap.csv": "how far synthetic normal clips are from real ones",
    "costs.csv": "the numbers that each detector holds, the time to fit it and to score a clip",
    "validation.csv": "what synthetic clips chose for machines whose anomalies are known",
    "validation": "what that was made of",
    **{f"table{n}.csv": f"table {n} of the paper beside this run’s numbers" for n in range(2, 7)},
    "captions.csv": "the clips that the generator may be trained on, and their captions",
    "synthetic/manifest.csv": "the synthetic clips: caption, source, seed, kept or why not",
    "synthetic/quality.csv": "how near the synthetic clips are to real ones",
    "scores": "anomaly scores and decisions in DCASE's submission form",
    "models": "the fitted detectors",
    ".hydra": "the configuration and the command line",
}


@dataclass(frozen=True)
class SectionPart:
    """What the page shows of one section; what cannot be shown is ``None``."""

    name: str
    setting: str
    is_chosen: bool
    reason: str
    gap: dict | None
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
    odd: str
    clips: int
    alarms: int
    cost: dict | None


@dataclass(frozen=True)
class TrustPart:
    """What the page shows of reference machines that played the target."""

    table: pd.DataFrame
    verdict: str
    kept: dict[str, str]
    curves: dict[str, Markup]
    dots: Markup


@dataclass(frozen=True)
class MachinePart:
    """What the page shows of one machine."""

    name: str
    anchor: str
    sections: list[SectionPart]
    rows: list[listening.Row]
    synthesised: int
    kept: Counter[str]
    rejected: list[tuple[str, str, int]]
    quality: pd.DataFrame


def write_report(folder: Path, data: FirstShotDataModule | None) -> Path:
    """Write ``report.html`` into a run's folder from the files that the run left there.

    Every file is optional: what a run did not make, or what cannot be known without test labels,
    is said to be missing.

    Args:
        folder: The run's folder.
        data: Where real recordings are played from, normal training clips of the target machines
            only; without it none are.

    Returns:
        The page.
    """
    results = Results(folder)
    count, seconds = listening.affordable(len(results.machines))
    parts = [
        _machine(results, data, machine, number, count, seconds)
        for number, machine in enumerate(results.machines)
    ]
    path = results.folder / PAGE
    path.write_text(_render(results, parts, seconds), encoding="utf-8")
    return path


def verdict(comparison: pd.DataFrame) -> str:
    """Say in a sentence what choosing on synthetic clips was worth.

    Args:
        comparison: What ``compare_settings`` returns.
    """
    by_name = comparison.set_index("setting")
    against = [
        f"{points(-by_name['difference'][name])} points against "
        + {"oracle": "the oracle", "argmax": "the highest on them"}.get(name, name)
        for name in by_name.index
        if name != "synthetic"
    ]
    score = percent(by_name["official"]["synthetic"])
    return f"The setting chosen on synthetic clips scores {score} %: {', '.join(against)}."


def trust_verdict(validation: pd.DataFrame) -> str:
    """Say in a sentence what synthetic clips were worth on machines whose anomalies are known.

    Args:
        validation: ``Results.validation``.
    """
    mean = validation[validation["machine"] == "mean"].iloc[0]
    count = len(validation) - 1
    low, high = mean["gain_low"], mean["gain_high"]
    held = "helped" if low > 0 else "did harm" if high < 0 else "made no sure difference"
    closed = "" if math.isnan(mean["closed"]) else (
        f" They went {percent(mean['closed'], 0)} % of the way to the best setting in hindsight."
    )  # fmt: skip
    return (
        f"On {count} machine{'s' * (count != 1)} whose anomalies are known, synthetic clips "
        f"{held}: {points(mean['gain'])} points of the objective against the detector’s own "
        f"setting (95 % interval {points(low)} to {points(high)}).{closed}"
    )


def _render(results: Results, parts: list[MachinePart], seconds: float) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "points": points, "decimal": decimal}
    template = environment.from_string(_resource("report.html"))
    compared = dots = None
    if not results.settings.empty:
        compared = compare_settings(results.settings, results.setting_scores)
        dots = _svg(figures.settings_dots(results.settings), "settings")
    began = results.folder / ".hydra" / "config.yaml"
    time = datetime.fromtimestamp((began if began.is_file() else results.folder).stat().st_mtime)
    return template.render(
        style=Markup(_resource("report.css")),
        palette=figures.PALETTE,
        name=results.choices.get("experiment", results.folder.resolve().name),
        results=results,
        generator=results.choices.get("generator", "none"),
        date=f"{time:%Y-%m-%d %H:%M}",
        version=metadata.version("fsasd"),
        headline=headline(results.metrics),
        coverage=_coverage(
            headline(results.metrics),
            int(results.metrics["section"].notna().sum()),
            len(results.units),
        ),
        metrics=_metrics_rows(results),
        titles=metric_titles(results.metrics[results.metrics["section"].notna()]),
        compared=compared,
        areas=metric_titles(results.settings, decided=False),
        verdict="" if compared is None else verdict(compared),
        dots=dots,
        trust=None if results.validation.empty else _trust(results),
        machines=parts,
        kinds=listening.KINDS,
        seconds=seconds,
        wide_gap=WIDE_GAP,
        tables={number: readable(number, table) for number, table in results.tables.items()},
        captions=_captions(results.captions),
        command=shlex.join(["fsasd", *results.overrides]),
        config=yaml.safe_dump(results.config, sort_keys=False) if results.config else "",
        files={f: text for f, text in _FILES.items() if (results.folder / f).exists()},
    )


def _machine(
    results: Results,
    data: FirstShotDataModule | None,
    machine: str,
    number: int,
    count: int,
    seconds: float,
) -> MachinePart:
    own = of(results.manifest, machine)
    real = []
    if data is not None:
        normal = data.machine(machine).where(split="train", label="normal")
        real = [(clip, data.captions(clip)) for clip in normal]
    chosen = listening.scenes(own, results.folder / "synthetic", real, count)
    lost = listening.rejected(own)
    kept = Counter(own["label"]) if len(own) else Counter()
    for label, _, rejections in lost:
        kept[label] -= rejections
    return MachinePart(
        name=machine,
        anchor=f"machine-{number}",
        sections=[_section(results, *unit) for unit in results.units if unit[0] == machine],
        rows=listening.players(chosen, seconds, data.cache.channel if data else None),
        synthesised=len(own),
        kept=kept,
        rejected=lost,
        quality=of(results.quality, machine),
    )


def _section(results: Results, machine: str, section: str) -> SectionPart:
    clips = of(results.clips, machine, section)
    curve = of(results.selection, machine, section)
    real = of(results.real_curve, machine, section)
    metrics = of(results.metrics, machine, section)
    settings = of(results.settings, machine, section)
    name = f"{machine}-{section}"
    path = not curve.empty and is_path(curve)
    gap = of(results.gap, machine, section)
    no_roc = _no_roc(clips)
    cost = of(results.costs, machine, section)
    return SectionPart(
        name=section,
        setting=results.setting(machine, section),
        is_chosen=not curve.empty,
        reason=results.reason(machine, section),
        gap=None if gap.empty else gap.iloc[0].to_dict(),
        best=math.nan if curve.empty else float(curve["objective"].max()),
        curve=_svg(figures.selection_curve(curve, real), f"curve-{name}") if path else None,
        top=None if path or curve.empty else top_settings(curve, real),
        divided=known_domains(clips["domain"]) is not None,
        areas=metric_titles(settings, decided=False),
        roc=None if no_roc else _svg(figures.roc(clips), f"roc-{name}"),
        no_roc=no_roc,
        histogram=_svg(figures.score_histogram(clips), f"histogram-{name}"),
        decisions=None if metrics.empty else decisions(clips, metrics),
        settings=None if settings.empty else _titled_settings(settings),
        threshold=float(clips["threshold"].iloc[0]),
        odd=_odd_clips(results.folder / "models" / machine / f"section_{section}" / DECISION),
        clips=len(clips),
        alarms=int(clips["decision"].sum()),
        cost=None if cost.empty else cost.iloc[0].to_dict(),
    )


def _odd_clips(decision: Path) -> str:
    try:
        return read_decision(decision)[0].odd_clips() if decision.is_file() else ""
    except NotAModelError:
        # A run of another version, whose other results the page shows all the same.
        return ""


def _no_roc(clips: pd.DataFrame) -> str:
    if unknown := int(clips["label"].isna().sum()):
        return f"the labels of {unknown} of {len(clips)} test clips are not known"
    missing = {"normal", "anomaly"} - set(clips["label"])
    return f"there is no test clip with label {missing.pop()}" if missing else ""


def _titled_settings(settings: pd.DataFrame) -> pd.DataFrame:
    settings = settings[settings["setting"].isin(told_apart(settings))]
    values = [title(row) for row in settings[parameters(settings)].to_dict("records")]
    return settings.assign(value=values)


def _trust(results: Results) -> TrustPart:
    trials = results.trials
    curves = {}
    for machine, section in results.validation.loc[:, UNIT].itertuples(index=False):
        curve = of(trials.selection, machine, section)
        if not curve.empty and is_path(curve) and curve["objective"].notna().any():
            real = of(trials.real_curve, machine, section)
            drawing = figures.selection_curve(curve, real)
            curves[f"{machine} {section}"] = _svg(drawing, f"trial-{machine}-{section}")
    kept = results.validation.dropna(subset=["reason"])
    names = kept["machine"] + " " + kept["section"]
    return TrustPart(
        results.validation, trust_verdict(results.validation),
        dict(zip(names, kept["reason"], strict=True)), curves,
        _svg(figures.settings_dots(trials.settings), "trials"),
    )  # fmt: skip


def _metrics_rows(results: Results) -> pd.DataFrame:
    table = results.metrics
    if table.empty:
        return table
    table = table[table["machine"] != "official score"].assign(section=table["section"].fillna(""))
    chosen = [
        results.setting(machine, section) if section else ""
        for machine, section in zip(table["machine"], table["section"], strict=True)
    ]
    return table.assign(setting=chosen)


def _coverage(found: Headline | None, sections: int, units: int) -> str:
    if found is None:
        return ""
    undivided = sections * len(OFFICIAL) - found.cells
    areas = "AUC and pAUC" if undivided == sections else "AUC (source), AUC (target) and pAUC"
    what = f"{areas} of {sections} section{'s' * (sections != 1)}"
    if 0 < undivided < sections:
        what += f" (of {undivided} AUC and pAUC: their clips have no domain)"
    text = f"Harmonic mean of all {found.cells} cells: {what}. None of them is undefined."
    if found.undefined:
        are = "is" if found.undefined == 1 else "are"
        text = (
            f"Harmonic mean of {found.cells - found.undefined} of {found.cells} cells: {what}. "
            f"{found.undefined} {are} undefined and not in the mean (shown as —)."
        )
    if unknown := units - sections:
        text += f" Without labels, and so left out: {unknown} of {units} sections."
    return text


def _captions(table: pd.DataFrame, per_machine: int = 2) -> pd.DataFrame:
    if table.empty:
        return table
    groups = table.groupby(["role", "machine", "label"], sort=False, dropna=False)
    distinct = table.drop_duplicates("caption").groupby(["machine", "label"], dropna=False)
    return distinct.head(per_machine).assign(
        clips=lambda rows: groups["caption"].transform("size").loc[rows.index]
    )


def _svg(figure: Figure, name: str) -> Markup:
    # Written by matplotlib, which escapes the text in it.
    return Markup(figures.svg(figure, name))


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
