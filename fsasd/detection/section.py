"""Detection in one section: fit the detector with its setting, score, set the threshold, save."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips, FeatureCache, PooledOnce
from fsasd.data.names import SectionId
from fsasd.detection.decision import DECISION, read_decision, write_decision
from fsasd.detectors.base import Detector, Params, require_finite
from fsasd.evaluation.calibration import FALSE_ALARM_RATE, Calibration
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.metrics import SectionMetrics, section_metrics
from fsasd.evaluation.thresholds import held_out_scores
from fsasd.selection.choice import (
    Hindsight,
    choose,
    evaluated_domains,
    has_both_labels,
    in_hindsight,
    measure,
)
from fsasd.selection.selection import Selection
from fsasd.selection.selector import Selector
from fsasd.selection.settings import title
from fsasd.selection.significance import WIDE_GAP
from fsasd.settings.files import read_json

log = logging.getLogger(__name__)

MODEL = "model"
"""Folder of a saved detection that holds the detector and its decision."""

_SCORES = "scores.csv"
_COST = "cost.json"

_TIMED = 8
"""Test clips of a section on which scoring is timed."""


@dataclass(frozen=True)
class Cost:
    """What the detector of a section costs, on the machine that the run had.

    Attributes:
        parameters: Numbers that the fitted detector holds.
        fit_seconds: Of fitting with its setting; features that were at hand are not in it.
        score_ms: Milliseconds of scoring a clip from its recording, mean over a few together.
    """

    parameters: int
    fit_seconds: float
    score_ms: float


@dataclass(frozen=True, eq=False)
class SectionScores:
    """What the tables need of a detection.

    Attributes:
        section: Of which machine.
        files: Names of the test clips.
        scores: (n,) anomaly scores of the test clips.
        calibration: The threshold and what it follows from.
        cost: In numbers and in time.
    """

    section: SectionId
    files: list[str]
    scores: NDArray[np.float64]
    calibration: Calibration
    cost: Cost

    @property
    def threshold(self) -> float:
        """A clip scored above it is called anomalous."""
        return self.calibration.threshold

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """(n,) True where a test clip is called anomalous."""
        return self.scores > self.threshold


@dataclass(frozen=True, eq=False)
class Detection(SectionScores):
    """A section's test clips, scored by a detector that was fitted on its normal training clips.

    Attributes:
        detector: The fitted detector.
        channel: Which channel of recordings with several it is given.
    """

    detector: Detector
    channel: int | str | None

    def save(self, folder: Path, shared: Sequence[Path] = ()) -> None:
        """Write ``scores.csv``, ``cost.json`` and ``model/`` (see ``save_model``).

        Raises:
            TypeError: A parameter of the detector cannot be saved.
        """
        self.save_model(folder / MODEL, shared)
        table = pd.DataFrame({"file": self.files, "score": self.scores})
        table.to_csv(folder / _SCORES, index=False)
        about = {**self.section._asdict(), **asdict(self.cost)}
        (folder / _COST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def save_model(self, folder: Path, shared: Sequence[Path] = ()) -> None:
        """Write the detector and ``decision.json``, which ``fsasd-score`` reads.

        Args:
            folder: Gets them.
            shared: Folders of networks that several detectors share (see ``Detector.save``).
        """
        self.detector.save(folder, shared=shared)
        write_decision(folder, self.calibration, self.channel)


def load_scores(folder: Path) -> SectionScores:
    """Read what ``Detection.save`` wrote, but for the detector.

    Raises:
        FileNotFoundError: A file is missing.
        NotAModelError: ``decision.json`` is damaged, or of another version of fsasd.
    """
    about = read_json(folder / _COST)
    section = SectionId(about.pop("machine"), about.pop("section"))
    table = pd.read_csv(folder / _SCORES, dtype=str, keep_default_na=False)
    # Python reads the very number that was written.
    scores = np.array([float(text) for text in table["score"]])
    calibration, _ = read_decision(folder / MODEL / DECISION)
    return SectionScores(section, table["file"].tolist(), scores, calibration, Cost(**about))


S_co = TypeVar("S_co", bound=SectionScores, covariant=True)


@dataclass(frozen=True, eq=False)
class SectionResult(Generic[S_co]):
    """A section's detection with what is known of its test clips and of the choice of its setting.

    Attributes:
        detection: Scores, threshold, cost.
        test: The test clips that were scored, with their labels as far as they are known.
        selection: What synthetic clips chose; ``None`` without synthetic clips, or without a grid.
        hindsight: What that was worth; ``None`` without labels of both kinds.

    Raises:
        ValueError: The test clips are not those that were scored.
    """

    detection: S_co
    test: Clips
    selection: Selection | None = None
    hindsight: Hindsight | None = None

    def __post_init__(self) -> None:
        scored = [Path(name).name for name in self.detection.files]
        given = [printable(clip.path.name) for clip in self.test]
        if scored != given:
            raise ValueError(
                f"{self.section}: expected the {len(scored)} test clips that were scored, found "
                f"{len(given)} of other names or in another order"
            )

    @property
    def section(self) -> SectionId:
        """Machine and section."""
        return self.detection.section

    @cached_property
    def metrics(self) -> SectionMetrics | None:
        """Metrics of the test clips; ``None`` unless all their labels are known."""
        if any(clip.label is None for clip in self.test):
            return None
        domains, scored = evaluated_domains(self.test), self.detection
        return section_metrics(self.test.labels, domains, scored.scores, scored.decisions)


def run_section(
    detector: Detector,
    selector: Selector,
    train: Clips,
    test: Clips,
    synthetic: Clips | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> SectionResult[Detection]:
    """Run steps 5 and 6 of the method on one section: choose a setting, detect, evaluate.

    Args:
        detector: Unfitted; copies are fitted.
        selector: The settings to choose from, and by what.
        train: Real normal clips.
        test: Real test clips; their labels are only used to evaluate.
        synthetic: Synthetic normal and anomalous clips to choose on (see ``choice.measure``);
            without them, or without a grid, the detector keeps its default setting.
        false_alarm_rate: Share of normal clips to be called anomalous.

    Raises:
        ValueError: No training or test clips, or a clip whose score is not finite.
    """
    require_clips(train, test)
    selector.check(detector)
    if synthetic is None or not selector.grids:
        return SectionResult(detect(detector, {}, train, test, false_alarm_rate), test)
    known = test if has_both_labels(test) else None
    evidence = measure(detector, selector, train, synthetic, known)
    selection = choose(evidence, selector)
    log_selection(section_of(train), selection)
    hindsight = None if known is None else in_hindsight(evidence, selection, selector, known)
    detection = detect(detector, selection.setting, train, test, false_alarm_rate)
    return SectionResult(detection, test, selection, hindsight)


def detect(
    detector: Detector,
    setting: Params,
    train: Clips,
    test: Clips,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> Detection:
    """Fit a detector with a setting, score the test clips and set the threshold (step 6).

    Args:
        detector: Unfitted; a copy is fitted.
        setting: Parameters that replace the detector's own.
        train: Real normal clips of a section.
        test: Its test clips; no label is looked at.
        false_alarm_rate: Share of normal clips to be called anomalous.

    Raises:
        ValueError: No training or test clips, or a clip whose score is not finite.
    """
    require_clips(train, test)
    section = section_of(train)
    # The fit and those of all folds have the clips' representations in common.
    train = Clips(train, PooledOnce(train.cache))
    fitted = clone(detector).set_params(**setting)
    started = time.perf_counter()
    fitted.fit(train)
    fit_seconds = time.perf_counter() - started
    if chosen := fitted.resolved_params():
        log.info("%s: %d training clips chose %s", section, len(train), title(chosen))
    scores = fitted.score(test)
    require_finite(scores, test)
    calibration = calibrate(fitted.resolved(), train, false_alarm_rate)
    if odd := calibration.odd_clips():
        log.warning(
            "%s: %s. The threshold is set without. Listen: either no normal recording, to be left "
            "out of the training clips, or a rare operating state", section, odd,
        )  # fmt: skip
    cost = Cost(fitted.n_parameters(), round(fit_seconds, 3), round(_score_ms(fitted, test), 3))
    channel = test.cache.channel
    return Detection(section, file_names(test), scores, calibration, cost, fitted, channel)


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
    groups = recording_groups(train.recordings)
    scores = held_out_scores(detector, train, groups=groups)
    require_finite(scores, train)
    held_out = dict(zip(file_names(train), scores.tolist(), strict=True))
    return Calibration.of(held_out, train.domains.tolist(), train.states, false_alarm_rate)


def log_selection(name: object, selection: Selection) -> None:
    """Log what was chosen, why the default setting was kept, and a wide gap to real clips.

    Args:
        name: Of the section, as messages begin.
        selection: What was chosen.
    """
    reason, setting = selection.abstain_reason, title(selection.setting)
    warn_of_gap(name, selection)
    if reason:
        log.info("%s: keeps %s, since %s", name, setting, reason)
    elif selection.contributions:
        log.info("%s: chose %s", name, setting)
    else:
        log.info("%s: synthetic clips chose %s", name, setting)


def warn_of_gap(name: object, selection: Selection) -> None:
    """Warn where a setting was chosen on synthetic clips that are far from real ones.

    Args:
        name: Of the section, as messages begin.
        selection: What was chosen.
    """
    gap, reason = selection.gap, selection.abstain_reason
    if gap and gap.exceeds(WIDE_GAP) and not reason:
        log.warning(
            "%s: synthetic normal clips are distinguished from real ones: %s. What is chosen on "
            "them may not hold for real clips", name, gap,
        )  # fmt: skip


def section_of(clips: Clips) -> SectionId:
    """Return the section that clips are of, by the first of them."""
    return clips[0].section_id


def require_clips(train: Clips, test: Clips) -> None:
    """Raise if a section of a machine lacks what it takes to detect anomalies in it.

    Raises:
        ValueError: There are no normal training clips, or no test clips.
    """
    if not len(train) or not len(test):
        known = train if len(train) else test
        name = section_of(known) if len(known) else "a machine"
        raise ValueError(
            f"{name}: expected normal training clips and test clips, found {len(train)} and "
            f"{len(test)}"
        )


def _score_ms(detector: Detector, test: Clips) -> float:
    # As if nothing of them had been computed before.
    few = Clips(list(test)[:_TIMED], FeatureCache(channel=test.cache.channel))
    started = time.perf_counter()
    detector.score(few)
    return 1e3 * (time.perf_counter() - started) / len(few)


def file_names(clips: Clips) -> list[str]:
    """Return the clips' file names, with folders where names alone are not distinct."""
    names = [printable(clip.path.name) for clip in clips]
    if len(set(names)) == len(names):
        return names
    # One's own recordings may be called alike in different folders.
    paths = [clip.path.absolute() for clip in clips]
    folder = os.path.commonpath([path.parent for path in paths])
    return [printable(path.relative_to(folder)) for path in paths]
