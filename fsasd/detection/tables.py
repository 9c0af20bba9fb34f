"""Results of many sections -> the tables of a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from fsasd.data.clips import Clips
from fsasd.data.names import SectionId
from fsasd.detection.section import SectionResult
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.metrics import Section, SectionMetrics, metrics_table
from fsasd.evaluation.submission import write_decisions, write_scores
from fsasd.evaluation.uncertainty import bootstrap_official
from fsasd.selection.choice import Hindsight, evaluated_domains
from fsasd.selection.evidence import Curve
from fsasd.selection.selection import Selection
from fsasd.selection.settings import title
from fsasd.selection.sources import ALL
from fsasd.selection.validation import ValidatedSection, compare, summarise

log = logging.getLogger(__name__)


def evaluate(results: Sequence[SectionResult], resamples: int = 1000) -> pd.DataFrame | None:
    """Return ``metrics.csv``: a row per machine and section, means, the official score.

    Machines whose test labels are not known have no row; without any, there is no table.
    """
    metrics: dict[tuple[str, str], SectionMetrics] = {
        r.section: r.metrics for r in results if r.metrics is not None
    }
    if not metrics:
        return None
    known = [r for r in results if r.section in metrics]
    for r in known:
        if metrics[r.section].undefined:
            log.warning(
                "%s: no %s, so its AUC is undefined: left empty, and means are taken over what "
                "exists", r.section, _missing(r.test),
            )  # fmt: skip
    scored = [
        Section(
            r.test.labels,
            evaluated_domains(r.test),
            r.detection.scores,
            r.detection.decisions,
            recording_groups(clip.recording for clip in r.test),
        )
        for r in known
    ]
    interval = bootstrap_official(scored, resamples)
    return metrics_table(metrics, (interval.low, interval.high))


def write(folder: Path, results: Sequence[SectionResult], training_seconds: float = 0.0) -> None:
    """Write the tables of a run.

    ``scores/`` in submission form, ``clips.csv`` (score, decision, p-value and what is known of
    each test clip), what ``write_selections`` writes, ``metrics.csv`` (where there are labels) and
    ``costs.csv``.

    Args:
        folder: Gets them.
        results: Of all sections that there are results of.
        training_seconds: What networks took that all of them share; a row of its own in
            ``costs.csv``.
    """
    for r in results:
        files, scored = r.detection.files, r.detection
        write_scores(folder / "scores", *r.section, files, scored.scores)
        write_decisions(folder / "scores", *r.section, files, scored.decisions)
    if results:
        pd.concat([clip_table(r) for r in results]).to_csv(folder / "clips.csv", index=False)
        cost_table(results, training_seconds).to_csv(folder / "costs.csv", index=False)
    write_selections(
        folder, ((r.section, r.selection, r.hindsight) for r in results if r.selection)
    )
    metrics = evaluate(results)
    if metrics is not None:
        metrics.to_csv(folder / "metrics.csv", index=False)


def write_selections(
    folder: Path, selections: Iterable[tuple[SectionId, Selection | None, Hindsight | None]]
) -> None:
    """Write what was chosen, for each machine and section.

    ``selection.csv``; where several sources chose, ``sources.csv``; with labels of the test clips
    also ``real_curve.csv``, ``settings.csv`` and ``setting_scores.csv``.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for section, selection, hindsight in selections:
        parts: dict[str, pd.DataFrame] = {}
        if selection is not None:
            parts["selection"] = selection.curve
            if selection.contributions:
                parts["sources"] = source_table(selection)
        if hindsight is not None:
            parts["real_curve"] = _marked(hindsight.real)
            parts["settings"] = hindsight.settings
            parts["setting_scores"] = hindsight.scores
        for name, table in parts.items():
            tables.setdefault(name, []).append(_titled(section, table))
    folder.mkdir(parents=True, exist_ok=True)
    for name, of_sections in tables.items():
        pd.concat(of_sections).to_csv(folder / f"{name}.csv", index=False)


def write_validation(
    folder: Path, validated: Mapping[SectionId, ValidatedSection], objective: str = "mean"
) -> None:
    """Write ``validation.csv`` and, in ``validation/``, what it was made of.

    ``comparison.csv`` (see ``compare``), and the tables that ``write_selections`` writes.
    """
    inner = folder / "validation"
    write_selections(inner, ((key, v.selection, v.hindsight) for key, v in validated.items()))
    scores = pd.concat(
        [_titled(key, v.scores).assign(type=v.type, site=v.site) for key, v in validated.items()]
    )
    compared = compare(scores, objective)
    compared.to_csv(inner / "comparison.csv", index=False)
    summarise(validated, compared).to_csv(folder / "validation.csv", index=False)


def source_table(selection: Selection) -> pd.DataFrame:
    """Return a section's rows of ``sources.csv``: what each source contributed to the choice.

    ``weight`` of the source, the ``gain`` that it expects of the chosen setting, times its weight;
    the ``best`` setting for it alone; ``origins``, the reference machines that it is from with
    their shares; ``details``, what else it is from; ``reason``, why it says nothing. The row of the
    source ``all`` has the expected gain, corrected by how far such expectations were off on
    reference machines, and its interval.
    """
    rows: list[dict[str, object]] = [
        {
            "source": name,
            "weight": one.weight,
            "gain": one.gain,
            "low": None,
            "high": None,
            "best": one.best,
            "origins": json.dumps({key: round(share, 4) for key, share in one.origins.items()}),
            "details": one.details,
            "reason": one.reason,
        }
        for name, one in selection.contributions.items()
    ]
    total = {"source": ALL, "best": title(selection.setting)}
    if selection.expectation is not None:
        total |= asdict(selection.expectation)
    return pd.DataFrame([*rows, total])


def clip_table(result: SectionResult) -> pd.DataFrame:
    """Return a section's rows of ``clips.csv``: one per test clip."""
    scored = result.detection
    table = pd.DataFrame(
        {
            "file": scored.files,
            "label": [clip.label for clip in result.test],
            "domain": [clip.domain for clip in result.test],
            "score": scored.scores,
            "decision": scored.decisions.astype(int),
            "threshold": scored.threshold,
            "p_value": scored.calibration.p_values(scored.scores),
        }
    )
    return _titled(result.section, table)


def cost_table(results: Sequence[SectionResult], training_seconds: float = 0.0) -> pd.DataFrame:
    """Return ``costs.csv``: a row per section, and one of what all machines share.

    Args:
        results: Of the sections.
        training_seconds: What networks took that all machines share.
    """
    costs = [{**r.section._asdict(), **asdict(r.detection.cost)} for r in results]
    if training_seconds:
        costs.append({"machine": "all machines", "fit_seconds": training_seconds})
    return pd.DataFrame(costs).astype({"parameters": "Int64"})


def _missing(test: Clips) -> str:
    anomalous = test.labels == 1
    if anomalous.all() or not anomalous.any():
        return f"{'normal' if anomalous.all() else 'anomalous'} test clip"
    absent = sorted({"source", "target"} - set(test.domains[~anomalous]))
    return f"normal test clip of the {' or '.join(absent)} domain"


def _marked(real: Curve) -> pd.DataFrame:
    return real.table.assign(oracle=real.table.index == real.best)


def _titled(section: SectionId, table: pd.DataFrame) -> pd.DataFrame:
    named = table.copy()
    for place, (column, name) in enumerate(section._asdict().items()):
        named.insert(place, column, name)
    return named
