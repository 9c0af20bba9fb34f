"""Evaluate a submission: the official metrics, and why some are undefined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fsasd.data.ground_truth import Key
from fsasd.evaluation.metrics import (
    OfficialScore,
    Section,
    SectionMetrics,
    metrics_table,
    official_score,
    section_metrics,
)
from fsasd.evaluation.submission.reading import SubmissionError, read_whole, title
from fsasd.evaluation.uncertainty import Interval, bootstrap_official

_OF_2021 = (
    "A file for each domain, as in DCASE 2021; the metrics are those since 2022, in which a "
    "domain's normal clips are set against the anomalous clips of both domains, and pAUC takes "
    "both together. DCASE 2021's own evaluator took each domain by itself."
)


@dataclass(frozen=True)
class Evaluation:
    """The official metrics of a submission.

    Attributes:
        metrics: The metrics of each machine and section.
        official: The official score.
        interval: Its 95 % bootstrap interval; None when not asked for.
        notes: A sentence for each thing left undefined, and why.
    """

    metrics: dict[Key, SectionMetrics]
    official: OfficialScore
    interval: Interval | None
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """All of it as ``fsasd.evaluation.metrics.metrics_table`` lays it out."""
        interval = self.interval or Interval(math.nan, math.nan)
        return metrics_table(self.metrics, (interval.low, interval.high))


def evaluate(
    scores_dir: str | Path, ground_truth_dir: str | Path, bootstrap: int = 1000, seed: int = 0
) -> Evaluation:
    """Evaluate a submission with the official metrics.

    Args:
        scores_dir: Folder of score and decision files.
        ground_truth_dir: See ``read_submission``.
        bootstrap: Resamples for the interval of the official score; 0 for no interval.
        seed: Seed of the bootstrap.

    Raises:
        SubmissionError: As ``read_submission``, or no metric at all is defined.
    """
    sections, by_domain = read_whole(scores_dir, ground_truth_dir)
    metrics = {
        key: section_metrics(section.labels, section.domains, section.scores, section.decisions)
        for key, section in sections.items()
    }
    known = [section.domains for section in sections.values() if section.domains is not None]
    domains = sorted({str(domain) for of_section in known for domain in of_section})
    notes = [
        note for key, section in sections.items() for note in _undefined(key, section, domains)
    ]
    if domains == ["source"]:
        notes.append(
            "No clip of the target domain in the ground truth, so AUC (target) is undefined and "
            "left out of the means."
        )
    if by_domain:
        notes.append(_OF_2021)
    undecided = [title(key) for key, section in sections.items() if section.decisions is None]
    if undecided:
        notes.append(
            f"No decision files, so no precision, recall and F1, for: {', '.join(undecided)}."
        )
    official = official_score(metrics_table(metrics))
    if official.undefined == official.cells:
        raise SubmissionError([f"{ground_truth_dir}: no metric is defined", *notes])
    interval = None
    if bootstrap:
        interval = bootstrap_official(list(sections.values()), n=bootstrap, seed=seed)
    return Evaluation(metrics, official, interval, tuple(notes))


def _undefined(key: Key, section: Section, domains: Sequence[str]) -> list[str]:
    """Why which metrics of a section are undefined, of the domains that there are."""
    anomalous = section.labels == 1
    left_out = "undefined and left out of the means"
    notes = []
    if not anomalous.any():
        notes.append(f"{title(key)}: no anomalous clips, so AUC and pAUC are {left_out}.")
    elif anomalous.all():
        notes.append(f"{title(key)}: no normal clips, so AUC and pAUC are {left_out}.")
    for domain in domains if section.domains is not None else ():
        inside = section.domains == domain
        if anomalous.any() and not anomalous.all() and not (inside & ~anomalous).any():
            notes.append(
                f"{title(key)}: no {domain}-domain normal clips, so AUC ({domain}) is {left_out}."
            )
        if section.decisions is not None and not (inside & anomalous).any():
            notes.append(
                f"{title(key)}: no {domain}-domain anomalous clips, so precision, recall and F1 "
                f"({domain}) are {left_out}."
            )
    return notes
