"""Per machine: select the detector's setting, fit it, score the test clips, evaluate."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone

from fsasd.data.audio import Clips
from fsasd.detectors.base import Detector
from fsasd.evaluation.metrics import Section, SectionMetrics, metrics_table, section_metrics
from fsasd.evaluation.submission import write_decisions, write_scores
from fsasd.evaluation.thresholds import gamma_threshold, held_out_scores
from fsasd.evaluation.uncertainty import bootstrap_official
from fsasd.selection import Selection, Selector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detection:
    """One section of one machine, from the choice of settings to the metrics.

    Attributes:
        machine: Its name.
        section: Its section.
        detector: Fitted on the real normal clips, with the chosen setting.
        test: The test clips.
        scores: (n,) anomaly scores of the test clips.
        threshold: A clip scored above it is called anomalous.
        choice: What synthetic clips chose; ``None`` without synthetic clips.
        metrics: ``None`` where the test labels are not known.
    """

    machine: str
    section: str
    detector: Detector
    test: Clips
    scores: np.ndarray
    threshold: float
    choice: Choice | None
    metrics: SectionMetrics | None

    @property
    def decisions(self) -> np.ndarray:
        """(n,) True where a test clip is called anomalous."""
        return self.scores > self.threshold


@dataclass(frozen=True)
class Choice:
    """What synthetic clips chose, and what it was worth.

    Attributes:
        selection: The curve on synthetic clips and the setting chosen on it.
        real_curve: AUC and pAUC of every setting on the real test clips. Nobody could have known
            it beforehand: it only says what the choice was worth. ``None`` without labels.
        settings: Metrics of the baselines, the chosen setting and the oracle's, one row each.
    """

    selection: Selection
    real_curve: pd.DataFrame | None = None
    settings: pd.DataFrame | None = None


def choose(
    detector: Detector, selector: Selector, train: Clips, test: Clips, synthetic: Clips
) -> Choice:
    """Choose the detector's setting (step 5 of the method) on synthetic clips.

    Args:
        detector: Unfitted; copies are fitted on ``train``, with every setting.
        selector: The settings to choose from, and by what.
        train: Real normal clips.
        test: Real test clips, which play no part in the choice; their labels, where they are
            known, then say what it was worth.
        synthetic: Synthetic normal and anomalous clips.

    Raises:
        ValueError: The synthetic clips are of one label only.
    """
    _require_both_labels(synthetic, train[0].machine)
    settings = selector.settings()
    # Fitted once for both sets.
    scores = detector.score_path(settings, train, Clips([*synthetic, *test], train.cache))
    made, real = scores[:, : len(synthetic)], scores[:, len(synthetic) :]
    selection = selector.select(detector, synthetic.labels, made)
    if not _is_labelled(test) or len(set(test.labels.tolist())) < 2:
        return Choice(selection)
    curve = selector.curve(test.labels, real)
    curve["oracle"] = curve.index == curve["objective"].idxmax()
    return Choice(selection, curve, _settings_table(selector, selection, curve, test, real))


def detect(
    detector: Detector,
    selector: Selector,
    train: Clips,
    test: Clips,
    synthetic: Clips | None = None,
) -> Detection:
    """Run steps 5 and 6 of the method on one section of one machine.

    Args:
        detector: Unfitted; a copy is fitted.
        selector: The settings to choose from, and by what.
        train: Real normal clips.
        test: Real test clips; their labels are only used to evaluate.
        synthetic: Synthetic normal and anomalous clips to choose on; without them, or without a
            grid, the detector keeps its own setting.

    Raises:
        ValueError: No training or test clips, or synthetic clips of one label only.
    """
    machine, section = _unit(train, test)
    selector.check(detector)
    fitted, choice = clone(detector), None
    if synthetic is not None and selector.grid:
        choice = choose(detector, selector, train, test, synthetic)
        fitted.set_params(**choice.selection.params)
    fitted.fit(train)
    scores = fitted.score(test)
    threshold = gamma_threshold(held_out_scores(fitted, train))
    metrics = None
    if _is_labelled(test):
        metrics = section_metrics(test.labels, test.domains, scores, scores > threshold)
    return Detection(machine, section, fitted, test, scores, threshold, choice, metrics)


def sections(clips: Clips) -> list[tuple[str, Clips]]:
    """Split the clips of a machine by section, for which DCASE wants a detector each."""
    own = [clip.section or "00" for clip in clips]
    return [(name, clips[[section == name for section in own]]) for name in sorted(set(own))]


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
        [Section(d.test.labels, d.test.domains, d.scores, d.decisions) for d in known], resamples
    )
    return metrics_table(
        {(d.machine, d.section): d.metrics for d in known if d.metrics},
        (interval.low, interval.high),
    )


def write(folder: Path, detections: Sequence[Detection]) -> None:
    """Write what a run leaves of its detections.

    ``scores/`` in submission form, ``clips.csv`` (score, decision and what is known of each test
    clip), ``selection.csv``, ``real_curve.csv`` and ``settings.csv`` (where there are labels),
    ``metrics.csv``, and ``models/<machine>/section_<nn>/``.
    """
    for d in detections:
        names = _file_names(d.test)
        write_scores(folder / "scores", d.machine, d.section, names, d.scores)
        write_decisions(folder / "scores", d.machine, d.section, names, d.decisions)
        d.detector.save(folder / "models" / d.machine / f"section_{d.section}")
    tables = {
        "clips": [_clip_table(d) for d in detections],
        "selection": [_titled(d, d.choice.selection.curve) for d in detections if d.choice],
        "real_curve": [_titled(d, d.choice.real_curve) for d in detections if d.choice],
        "settings": [_titled(d, d.choice.settings) for d in detections if d.choice],
    }
    for name, tables_ in tables.items():
        if parts := [table for table in tables_ if table is not None]:
            pd.concat(parts).to_csv(folder / f"{name}.csv", index=False)
    metrics = evaluate(detections)
    if metrics is not None:
        metrics.to_csv(folder / "metrics.csv", index=False)


def _unit(train: Clips, test: Clips) -> tuple[str, str]:
    if not len(train) or not len(test):
        known = [*train, *test]
        name = known[0].machine if known else "a machine"
        raise ValueError(
            f"{name}: expected normal training clips and test clips, found {len(train)} and "
            f"{len(test)}"
        )
    return train[0].machine, train[0].section or "00"


def _missing(test: Clips) -> str:
    anomalous = test.labels == 1
    if anomalous.all() or not anomalous.any():
        return f"{'normal' if anomalous.all() else 'anomalous'} test clip"
    absent = sorted({"source", "target"} - set(test.domains[~anomalous]))
    return f"normal test clip of the {' or '.join(absent)} domain"


def _is_labelled(clips: Clips) -> bool:
    return all(clip.label is not None for clip in clips)


def _require_both_labels(synthetic: Clips, machine: str) -> None:
    if len(set(synthetic.labels.tolist())) != 2:
        found = int(synthetic.labels.sum())
        raise ValueError(
            f"{machine}: a setting is chosen on synthetic normal and anomalous clips, found "
            f"{len(synthetic) - found} normal and {found} anomalous. See the reasons in "
            "synthetic/manifest.csv, or keep the detector's own setting with generator=none"
        )


def _settings_table(
    selector: Selector,
    selection: Selection,
    real_curve: pd.DataFrame,
    test: Clips,
    path: np.ndarray,
) -> pd.DataFrame:
    settings = selector.settings()
    rows = {_title(baseline): _row_of(baseline, settings) for baseline in selector.baselines}
    rows["synthetic"] = _row_of(selection.params, settings)
    rows["oracle"] = int(real_curve["oracle"].to_numpy().argmax())
    table = []
    for name, row in rows.items():
        metrics = section_metrics(test.labels, test.domains, path[row])
        table.append(
            {
                "setting": name,
                **settings[row],
                "auc": real_curve["auc"][row],
                "auc_source": metrics.auc_source,
                "auc_target": metrics.auc_target,
                "pauc": metrics.pauc,
                "objective": real_curve["objective"][row],
            }
        )
    return pd.DataFrame(table)


def _row_of(setting: dict, settings: list[dict]) -> int:
    for row, other in enumerate(settings):
        if all(np.isclose(other[k], v) if isinstance(v, float) else other[k] == v
               for k, v in setting.items()):  # fmt: skip
            return row
    raise ValueError(f"setting {setting} is not in the grid that settings are chosen from")


def _title(setting: dict) -> str:
    return ", ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                     for key, value in setting.items())  # fmt: skip


def _titled(detection: Detection, table: pd.DataFrame | None) -> pd.DataFrame | None:
    if table is None:
        return None
    named = table.copy()
    named.insert(0, "machine", detection.machine)
    named.insert(1, "section", detection.section)
    return named


def _file_names(clips: Clips) -> list[str]:
    names = [clip.path.name for clip in clips]
    if len(set(names)) == len(names):
        return names
    # One's own recordings may be called alike in different folders.
    paths = [clip.path.absolute() for clip in clips]
    folder = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(folder).as_posix() for path in paths]


def _clip_table(detection: Detection) -> pd.DataFrame | None:
    table = pd.DataFrame(
        {
            "file": name,
            "label": clip.label,
            "domain": clip.domain,
            "score": score,
            "decision": int(decision),
        }
        for name, clip, score, decision in zip(
            _file_names(detection.test),
            detection.test,
            detection.scores,
            detection.decisions,
            strict=True,
        )
    )
    table["threshold"] = detection.threshold
    return _titled(detection, table)
