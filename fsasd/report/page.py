"""One HTML page of a run: self-contained, for the screen and for paper."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.names import SectionId
from fsasd.data.pseudo_attributes import STATE
from fsasd.report import figures, listening
from fsasd.report.comparison import (
    SETTING_TITLES,
    compare_settings,
)
from fsasd.report.figures import EXPECTED
from fsasd.report.formatting import count, decimal, interval, percent, points, signed
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
from fsasd.report.test_clips import MOST_MACHINES
from fsasd.report.validation import gain_with_site, verdict_of_choices
from fsasd.selection.significance import WIDE_GAP

PER_PAGE = 25
"""Machines of a page; where there are more, they are on pages of their own."""

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


@dataclass(frozen=True)
class MachinesPage:
    """A page of some of many machines.

    Attributes:
        file: Relative to the run's folder.
        title: The first and the last of them.
        names: Of the machines.
    """

    file: str
    title: str
    names: Sequence[str]


def write_report(folder: Path, data: FirstShotDataModule | None) -> Path:
    """Write ``report.html`` into a run's folder from the files in it.

    Every file is optional, and tables may have rows of some sections only. Of many machines, each
    is on one of the pages in ``report/``, which are made one after the other.

    Args:
        folder: The run's folder.
        data: Of whose real recordings the page plays some: normal training clips of the target
            machines only. Without it, real recordings are not played.

    Returns:
        The page.
    """
    results = Results(folder)
    pages = list(_pages(results.machines))
    scenes, seconds = listening.affordable(min(len(results.machines), PER_PAGE))

    def machines(names: Sequence[str]) -> list[MachinePart]:
        return [
            machine_part(results, data, name, number, scenes, seconds, len(names) > MOST_MACHINES)
            for number, name in enumerate(names)
        ]

    environment, shared = _environment(), _shared(results, seconds)
    shutil.rmtree(results.folder / PAGES, ignore_errors=True)
    places: dict[str, str] = {}
    for page in pages:
        parts = machines(page.names)
        places |= {part.name: f"{page.file}#{part.anchor}" for part in parts}
        path = results.folder / page.file
        path.parent.mkdir(exist_ok=True)
        template = environment.get_template("machines_page.html")
        text = template.render(**shared, title=page.title, machines=parts)
        path.write_text(text, encoding="utf-8")
    parts = [] if pages else machines(results.machines)
    text = environment.get_template(PAGE).render(
        **shared, **_overview(results), machines=parts, pages=pages, places=places
    )
    path = results.folder / PAGE
    path.write_text(text, encoding="utf-8")
    return path


def _pages(machines: Sequence[str]) -> Iterator[MachinesPage]:
    if len(machines) <= PER_PAGE:
        return
    for number, first in enumerate(range(0, len(machines), PER_PAGE), 1):
        names = machines[first : first + PER_PAGE]
        title = " to ".join(dict.fromkeys([names[0], names[-1]]))
        yield MachinesPage(f"{PAGES}/machines-{number:04d}.html", title, names)


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


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(_resource),
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "points": points, "decimal": decimal, "signed": signed, "count": count,
    }  # fmt: skip
    environment.globals |= {"interval": interval, "setting_titles": SETTING_TITLES}
    return environment


def _shared(results: Results, seconds: float) -> dict[str, Any]:
    """Return what all pages show, by the names in the templates."""
    return {
        "style": Markup(_resource("report.css")),
        "palette": figures.PALETTE,
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


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
