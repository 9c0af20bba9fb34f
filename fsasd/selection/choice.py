"""The choice of a setting for one section: evidence is measured, a rule chooses, labels judge.

``measure`` is all that reads clips. ``choose`` is array work on its evidence. ``in_hindsight``
measures what the choice was worth, where the labels of the test clips are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector, TooFewClipsError, require_finite
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.metrics import known_domains
from fsasd.generation.gap import Gap, measure_gap
from fsasd.generation.sources import source_groups
from fsasd.selection.crossfit import calibrated, crossfit
from fsasd.selection.evidence import Curve, Domains, Evidence, ScoredClips
from fsasd.selection.selection import Selection
from fsasd.selection.selector import Selector
from fsasd.selection.settings import PARAMETER, Candidates, row_of, title
from fsasd.selection.significance import n_independent, unlike_real_clips


@dataclass(frozen=True, eq=False)
class Hindsight:
    """What a choice was worth on real test clips, whose labels nobody could have known beforehand.

    Attributes:
        real: The curve on the test clips.
        settings: Metrics on the test clips, a row each: the baselines, the detector's default
            setting (marked ``default``), ``synthetic`` (the setting that is used), ``argmax`` (the
            paper's choice, where the selector may abstain) and ``oracle``, the best of ``real``.
        scores: The scores of every test clip with these settings.
    """

    real: Curve
    settings: pd.DataFrame
    scores: pd.DataFrame


def measure(
    detector: Detector,
    selector: Selector,
    train: Clips,
    synthetic: Clips,
    test: Clips | None = None,
    gap: Gap | None = None,
) -> Evidence:
    """Score clips with every candidate setting: all that the choice of a setting depends on.

    Args:
        detector: Unfitted; copies are fitted on ``train``, with every setting.
        selector: The settings, and what its rule needs to know (``Selector.measured``).
        train: Real normal clips of a section.
        synthetic: Synthetic normal and anomalous clips of it. Without both labels, or where a
            setting needs more clips than ``train`` has, there is nothing to choose on, and
            ``Evidence.abstain_reason`` says so.
        test: Real test clips, to judge the choice in hindsight; their labels are not looked at.
        gap: Between the synthetic and real normals; measured here without, if the selector has a
            limit of it.

    Raises:
        ValueError: A score is not finite, or a synthetic clip was made of a recording that is not
            in ``train``.
    """
    candidates, wanted = selector.candidates(detector), selector.measured()
    settings = candidates.settings
    test = train[[]] if test is None else test
    groups = source_groups(train, synthetic)
    crossfitted = selector.calibrate or any(clip.source for clip in synthetic)
    try:
        # Fitted once for both sets.
        pool = Clips([*([] if crossfitted else synthetic), *test], train.cache)
        scores = np.empty((len(settings), 0))
        if len(pool):
            scores = detector.score_path(settings, train, pool)
            require_finite(scores, pool)
        evidence = Evidence(candidates, wanted, test=scores[:, -len(test) :] if test else None)
        if reason := _lacks_a_label(synthetic):
            return replace(evidence, abstain_reason=reason)
        held_out = np.empty((0, len(train)))
        if crossfitted:
            held_out, scores = crossfit(detector, settings, train, synthetic)
    except TooFewClipsError as error:
        reason = f"a setting cannot be fitted: {error}"
        return Evidence(candidates, wanted, abstain_reason=reason)
    require_finite(held_out, train)
    require_finite(scores[:, : len(synthetic)], synthetic)
    if gap is None and selector.max_gap is not None:
        gap, _ = measure_gap(train, synthetic.where(label="normal"))
    return replace(
        evidence,
        synthetic=_scored(
            scores[:, : len(synthetic)], synthetic.labels, synthetic, groups[len(train) :]
        ),
        train=_scored(held_out, np.zeros(len(train), dtype=int), train, groups[: len(train)]),
        gap=gap,
    )


def choose(evidence: Evidence, selector: Selector) -> Selection:
    """Choose a setting on the evidence (step 5 of the method); no clip is read.

    Raises:
        ValueError: The evidence was measured for a selector of other settings.
    """
    if evidence.measured != selector.measured():
        raise ValueError(
            f"evidence: expected scores as the selector asks for them ({selector.measured()}), "
            f"found those for {evidence.measured}"
        )
    candidates, synthetic, train = evidence.candidates, evidence.synthetic, evidence.train
    if synthetic is None or train is None:
        return selector.keep_default(candidates, evidence.abstain_reason)
    reason = unlike_reason(evidence, selector)
    clips = _calibrated(train, synthetic) if selector.calibrate else synthetic
    selection = selector.select(
        candidates, clips.labels, clips.scores, known_domains(clips.domains),
        groups=clips.groups, weights=selector.rung_weights(clips), abstain_reason=reason,
    )  # fmt: skip
    return replace(selection, gap=evidence.gap)


def unlike_reason(evidence: Evidence, selector: Selector) -> str:
    """Return why synthetic clips are too unlike real ones to choose on; empty if they are not."""
    synthetic, train = evidence.synthetic, evidence.train
    if not selector.abstain or selector.calibrate or selector.max_gap is None:
        return ""
    if synthetic is None or train is None:
        return evidence.abstain_reason
    normals = synthetic.groups[synthetic.labels == 0]
    independent = n_independent(train.groups), n_independent(normals)
    return unlike_real_clips(evidence.gap, independent, selector.max_gap)


def _calibrated(train: ScoredClips, synthetic: ScoredClips) -> ScoredClips:
    anomalous = np.flatnonzero(synthetic.labels == 1)
    scores, labels = calibrated(train.scores, synthetic.scores, synthetic.labels)
    return ScoredClips(
        scores,
        labels,
        [*train.domains, *(synthetic.domains[row] for row in anomalous)],
        np.concatenate([train.groups, synthetic.groups[anomalous]]),
        np.concatenate([train.strengths, synthetic.strengths[anomalous]]),
        [*train.donors, *(synthetic.donors[row] for row in anomalous)],
        [*train.faults, *(synthetic.faults[row] for row in anomalous)],
    )


def in_hindsight(
    evidence: Evidence, selection: Selection, selector: Selector, test: Clips
) -> Hindsight | None:
    """Judge a choice by the labels of the test clips.

    Args:
        evidence: Measured with these test clips.
        selection: What was chosen.
        selector: The baselines and the objective.
        test: The test clips, with their labels.

    Returns:
        ``None`` where the evidence has no scores of test clips.

    Raises:
        ValueError: The clips are others than those that were measured, or a baseline is not among
            the candidates.
    """
    if evidence.test is None:
        return None
    candidates = evidence.candidates
    real = real_curve(evidence, selector, test)
    assert real is not None
    rows = _compared(selector, selection, candidates, real)
    default = next(name for name, row in rows.items() if row == candidates.default)
    return Hindsight(
        real,
        _settings_table(rows, candidates, real, default, selection.abstain_reason),
        _score_table(rows, default, test, evidence.test),
    )


def real_curve(evidence: Evidence, selector: Selector, test: Clips) -> Curve | None:
    """Return what each setting achieves on labelled test clips.

    Args:
        evidence: Measured with these test clips.
        selector: The objective.
        test: The test clips, with their labels.

    Returns:
        ``None`` where the evidence has no scores of test clips.

    Raises:
        ValueError: The clips are others than those that were measured.
    """
    if evidence.test is None:
        return None
    if evidence.test.shape[1] != len(test):
        raise ValueError(
            f"evidence: expected scores of {len(test)} test clips, found {evidence.test.shape[1]}"
        )
    domains = evaluated_domains(test)
    groups = recording_groups(clip.recording for clip in test)
    return selector.curve(
        test.labels, evidence.test, domains, groups=groups, candidates=evidence.candidates
    )


def evaluated_domains(clips: Clips) -> NDArray[np.str_] | None:
    """Return the domains that metrics divide clips by, ``None`` where no clip has one."""
    return known_domains(_domains(clips))


def has_both_labels(clips: Clips) -> bool:
    """Return whether all labels are known, and there are normal and anomalous clips."""
    return {clip.label for clip in clips} == {"normal", "anomaly"}


def _lacks_a_label(synthetic: Clips) -> str:
    labels = synthetic.labels.tolist()
    if len(set(labels)) == 2:
        return ""
    return (
        f"no synthetic clips of both labels to choose on: {labels.count(0)} normal and "
        f"{labels.count(1)} anomalous (see synthetic/manifest.csv for why not)"
    )


def _scored(
    scores: NDArray[np.float64], labels: NDArray[np.int_], clips: Clips, groups: NDArray[np.int_]
) -> ScoredClips:
    strengths = np.array(clips.groups(lambda clip: clip.strength), dtype=float)
    donors = clips.groups(lambda clip: clip.donor or "")
    faults = clips.groups(lambda clip: clip.fault or "")
    return ScoredClips(scores, labels, _domains(clips), groups, strengths, donors, faults)


def _domains(clips: Clips) -> Domains:
    return clips.groups(lambda clip: clip.domain)


def _compared(
    selector: Selector, selection: Selection, candidates: Candidates, real: Curve
) -> dict[str, int]:
    """Name the settings that are compared: each name's row among the candidates."""
    settings = candidates.settings
    rows: dict[str, int] = {}
    for baseline in selector.baselines:
        row = row_of(baseline, settings)
        if row is None:
            raise ValueError(f"setting {baseline} is not in the grid that settings are chosen from")
        rows[title(baseline)] = row
    if candidates.default not in rows.values():
        rows[title(settings[candidates.default])] = candidates.default
    rows["synthetic"] = settings.index(selection.setting)
    if selector.abstain:
        rows["argmax"] = settings.index(selection.argmax)
    return {**rows, "oracle": real.best}


def _settings_table(
    rows: dict[str, int], candidates: Candidates, real: Curve, default: str, abstain_reason: str
) -> pd.DataFrame:
    metrics = ["auc", "auc_source", "auc_target", "pauc", "objective"]
    table = real.table.iloc[list(rows.values())][
        [*(PARAMETER + name for name in candidates.params), *metrics]
    ]
    table = table.reset_index(drop=True)
    table.insert(0, "setting", list(rows))
    table["default"] = table["setting"] == default
    table["abstain_reason"] = np.where(table["setting"] == "synthetic", abstain_reason, "")
    return table


def _score_table(
    rows: dict[str, int], default: str, test: Clips, scores: NDArray[np.float64]
) -> pd.DataFrame:
    clips = pd.DataFrame(
        {
            "file": printable(clip.path.name),
            "label": clip.label,
            "domain": clip.domain,
            "recording": clip.recording,
        }
        for clip in test
    )
    tables: Sequence[pd.DataFrame] = [
        clips.assign(setting=name, default=name == default, score=scores[row])
        for name, row in rows.items()
    ]
    return pd.concat(tables, ignore_index=True)
