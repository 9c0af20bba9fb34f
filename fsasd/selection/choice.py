"""The choice of a setting for one section: evidence is measured, a rule chooses, labels judge.

``measure`` is all that reads clips. ``choose`` is array work on its evidence. ``in_hindsight``
measures what the choice was worth, where the labels of the test clips are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector, TooFewClipsError, require_finite
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.metrics import known_domains
from fsasd.generation.gap import Gap, measure_gap
from fsasd.generation.sources import source_groups
from fsasd.selection.crossfit import calibrated, crossfit
from fsasd.selection.selector import Curve, Selection, Selector
from fsasd.selection.settings import PARAMETER, Candidates, row_of, title
from fsasd.selection.significance import n_independent, unlike_real_clips
from fsasd.settings.objects import described, rebuilt

EVIDENCE = "evidence.json"
SCORES = "evidence.safetensors"

FORMAT = 2
"""Of these files, raised when what they hold changes."""

Domains = list[str | None]


@dataclass(frozen=True, eq=False)
class ScoredClips:
    """Clips as settings scored them, and what the rule needs to know of them.

    Attributes:
        scores: (settings, n).
        labels: (n,) 1 for anomaly.
        domains: (n,) as far as they are known.
        groups: (n,) equal for clips of one recording.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int_]
    domains: Domains
    groups: NDArray[np.int_]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Scores of every candidate setting on clips of one section.

    Attributes:
        candidates: The settings.
        measured: What the selector asked for (``Selector.measured``).
        abstain_reason: Why nothing could be tried, if so; then there is no ``synthetic``.
        synthetic: Synthetic clips of both labels, a row for each candidate. Cross-fitted if any is
            made of a training clip or the selector calibrates, else scored by fits on all
            training clips.
        train: Real normal training clips, held out: a row for each candidate where the synthetic
            clips are cross-fitted, else none.
        gap: Between synthetic and real normals; ``None`` where it was not measured.
        test: (candidates, t) of test clips; ``None`` where they were not given, or a setting could
            not be fitted.
    """

    candidates: Candidates
    measured: Mapping[str, Any]
    abstain_reason: str = ""
    synthetic: ScoredClips | None = None
    train: ScoredClips | None = None
    gap: Gap | None = None
    test: NDArray[np.float64] | None = None

    def save(self, folder: Path) -> None:
        """Write ``evidence.json`` and ``evidence.safetensors``; ``load`` gives the same bits.

        Raises:
            TypeError: A value of a setting can be neither JSON nor made again from JSON.
        """
        folder.mkdir(parents=True, exist_ok=True)
        clips = {"synthetic": self.synthetic, "train": self.train}
        arrays = {name: some.scores for name, some in clips.items() if some is not None}
        if self.test is not None:
            arrays["test"] = self.test
        about = {
            "format": FORMAT,
            "measured": self.measured,
            "abstain_reason": self.abstain_reason,
            "settings": described(self.candidates.settings, "settings"),
            "n_grid": self.candidates.n_grid,
            "params": described(self.candidates.params, "params"),
            "clips": {
                name: {
                    "labels": some.labels.tolist(),
                    "domains": some.domains,
                    "groups": some.groups.tolist(),
                }
                for name, some in clips.items()
                if some is not None
            },
            "gap": None if self.gap is None else asdict(self.gap),
        }
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / SCORES)
        (folder / EVIDENCE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, trust: Iterable[str] = ()) -> Self:
        """Read what ``save`` wrote.

        Args:
            folder: Holds the two files.
            trust: Packages whose classes values of settings may have, beside those of fsasd and
                scikit-learn.

        Raises:
            ValueError: They are of another format.
        """
        about = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))
        if about.get("format") != FORMAT:
            raise ValueError(
                f"{folder / EVIDENCE}: expected format {FORMAT}, found {about.get('format')}: it "
                "was written by another version of fsasd"
            )
        arrays = load_file(folder / SCORES)
        clips = {
            name: ScoredClips(
                arrays[name],
                np.array(known["labels"], dtype=int),
                known["domains"],
                np.array(known["groups"], dtype=int),
            )
            for name, known in about["clips"].items()
        }
        trust = tuple(trust)
        settings, params = rebuilt(about["settings"], trust), rebuilt(about["params"], trust)
        return cls(
            Candidates(settings, about["n_grid"], params),
            about["measured"],
            about["abstain_reason"],
            clips.get("synthetic"),
            clips.get("train"),
            None if about["gap"] is None else Gap(**about["gap"]),
            arrays.get("test"),
        )


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
        synthetic=ScoredClips(
            scores[:, : len(synthetic)], synthetic.labels, _domains(synthetic), groups[len(train) :]
        ),
        train=ScoredClips(
            held_out, np.zeros(len(train), dtype=int), _domains(train), groups[: len(train)]
        ),
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
    scores, labels, groups = synthetic.scores, synthetic.labels, synthetic.groups
    domains = synthetic.domains
    gap = evidence.gap
    reason = ""
    if selector.abstain and not selector.calibrate and selector.max_gap is not None:
        independent = n_independent(train.groups), n_independent(groups[labels == 0])
        reason = unlike_real_clips(gap, independent, selector.max_gap)
    if selector.calibrate:
        anomalous = np.flatnonzero(labels == 1)
        scores, labels = calibrated(train.scores, scores, labels)
        domains = [*train.domains, *(domains[row] for row in anomalous)]
        groups = np.concatenate([train.groups, groups[anomalous]])
    selection = selector.select(
        candidates, labels, scores, known_domains(domains), groups=groups, abstain_reason=reason
    )
    return replace(selection, gap=gap)


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
    if evidence.test.shape[1] != len(test):
        raise ValueError(
            f"evidence: expected scores of {len(test)} test clips, found {evidence.test.shape[1]}"
        )
    candidates = evidence.candidates
    domains = evaluated_domains(test)
    groups = recording_groups(clip.recording for clip in test)
    real = selector.curve(test.labels, evidence.test, domains, groups=groups, candidates=candidates)
    rows = _compared(selector, selection, candidates, real)
    default = next(name for name, row in rows.items() if row == candidates.default)
    return Hindsight(
        real,
        _settings_table(rows, candidates, real, default, selection.abstain_reason),
        _score_table(rows, default, test, evidence.test),
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
