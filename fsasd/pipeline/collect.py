"""From the artifacts of all sections to the tables in a run's folder; cheap, and of no artifact.

Only here are the labels of test clips looked at, so that no artifact depends on them.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fsasd.data.clips import Clips
from fsasd.data.names import SectionId
from fsasd.detection.section import SectionResult, load_scores, log_selection, warn_of_gap
from fsasd.detection.tables import write, write_validation
from fsasd.generation.gap import DIFFERENCES, GAP
from fsasd.generation.quality import QUALITY
from fsasd.generation.synthetic_clips import MANIFEST, read_table, write_table
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.model_cards import write_model_cards, write_profiles
from fsasd.pipeline.outcome import Outcome
from fsasd.pipeline.run_folder import note
from fsasd.pipeline.stages.curve import evidence_of
from fsasd.pipeline.stages.detect import test_clips
from fsasd.pipeline.stages.rule import cases, selections
from fsasd.selection.cases import choose_all
from fsasd.selection.choice import Hindsight, in_hindsight
from fsasd.selection.selection import Selection
from fsasd.selection.sources.base import Case
from fsasd.selection.validation import ValidatedSection, validation_clips
from fsasd.store.atomic import replace_folder
from fsasd.store.provenance import PROVENANCE, Provenance

log = logging.getLogger(__name__)

_TABLES = ".tables"
"""Folder in the run's folder that tables are written to."""


def collect(run: Experiment, outcome: Outcome, folder: Path) -> None:
    """Write the tables of all sections that have results.

    Args:
        run: The experiment.
        outcome: Its artifacts.
        folder: The run's folder.
    """
    # What there is of tables is complete, and is taken away when a run is repeated here.
    tables = folder / _TABLES
    note(folder, [_TABLES])
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir()
    collect_synthetic(outcome, folder)
    results, curves = [], outcome.of("curve")
    known = cases(run, curves)
    chosen = selections(run, known)
    for section, path in outcome.of("detect").items():
        test = test_clips(run.data, section)
        selection = hindsight = None
        if section in curves:
            selection = chosen[section]
            hindsight = judge_choice(run, curves[section], selection, test)
            # What is chosen, and why the default setting is kept, the console prints.
            warn_of_gap(section, selection)
        results.append(SectionResult(load_scores(path), test, selection, hindsight))
    if results:
        write(tables, results, training_seconds(outcome))
        write_model_cards(run, results, outcome.of("detect"), folder)
        write_profiles(run, [result.section for result in results], folder)
    collect_validation(run, curves, known, chosen, tables)
    note(folder, [path.name for path in tables.iterdir()])
    for path in tables.iterdir():
        if path.is_dir():
            replace_folder(path, folder / path.name)
        else:
            path.replace(folder / path.name)
    tables.rmdir()


def judge_choice(
    run: Experiment, curve: Path, selection: Selection, test: Clips
) -> Hindsight | None:
    """Return what the choice of a section's setting was worth on labelled clips, if there are."""
    evidence = evidence_of(run, curve)
    return None if evidence.test is None else in_hindsight(evidence, selection, run.selector, test)


def collect_validation(
    run: Experiment,
    curves: Mapping[SectionId, Path],
    known: Sequence[Case],
    chosen: Mapping[SectionId, Selection],
    folder: Path,
) -> None:
    """Write what the choice was worth on reference machines, if clips were synthesised of any.

    A generator that was trained on anomalies of a machine of the same type knows more of it than of
    a target: only where it was not is the validation ``strict``. Where several sources choose and
    sites are known, it is also written what a choice was worth that had machines of the same site
    among its references.
    """
    if not curves:
        return
    trained_on = run.trained_on_anomalies()
    validated = {}
    references = run.sections("reference") if run.synthesis.references else {}
    with_site = {}
    if run.selector.sources and any(section.machine in run.data.sites for section in references):
        with_site = choose_all(known, run.selector, references, leave_site_out=False)
    for section, clips in references.items():
        usable = validation_clips(clips)
        if usable is None:
            log.warning(
                "%s: not validated, for want of normal training clips or of test clips of both "
                "labels", section,
            )  # fmt: skip
        if section not in curves or usable is None:
            continue
        selection = chosen[section]
        hindsight = judge_choice(run, curves[section], selection, usable[1])
        if hindsight is None:
            log.warning("%s: not validated, since %s", section, selection.abstain_reason)
            continue
        log_selection(f"reference {section}", selection)
        strict = run.data.types[section.machine] not in trained_on
        kind, site = run.data.types[section.machine], run.data.sites.get(section.machine)
        one = ValidatedSection(selection, hindsight, strict, kind, site)
        if other := with_site.get(section):
            worth = judge_choice(run, curves[section], other, usable[1])
            assert worth is not None
            one = replace(one, with_site=replace(one, selection=other, hindsight=worth))
        validated[section] = one
    if validated:
        write_validation(folder, validated, run.selector.objective)


def collect_synthetic(outcome: Outcome, folder: Path) -> None:
    """Join the tables of all sections in ``synthetic/``; warn of sections without clips."""
    judged = outcome.of("judge")
    if not judged:
        return
    manifests = {section: read_table(path) for section, path in judged.items()}
    for section, manifest in manifests.items():
        kept = manifest[manifest["kept"]]
        if kept["label"].nunique() < 2:
            reasons = manifest.loc[~manifest["kept"], "reason"].value_counts().to_dict()
            log.warning(
                "%s: too few synthetic clips were kept to choose a setting. Rejected were %s: see "
                "%s", section, reasons, folder / "synthetic" / MANIFEST,
            )  # fmt: skip
    synthetic = folder / "synthetic"
    # The recordings themselves may have been collected from the store.
    synthetic.mkdir(exist_ok=True)
    note(folder, [synthetic.name])
    write_table(pd.concat(manifests.values(), ignore_index=True), synthetic)
    for name in (QUALITY, GAP, DIFFERENCES):
        # As text, digit by digit; a section is a name.
        tables = [pd.read_csv(path / name, dtype=str, keep_default_na=False)
                  for path in judged.values()]  # fmt: skip
        pd.concat(tables, ignore_index=True).to_csv(synthetic / name, index=False)


def training_seconds(outcome: Outcome) -> float:
    """Return how long the networks of detectors took that all machines share."""
    trained = {path for stage, path in outcome.artifacts.items() if stage.name == "train"}
    return sum(Provenance.read(path / PROVENANCE).seconds for path in trained)
