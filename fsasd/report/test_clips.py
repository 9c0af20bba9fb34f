"""Test clips on the report page: the most and the least anomalous, with what made their scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.names import SectionId
from fsasd.data.recording import AudioError, read
from fsasd.deployment.explanation.explain import explain, perturbations
from fsasd.deployment.explanation.figure import draw, in_words
from fsasd.deployment.model import Model, load
from fsasd.deployment.results import Result, p_in_words
from fsasd.detection.section import file_names
from fsasd.report import figures
from fsasd.report.listening import wav
from fsasd.report.results import Results

MOST_MACHINES = 8
"""Machines of a page up to which each has all its examples; of more, each has one."""

SLOWEST = 5.0
"""Seconds that an explanation may take; detectors with large networks take longer."""


@dataclass(frozen=True)
class TestClipPart:
    """A test clip on the page.

    Attributes:
        title: Why it is shown.
        file: Its name.
        section: Of the machine.
        facts: Score, threshold, decision and label, in words.
        words: Where its score comes from; empty where that takes too long to find out.
        audio: As a data URI.
        picture: Its spectrogram with the contributions; ``None`` without an explanation.
    """

    __test__ = False

    title: str
    file: str
    section: str
    facts: str
    words: str
    audio: str
    picture: Markup | None


def test_clips(
    results: Results, data: FirstShotDataModule | None, machine: str, seconds: float, few: bool
) -> list[TestClipPart]:
    """Return the most anomalous clip, the normal one that is nearest to it, and the least.

    Args:
        results: Of the run.
        data: Of whose recordings they are; without it, there are none.
        machine: Whose clips.
        seconds: Of a clip that are played.
        few: Return the most anomalous one only.
    """
    if data is None:
        return []
    parts = []
    for title, row in _chosen(results.rows("clips", machine), few):
        section = SectionId(machine, str(row["section"]))
        path = _paths(data, section).get(str(row["file"]))
        folder = results.folder / "models" / section.machine / f"section_{section.section}"
        if path is not None and path.is_file() and folder.is_dir():
            parts.append(_part(results, section, title, row, path, folder, seconds))
    return parts


test_clips.__test__ = False  # type: ignore[attr-defined]


def _chosen(clips: pd.DataFrame, few: bool) -> Iterator[tuple[str, pd.Series]]:
    if "p_value" not in clips or clips["score"].isna().all():
        # Written by a version before p-values.
        return
    clips = clips[clips["score"].notna()]
    # Scores of several sections are of several detectors; p-values can be compared.
    order = clips.sort_values(["p_value", "score"], ascending=[True, False])
    yield "The most anomalous test clip", order.iloc[0]
    if few or len(order) == 1:
        return
    normal = order[order["label"] == "normal"]
    if len(normal) and normal.index[0] not in (order.index[0], order.index[-1]):
        yield "The most anomalous of the normal ones", normal.iloc[0]
    yield "The least anomalous", order.iloc[-1]


def _paths(data: FirstShotDataModule, section: SectionId) -> dict[str, Path]:
    sections = data.clips.sections
    if section not in sections:
        return {}
    test = sections[section].where(split="test")
    return dict(zip(file_names(test), (clip.path for clip in test), strict=True))


def _part(
    results: Results,
    section: SectionId,
    title: str,
    row: pd.Series,
    path: Path,
    folder: Path,
    seconds: float,
) -> TestClipPart:
    decision = "anomalous" if row["decision"] else "normal"
    label = f", labelled {row['label']}" if isinstance(row["label"], str) else ""
    facts = (
        f"score {row['score']:.4g}, threshold {row['threshold']:.4g}, "
        f"{p_in_words(row['p_value'])}: called {decision}{label}"
    )
    words, picture = "", None
    try:
        model = load(folder)
        words, picture = _explanation(results, section, row, model, path)
        channel = model.channel
    except (ValueError, OSError, ImportError):
        # A model of another version, or of a package of the user's: its scores are shown.
        channel = None
    try:
        waveform = np.atleast_2d(read(path, channel=channel, seconds=seconds))[0]
    except AudioError:
        waveform = np.zeros(1, np.float32)
    gain = 0.9 / max(float(np.abs(waveform).max()), 1e-6)
    return TestClipPart(
        title, str(row["file"]), section.section, facts, words, wav(gain * waveform), picture
    )


def _explanation(
    results: Results, section: SectionId, row: pd.Series, model: Model, path: Path
) -> tuple[str, Markup | None]:
    cost = results.rows("costs", *section)
    if not cost.empty and perturbations(model) * cost["score_ms"].iloc[0] > 1e3 * SLOWEST:
        return "", None
    explanation = explain(model, path)
    result = Result.of(model, str(row["file"]), path.stat().st_mtime, float(row["score"]))
    with matplotlib.rc_context(figures.RC):
        drawn = draw(explanation, result, path, model.channel, heading=False)
        name = f"explanation-{section.machine}-{section.section}-{row['file']}"
        picture = Markup(figures.svg(drawn, name))
    return in_words(explanation), picture
