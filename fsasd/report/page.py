"""One HTML page of a run: self-contained, for the screen and for paper."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment
from markupsafe import Markup

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.names import SectionId
from fsasd.data.pseudo_attributes import STATE
from fsasd.report import figures, listening
from fsasd.report.comparison import compare_settings
from fsasd.report.cost import ARTIFACTS, Builds, stage_costs
from fsasd.report.figures import EXPECTED
from fsasd.report.formatting import percent, points
from fsasd.report.heading import PAGE, PAGES, Heading
from fsasd.report.headline import headline
from fsasd.report.machine_part import MachinePart, curve_figure, inline, machine_part
from fsasd.report.results import (
    FAILED,
    ID,
    Results,
    is_path,
    metric_titles,
)
from fsasd.report.tables import readable
from fsasd.report.templates import environment
from fsasd.report.test_clips import MOST_MACHINES
from fsasd.report.training import trainings
from fsasd.report.validation import gain_with_site, verdict_of_choices
from fsasd.selection.significance import WIDE_GAP

TOGETHER = 20
"""Machines that are on one page with the results; of more, each has a page of its own."""

_FILES = {
    "metrics.csv": "metrics of each machine and section, as fractions",
    "clips.csv": "score, decision, p-value and metadata of each test clip",
    FAILED: "sections without a result: stage and reason",
    "unreadable.csv": "recordings that could not be read and were left out, with the reason",
    "selection.csv": "metrics of each setting on synthetic clips, and the choice",
    "real_curve.csv": "metrics of each setting on the real test clips",
    "settings.csv": "baselines, the setting that is used and the oracle’s",
    "setting_scores.csv": "scores of every test clip with these settings",
    "sources.csv": "what each source of evidence contributed to the choice of a setting",
    ARTIFACTS: "artifacts of the run: key, time, size, where and with what they were built",
    "costs.csv": "parameters of each detector, seconds to fit it, milliseconds to score a clip",
    "validation.csv": "leave-one-machine-out validation on the reference machines",
    "validation": "curves and scores of the reference machines",
    **{f"table{n}.csv": f"table {n} of the paper beside this run’s numbers" for n in range(2, 7)},
    "captions.csv": "the clips that the generator is trained on, with their captions",
    "synthetic/manifest.csv": "the synthetic clips: caption, source, seed, kept or rejected",
    "synthetic/quality.csv": "distances between synthetic and real clips",
    "synthetic/gap.csv": "how far synthetic normal clips are from real ones, and in what",
    "synthetic/differences.csv": "level and unsteadiness of both in each band",
    "scores": "anomaly scores and decisions in DCASE’s submission format",
    "models": "the fitted detectors",
    ".hydra": "the configuration and the command line",
}


@dataclass(frozen=True)
class ValidationPart:
    """The leave-one-machine-out validation on the page."""

    table: pd.DataFrame
    verdict: str
    abstained: dict[str, str]
    curves: dict[str, Markup]
    dots: Markup


def write_report(folder: Path, data: FirstShotDataModule | None) -> Path:
    """Write ``report.html`` into a run's folder from the files in it.

    Every file is optional, and tables may have rows of some sections only. Of more machines than
    ``TOGETHER``, each has a page in ``report/``; they are made one after the other.

    Args:
        folder: The run's folder.
        data: Of whose real recordings the page plays some: normal training clips of the target
            machines only. Without it, real recordings are not played.

    Returns:
        The page.
    """
    results = Results(folder)
    names = results.machines
    # A page of one machine of many has as much to listen to as it would have beside a few.
    scenes, seconds = listening.affordable(len(names) if len(names) <= TOGETHER else MOST_MACHINES)
    few = len(names) > MOST_MACHINES
    parts = (
        machine_part(results, data, name, number, scenes, seconds, few)
        for number, name in enumerate(names, 1)
    )
    pages, shared = environment(), _shared(results, seconds)
    shutil.rmtree(results.folder / PAGES, ignore_errors=True)
    if len(names) <= TOGETHER:
        machines = list(parts)
        places = {part.name: f"#{part.anchor}" for part in machines}
    else:
        machines, places = [], _machine_files(names)
        _write_machines(results.folder, pages, shared, parts, places)
    text = pages.get_template(PAGE).render(
        **shared, **_overview(results), title="", machines=machines, places=places, overview=""
    )
    path = results.folder / PAGE
    path.write_text(text, encoding="utf-8")
    return path


def _machine_files(names: Sequence[str]) -> dict[str, str]:
    """Return the pages of machines, relative to the run's folder, by their names."""
    # A machine's name may hold what no file's may.
    return {name: f"{PAGES}/machine-{number:04d}.html" for number, name in enumerate(names, 1)}


