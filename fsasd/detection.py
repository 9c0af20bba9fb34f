"""Per machine: select the detector's setting, fit it, score the test clips, evaluate."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone

from fsasd.choice import Choice, choose, evaluated_domains
from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips, FeatureCache
from fsasd.detectors.base import Detector, require_finite
from fsasd.detectors.saved import NotAModelError, read_json
from fsasd.evaluation.calibration import FALSE_ALARM_RATE, Calibration
from fsasd.evaluation.metrics import (
    Section,
    SectionMetrics,
    metrics_table,
    section_metrics,
)
from fsasd.evaluation.submission import write_decisions, write_scores
from fsasd.evaluation.thresholds import held_out_scores
from fsasd.evaluation.uncertainty import bootstrap_official
from fsasd.selection import WIDE_GAP, Curve, Selector, title

log = logging.getLogger(__name__)

DECISION = "decision.json"
"""Beside a saved detector: its calibration, and the channel of recordings that it hears."""

DECISION_FORMAT = 2
"""Of that file, raised when what it holds changes."""

_TIMED = 8
"""Test clips of a section on which scoring is timed."""


@dataclass(frozen=True)
class Cost:
    """What the detector of a section costs, on the machine that the run had.

    Attributes:
        parameters: Numbers that it holds.
        fit_seconds: Of fitting with its setting; features that were at hand are not in it.
        score_ms: Milliseconds of scoring a clip from its recording, mean over a few together.
    """

    parameters: int
    fit_seconds: float
    score_ms: float


@dataclass(frozen=True)
class Detection:
    """One section of one machine, from the choice of settings to the metrics.

    Attributes:
        machine: Its name.
        section: Its section.
        detector: Fitted on the real normal clips, with the chosen setting.
        test: The test clips.
        scores: (n,) anomaly scores of the test clips.
        calibration: The threshold and what it follows from.
        choice: What synthetic clips chose; ``None`` where none were to be made.
        metrics: ``None`` where the test labels are not known.
        cost: In numbers and in time.
    """

    machine: str
    section: str
    detector: Detector
    test: Clips
    scores: np.ndarray
    calibration: Calibration
    choice: Choice | None
    metrics: SectionMetrics | None
    cost: Cost

    @property
    def threshold(self) -> float:
        """A clip scored above it is called anomalous."""
        return self.calibration.threshold

    @property
    def decisions(self) -> np.ndarray:
        """(n,) True where a test clip is called anomalous."""
        return self.scores > self.threshold


def detect(
    detector: Detector,
    selector: Selector,
    train: Clips,
    test: Clips,
    synthetic: Clips | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> Detection:
    """Run steps 5 and 6 of the method on one section of one machine.

    Args:
        detector: Unfitted; a copy is fitted.
        selector: The settings to choose from, and by what.
        train: Real normal clips.
        test: Real test clips; their labels are only used to evaluate.
        synthetic: Synthetic normal and anomalous clips to choose on (see ``choice.choose``);
            without them, or without a grid, the detector keeps its own setting.
        false_alarm_rate: Share of normal clips to be called anomalous.

    Raises:
        ValueError: No training or test clips, or a clip whose score is not finite.
    """
    require_clips(train, test)
    machine, section = train[0].machine, train[0].section or "00"
    selector.check(detector)
    fitted, choice = clone(detector), None
    if synthetic is not None and selector.grids:
        choice = choose(detector, selector, train, test, synthetic)
        tell(choice, machine, section)
        fitted.set_params(**choice.selection.params)
    started = time.perf_counter()
    fitted.fit(train)
    fit_seconds = time.perf_counter() - started
    if chosen := fitted.chosen():
        log.info("%s section %s: %d training clips chose %s", machine, section, len(train),
                 title(chosen))  # fmt: skip
    scores = fitted.score(test)
    require_finite(scores, test)
    calibration = calibrate(fitted.settled(), train, false_alarm_rate)
    if odd := calibration.odd_clips():
        log.warning(
            "%s section %s: %s. The threshold is set without. Listen: either no normal recording, "
            "to be left out of the training clips, or a rare operating state", machine, section,
            odd,
        )  # fmt: skip
    metrics = None
    if _is_labelled(test):
        domains = evaluated_domains(test)
        decisions = scores > calibration.threshold
        metrics = section_metrics(test.labels, domains, scores, decisions)
    cost = Cost(fitted.n_parameters(), round(fit_seconds, 3), round(_score_ms(fitted, test), 3))
    return Detection(machine, section, fitted, test, scores, calibration, choice, metrics, cost)


def calibrate(
    detector: Detector, train: Clips, false_alarm_rate: float = FALSE_ALARM_RATE
) -> Calibration:
    """Find the threshold of a detector on clips held out of its training clips.

    Odd clips are judged by domain and attributes (see ``odd_scores``).

    Args:
        detector: Fitted or not; copies are fitted.
        train: Normal clips, 2 at least.
        false_alarm_rate: Share of normal clips to be called anomalous.

    Raises:
        ValueError: Fewer than 2 clips, or one whose score is not finite.
    """
    scores = held_out_scores(detector, train)
    require_finite(scores, train)
    held_out = dict(zip(_file_names(train), scores.tolist(), strict=True))
    return Calibration.of(held_out, train.domains.tolist(), train.states, false_alarm_rate)


def tell(choice: Choice, machine: str, section: str) -> None:
    """Log what was chosen, why the own setting was kept, and a gap between the domains."""
    selection, gap = choice.selection, choice.gap
    if gap and gap.exceeds(WIDE_GAP) and not selection.reason:
        log.warning(
            "%s section %s: synthetic normal clips are told from real ones: AUC %.2f (95 %% "
            "interval %.2f to %.2f; 0.5: not told). What is chosen on them may not hold for real "
            "clips", machine, section, gap.auc, gap.low, gap.high,
        )  # fmt: skip
    if selection.reason:
        log.info("%s section %s: keeps %s, since %s", machine, section, title(selection.params),
                 selection.reason)  # fmt: skip
    else:
        log.info("%s section %s: synthetic clips chose %s", machine, section,
                 title(selection.params))  # fmt: skip


def sections(clips: Clips) -> list[tuple[str, Clips]]:
    """Split the clips of a machine by section, for which DCASE wants a detector each."""
    names = sorted({clip.section or "00" for clip in clips})
    return [(name, in_section(clips, name)) for name in names]


def in_section(clips: Clips, section: str) -> Clips:
    """Return a machine's clips of a section; a clip without one is of the section ``00``."""
    return clips.that(lambda clip: (clip.section or "00") == section)


