"""Many sections -> the tables of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from fsasd.data.clips import Clips
from fsasd.detection.section import DECISION, Detection, file_names, write_decision
from fsasd.detectors.saved import SHARED
from fsasd.evaluation.metrics import Section, metrics_table
from fsasd.evaluation.submission import write_decisions, write_scores
from fsasd.evaluation.uncertainty import bootstrap_official
from fsasd.selection.choice import Choice, evaluated_domains
from fsasd.selection.selector import Curve
from fsasd.selection.validation import Trial, compare, summarise

log = logging.getLogger(__name__)


def evaluate(detections: Sequence[Detection], resamples: int = 1000) -> pd.DataFrame | None:
    """Return ``metrics.csv``: a row per machine and section, means, the official score.

    Machines whose test labels are not known have no row; without any, there is no table.
    """
    known = [d for d in detections if d.metrics is not None]
    if not known:
        return None
    for d in known:
        if d.metrics and d.metrics.undefined:
            log.warning(
                "%s section %s: no %s, so its AUC is undefined: left empty, and means are taken "
                "over what exists", d.machine, d.section, _missing(d.test),
            )  # fmt: skip
    interval = bootstrap_official(
        [Section(d.test.labels, evaluated_domains(d.test), d.scores, d.decisions) for d in known],
        resamples,
    )
    return metrics_table(
        {(d.machine, d.section): d.metrics for d in known if d.metrics},
        (interval.low, interval.high),
    )


def write(folder: Path, detections: Sequence[Detection], training_seconds: float = 0.0) -> None:
    """Write what a run leaves of its detections.

    ``scores/`` in submission form, ``clips.csv`` (score, decision, p-value and what is known of
    each test clip), what ``write_choices`` writes, ``metrics.csv`` (where there are labels),
    ``costs.csv``, ``models/<machine>/section_<nn>/`` and ``models/shared/`` (networks that they
    share).

    Args:
        folder: Gets them.
        detections: Of all machines and sections.
        training_seconds: What networks took that all of them share; a row of its own in
            ``costs.csv``.
    """
    for d in detections:
        names = file_names(d.test)
        write_scores(folder / "scores", d.machine, d.section, names, d.scores)
        write_decisions(folder / "scores", d.machine, d.section, names, d.decisions)
        model = folder / "models" / d.machine / f"section_{d.section}"
        d.detector.save(model, shared=folder / "models" / SHARED)
        write_decision(model / DECISION, d)
    if clips := [_titled(d.machine, d.section, _clip_table(d)) for d in detections]:
        pd.concat(clips).to_csv(folder / "clips.csv", index=False)
    costs = [{"machine": d.machine, "section": d.section, **asdict(d.cost)} for d in detections]
    if training_seconds:
        costs.append({"machine": "all machines", "fit_seconds": training_seconds})
    if detections:
        table = pd.DataFrame(costs).astype({"parameters": "Int64"})
        table.to_csv(folder / "costs.csv", index=False)
    write_choices(folder, {(d.machine, d.section): d.choice for d in detections if d.choice})
    metrics = evaluate(detections)
    if metrics is not None:
        metrics.to_csv(folder / "metrics.csv", index=False)


def write_choices(folder: Path, choices: Mapping[tuple[str, str], Choice]) -> None:
    """Write what was chosen, for each machine and section.

    ``selection.csv`` and ``gap.csv``; with labels of the test clips also ``real_curve.csv``,
    ``settings.csv`` and ``setting_scores.csv``.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for (machine, section), choice in choices.items():
        found = {
            "selection": choice.selection.curve,
            "gap": None if choice.gap is None else pd.DataFrame([asdict(choice.gap)]),
            "real_curve": None if choice.real is None else _marked(choice.real),
            "settings": choice.settings,
            "setting_scores": choice.scores,
        }
        for name, table in found.items():
            if table is not None:
                tables.setdefault(name, []).append(_titled(machine, section, table))
    folder.mkdir(parents=True, exist_ok=True)
    for name, parts in tables.items():
        pd.concat(parts).to_csv(folder / f"{name}.csv", index=False)


def write_validation(
    folder: Path, trials: Mapping[tuple[str, str], Trial], objective: str = "mean"
) -> None:
    """Write ``validation.csv`` and, in ``validation/``, what it was made of.

    ``comparison.csv`` (see ``compare``), and the curves and scores that ``write_choices`` writes.
    """
    inner = folder / "validation"
    write_choices(inner, {unit: trial.choice for unit, trial in trials.items()})
    scores = [
        trial.choice.scores.assign(machine=machine, section=section)
        for (machine, section), trial in trials.items()
        if trial.choice.scores is not None
    ]
    compared = compare(pd.concat(scores), objective)
    compared.to_csv(inner / "comparison.csv", index=False)
    summarise(trials, compared).to_csv(folder / "validation.csv", index=False)


def _missing(test: Clips) -> str:
    anomalous = test.labels == 1
    if anomalous.all() or not anomalous.any():
        return f"{'normal' if anomalous.all() else 'anomalous'} test clip"
    absent = sorted({"source", "target"} - set(test.domains[~anomalous]))
    return f"normal test clip of the {' or '.join(absent)} domain"


def _marked(real: Curve) -> pd.DataFrame:
    return real.table.assign(oracle=real.table.index == real.best)


def _titled(machine: str, section: str, table: pd.DataFrame) -> pd.DataFrame:
    named = table.copy()
    named.insert(0, "machine", machine)
    named.insert(1, "section", section)
    return named


def _clip_table(detection: Detection) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "file": name,
            "label": clip.label,
            "domain": clip.domain,
            "score": score,
            "decision": int(decision),
        }
        for name, clip, score, decision in zip(
            file_names(detection.test),
            detection.test,
            detection.scores,
            detection.decisions,
            strict=True,
        )
    )
    table["threshold"] = detection.threshold
    table["p_value"] = detection.calibration.p_values(detection.scores)
    return table