def _write_machines(
    folder: Path,
    pages: Environment,
    shared: dict[str, Any],
    parts: Iterable[MachinePart],
    places: dict[str, str],
) -> None:
    (folder / PAGES).mkdir()
    template, names = pages.get_template("machine.html"), [None, *places, None]
    for part, before, after in zip(parts, names, names[2:], strict=False):
        # The pages of its neighbours are in the same folder.
        beside = {
            title: (name, Path(places[name]).name)
            for title, name in (("Previous", before), ("Next", after))
            if name is not None
        }
        text = template.render(
            **shared, title=part.name, machines=[part], beside=beside, overview=f"../{PAGE}"
        )
        (folder / places[part.name]).write_text(text, encoding="utf-8")


def verdict(comparison: pd.DataFrame) -> str:
    """Describe in a sentence how the setting that was used compares with the others.

    Args:
        comparison: What ``compare_settings`` returns.
    """
    by_name = comparison.set_index("setting")
    names = {"oracle": "the oracle", "argmax": "the highest on synthetic clips"}
    against = [
        f"{points(-by_name['difference'][name])} points against {names.get(name, name)}"
        for name in by_name.index
        if name != "synthetic"
    ]
    score = percent(by_name["official"]["synthetic"])
    return f"With the setting that was used, the official score is {score} %: {'; '.join(against)}."


def _shared(results: Results, seconds: float) -> dict[str, Any]:
    """Return what all pages show, by the names in the templates."""
    return {
        "name": Heading.of(results.folder, results.choices.get("experiment")).name,
        "results": results,
        "kinds": listening.KINDS,
        "seconds": seconds,
        "wide_gap": WIDE_GAP,
    }


def _overview(results: Results) -> dict[str, Any]:
    compared = dots = None
    if not results.settings.empty:
        compared = compare_settings(results.settings, results.setting_scores)
        dots = inline(figures.settings_dots(results.settings), "settings")
    return {
        "generator": results.choices.get("generator", "none"),
        "date": Heading.of(results.folder, results.choices.get("experiment")).date,
        "version": metadata.version("fsasd"),
        "headline": headline(results),
        "metrics": _metrics_rows(results),
        "titles": metric_titles(results.metrics[results.metrics["section"].notna()]),
        "compared": compared,
        "areas": metric_titles(results.settings, decided=False),
        "verdict": "" if compared is None else verdict(compared),
        "dots": dots,
        "validation": None if results.validation.empty else _validation(results),
        "tables": {number: readable(number, table) for number, table in results.tables.items()},
        "trainings": trainings(results.folder),
        "costs": stage_costs(results.artifacts) if len(results.artifacts) else None,
        "builds": Builds.of(results.artifacts) if len(results.artifacts) else None,
        "detector_costs": results.costs.dropna(subset=["section"]),
        "captions": _captions(results.captions),
        "states": _states(results.captions),
        "command": shlex.join(["fsasd", *results.overrides]),
        "config": yaml.safe_dump(results.config, sort_keys=False) if results.config else "",
        "files": {f: text for f, text in _FILES.items() if (results.folder / f).exists()},
    }


def _validation(results: Results) -> ValidationPart:
    references = results.references
    curves = {}
    for section in map(SectionId._make, results.validation[ID].to_numpy()):
        curve = references.rows("selection", *section)
        known = EXPECTED in curve or (not curve.empty and curve["objective"].notna().any())
        if known and is_path(curve):
            real = references.rows("real_curve", *section)
            curves[str(section)] = curve_figure(curve, real, f"reference-{'-'.join(section)}")
    abstained = results.validation.dropna(subset=["abstain_reason"])
    names = abstained["machine"] + " section " + abstained["section"]
    return ValidationPart(
        results.validation,
        f"{verdict_of_choices(results.validation)} {gain_with_site(results.validation)}".strip(),
        dict(zip(names, abstained["abstain_reason"], strict=True)), curves,
        inline(figures.settings_dots(references.settings), "references"),
    )  # fmt: skip


def _metrics_rows(results: Results) -> pd.DataFrame:
    table = results.metrics
    if table.empty:
        return table
    table = table[table["machine"] != "official score"].assign(section=table["section"].fillna(""))
    settings = [
        results.setting(SectionId(machine, section)) if section else ""
        for machine, section in zip(table["machine"], table["section"], strict=True)
    ]
    return table.assign(setting=settings)


def _captions(table: pd.DataFrame, per_machine: int = 2) -> pd.DataFrame:
    if table.empty:
        return table
    groups = table.groupby(["role", "machine", "label"], sort=False, dropna=False)
    distinct = table.drop_duplicates("caption").groupby(["machine", "label"], dropna=False)
    return distinct.head(per_machine).assign(
        clips=lambda rows: groups["caption"].transform("size").loc[rows.index]
    )


def _states(captions: pd.DataFrame) -> pd.DataFrame:
    """Return machine, section, operating state and its clips, where states were found.

    Without the section if there is only one of each machine.
    """
    if STATE not in captions:
        return captions[:0]
    known = captions[captions[STATE].notna()].astype({STATE: int})
    sections = known[["machine", "section"]].drop_duplicates()
    several = sections["machine"].duplicated().any()
    of = ["machine", "section"] if several else ["machine"]
    return known.groupby([*of, STATE]).size().reset_index(name="clips")