def require_clips(train: Clips, test: Clips) -> None:
    """Raise if a section of a machine lacks what it takes to detect anomalies in it.

    Raises:
        ValueError: There are no normal training clips, or no test clips.
    """
    if not len(train) or not len(test):
        known = [*train[:1], *test[:1]]
        name = f"{known[0].machine} section {known[0].section or '00'}" if known else "a machine"
        raise ValueError(
            f"{name}: expected normal training clips and test clips, found {len(train)} and "
            f"{len(test)}"
        )


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
    ``costs.csv`` and ``models/<machine>/section_<nn>/``.

    Args:
        folder: Gets them.
        detections: Of all machines and sections.
        training_seconds: What networks took that all of them share; a row of its own in
            ``costs.csv``.
    """
    for d in detections:
        names = _file_names(d.test)
        write_scores(folder / "scores", d.machine, d.section, names, d.scores)
        write_decisions(folder / "scores", d.machine, d.section, names, d.decisions)
        model = folder / "models" / d.machine / f"section_{d.section}"
        d.detector.save(model)
        _write_decision(model / DECISION, d)
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


def read_decision(path: Path) -> tuple[Calibration, int | str | None]:
    """Read what a run left beside a saved detector.

    Returns:
        Its calibration, and what it hears of recordings with several channels.

    Raises:
        FileNotFoundError: There is no such file.
        NotAModelError: It is damaged, or of another version of fsasd.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it holds the threshold of the detector")
    about = read_json(path)
    if about.get("format") != DECISION_FORMAT:
        raise NotAModelError(
            path,
            f"expected format {DECISION_FORMAT}, found {about.get('format', 'none')}: it was "
            "written by another version of fsasd, or is no decision of it. Run the stage detect "
            "anew",
        )
    expected = {"format", "channel", "threshold", "false_alarm_rate", "held_out", "odd"}
    if set(about) != expected:
        odd = ", ".join(sorted(set(about) ^ expected))
        raise NotAModelError(path, f"expected the keys {', '.join(sorted(expected))}: see {odd}")
    channel = about["channel"]
    if channel is not None and (isinstance(channel, bool) or not isinstance(channel, (int, str))):
        raise NotAModelError(path, f"expected a number or a name as 'channel', found {channel!r}")
    try:
        return Calibration.from_described(about), channel
    except ValueError as error:
        raise NotAModelError(path, error) from error


def _write_decision(path: Path, detection: Detection) -> None:
    about = {
        "format": DECISION_FORMAT,
        "channel": detection.test.cache.channel,
        **detection.calibration.described(),
    }
    path.write_text(json.dumps(about, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _score_ms(detector: Detector, test: Clips) -> float:
    # As if nothing of them had been computed before.
    few = Clips(list(test)[:_TIMED], FeatureCache(channel=test.cache.channel))
    started = time.perf_counter()
    detector.score(few)
    return 1e3 * (time.perf_counter() - started) / len(few)


def _missing(test: Clips) -> str:
    anomalous = test.labels == 1
    if anomalous.all() or not anomalous.any():
        return f"{'normal' if anomalous.all() else 'anomalous'} test clip"
    absent = sorted({"source", "target"} - set(test.domains[~anomalous]))
    return f"normal test clip of the {' or '.join(absent)} domain"


def _is_labelled(clips: Clips) -> bool:
    return all(clip.label is not None for clip in clips)


def _marked(real: Curve) -> pd.DataFrame:
    return real.table.assign(oracle=real.table.index == real.best)


def _titled(machine: str, section: str, table: pd.DataFrame) -> pd.DataFrame:
    named = table.copy()
    named.insert(0, "machine", machine)
    named.insert(1, "section", section)
    return named


def _file_names(clips: Clips) -> list[str]:
    names = [printable(clip.path.name) for clip in clips]
    if len(set(names)) == len(names):
        return names
    # One's own recordings may be called alike in different folders.
    paths = [clip.path.absolute() for clip in clips]
    folder = os.path.commonpath([path.parent for path in paths])
    return [printable(path.relative_to(folder)) for path in paths]


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
            _file_names(detection.test),
            detection.test,
            detection.scores,
            detection.decisions,
            strict=True,
        )
    )
    table["threshold"] = detection.threshold
    table["p_value"] = detection.calibration.p_values(detection.scores)
    return table
