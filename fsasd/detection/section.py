"""Per machine: select the detector's setting, fit it, score the test clips, evaluate."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import clone

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips, FeatureCache
from fsasd.detectors.base import Detector, require_finite
from fsasd.detectors.saved import NotAModelError, read_json
from fsasd.evaluation.calibration import FALSE_ALARM_RATE, Calibration
from fsasd.evaluation.metrics import (
    SectionMetrics,
    section_metrics,
)
from fsasd.evaluation.thresholds import held_out_scores
from fsasd.selection.choice import Choice, choose, evaluated_domains
from fsasd.selection.selector import WIDE_GAP, Selector, title

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
    if chosen := fitted.resolved_params():
        log.info("%s section %s: %d training clips chose %s", machine, section, len(train),
                 title(chosen))  # fmt: skip
    scores = fitted.score(test)
    require_finite(scores, test)
    calibration = calibrate(fitted.resolved(), train, false_alarm_rate)
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
    held_out = dict(zip(file_names(train), scores.tolist(), strict=True))
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


def write_decision(path: Path, detection: Detection) -> None:
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


def _is_labelled(clips: Clips) -> bool:
    return all(clip.label is not None for clip in clips)


def file_names(clips: Clips) -> list[str]:
    names = [printable(clip.path.name) for clip in clips]
    if len(set(names)) == len(names):
        return names
    # One's own recordings may be called alike in different folders.
    paths = [clip.path.absolute() for clip in clips]
    folder = os.path.commonpath([path.parent for path in paths])
    return [printable(path.relative_to(folder)) for path in paths]
