"""Findings: errors and possible errors in recordings and their metadata."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fsasd.data.audio_files import printable
from fsasd.data.captions import default_captions
from fsasd.data.check.likeness import Profile
from fsasd.data.check.measures import SILENT
from fsasd.data.check.wording import many, named
from fsasd.data.recording import SAMPLE_RATE

if TYPE_CHECKING:
    from fsasd.data.datamodule import FirstShotDataModule


@dataclass(frozen=True)
class Finding:
    """An error in a data set, or something that may be one.

    Attributes:
        level: ``error`` or ``warning``.
        machine: The machine of the clips; ``None`` if it concerns the whole data set.
        kind: One word, e.g. ``leak``.
        message: The finding, and what it means.
        paths: The clips concerned, all of them.
    """

    level: str
    machine: str | None
    kind: str
    message: str
    paths: list[str]


def find_in_recordings(recordings: pd.DataFrame) -> list[Finding]:
    """Return findings about recordings and their files.

    Args:
        recordings: What ``inspect`` returns.
    """
    return [*_of_files(recordings), *_of_contents(recordings), *_of_likeness(recordings)]


def find_in_metadata(data: FirstShotDataModule) -> list[Finding]:
    """Return findings about roles, labels and attributes of a data set."""
    return [*_of_labels(data), *_of_attributes(data)]


def log_findings(findings: Iterable[Finding], log: logging.Logger) -> None:
    """Log a line for each finding: errors as errors, warnings as warnings."""
    for finding in findings:
        level = logging.ERROR if finding.level == "error" else logging.WARNING
        names = named([Path(path).name for path in finding.paths])
        log.log(level, "%s: %s (%s)", finding.machine, finding.message, names)


def _of_files(recordings: pd.DataFrame) -> Iterator[Finding]:
    for machine, rows in recordings.groupby("machine"):
        bad = rows.dropna(subset="problem")
        # Messages of one problem differ in the file's name and in numbers.
        alike = [
            re.sub(r"\d[\d.e+]*", "#", problem.replace(path, ""))
            for path, problem in zip(bad["path"], bad["problem"], strict=True)
        ]
        for _, clips in bad.groupby(alike, sort=False):
            message = f"{many(len(clips), 'clip')}: {clips['problem'].iloc[0]}"
            yield _finding("error", machine, "unreadable", message, clips)
        for kind, what in (
            ("silent", f"with a peak below {SILENT:g}, or constant"),
            ("clipped", "resting at full scale: clipped"),
        ):
            if len(clips := rows[rows[kind].eq(True)]):
                yield _finding(
                    "warning", machine, kind, f"{many(len(clips), 'clip')} {what}", clips
                )
        if len(clips := rows[rows["rate"] < SAMPLE_RATE]):
            rates = sorted(set(clips["rate"]))
            message = (
                f"{many(len(clips), 'clip')} at {', '.join(f'{rate:g}' for rate in rates)} Hz, "
                f"resampled to {SAMPLE_RATE}: nothing above {rates[-1] / 2:g} Hz"
            )
            yield _finding("warning", machine, "rate", message, clips)


def _of_contents(recordings: pd.DataFrame) -> Iterator[Finding]:
    known = recordings.dropna(subset="content")
    known = known[~known["silent"].eq(True)]
    twice = known[known.duplicated("content", keep=False)]
    leaks, contradictions, copies = [], [], []
    for _, same in twice.groupby("content"):
        if {"normal", "anomaly"} <= set(same["label"]):
            contradictions.append(same)
        if {"train", "test"} <= set(same["split"]):
            leaks.append(same)
        else:
            copies.append(same)
    for level, kind, message, groups in (
        ("error", "leak", "one in the other split (train, test)", leaks),
        ("error", "contradiction", "one with the other label (normal, anomaly)", contradictions),
        ("warning", "duplicate", "another", copies),
    ):
        by_machine: dict[str, list[pd.DataFrame]] = {}
        for same in groups:
            by_machine.setdefault(" and ".join(sorted(set(same["machine"]))), []).append(same)
        for machine, copied in by_machine.items():
            clips = pd.concat(copied)
            text = f"{len(clips)} clips have the same content as {message}"
            yield _finding(level, machine, kind, text, clips)


def _of_likeness(recordings: pd.DataFrame) -> Iterator[Finding]:
    """Compare test clips with the normal training clips of their section."""
    for machine, rows in recordings.groupby("machine"):
        sections = rows.fillna({"section": "00"}).groupby("section")
        for section, clips in sections:
            fitted = clips[(clips["split"] == "train") & (clips["label"] == "normal")]
            scored = clips[(clips["split"] == "test") & clips["problem"].isna()]
            profile = Profile.of(fitted)
            where = f" of section {section}" if len(sections) > 1 else ""
            for difference in profile.differences(scored) if profile else ():
                # Silence and clipping of all clips are reported by ``_of_files``.
                if difference.kind not in ("silent", "clipped"):
                    message = f"of {many(len(scored), 'test clip')}{where}: {difference.message}"
                    which = scored[difference.which]
                    text = f"{len(which)} {message}"
                    yield _finding("warning", machine, difference.kind, text, which)


def _of_labels(data: FirstShotDataModule) -> Iterator[Finding]:
    references, targets = set(data.references), set(data.targets)
    if not targets:
        yield Finding("warning", None, "roles", "no target machine: nothing to detect", [])
    if not references:
        message = "no reference machine: a generator has no anomalies to learn from"
        yield Finding("warning", None, "roles", message, [])
    for machine in [*data.references, *data.targets]:
        clips = data.machine(machine)
        count = Counter((clip.split, clip.label) for clip in clips)
        tests = {label: n for (split, label), n in count.items() if split == "test"}
        if machine in references and not any(label == "anomaly" for _, label in count):
            message = "a reference machine without a labelled anomaly"
            yield Finding("warning", machine, "labels", message, [])
        if machine in targets and not count["train", "normal"]:
            message = "no normal training clip: nothing to fit a detector on"
            yield Finding("error", machine, "labels", message, [])
        if machine in targets and not tests:
            yield Finding("error", machine, "labels", "no test clip: nothing to score", [])
        if machine in targets and count["train", "anomaly"]:
            paths = [printable(c.path) for c in clips if (c.split, c.label) == ("train", "anomaly")]
            message = (
                f"{many(len(paths), 'anomalous training clip')} of a target: no run uses them; "
                "fsasd-refit --anomalous chooses the setting of its saved detector on them"
            )
            yield Finding("warning", machine, "labels", message, paths)
        if None in tests and len(tests) > 1:
            paths = [printable(c.path) for c in clips if c.split == "test" and c.label is None]
            message = f"{len(paths)} of {sum(tests.values())} test clips unlabelled: no metrics"
            yield Finding("warning", machine, "labels", message, paths)


def _of_attributes(data: FirstShotDataModule) -> Iterator[Finding]:
    for machine in [*data.references, *data.targets]:
        clips = data.trainable.where(machine=machine)
        keys = dict.fromkeys(key for clip in clips for key in clip.attributes)
        for key in keys:
            if lacking := [printable(clip.path) for clip in clips if key not in clip.attributes]:
                message = f"{len(lacking)} of {len(clips)} clips without the attribute '{key}'"
                yield Finding("warning", machine, "attributes", message, lacking)
        shipped = default_captions().machine_phrases.get(machine, {})
        for key in sorted(
            data.captions.machine_phrases.get(machine, {}).keys() - shipped.keys() - set(keys)
        ):
            message = (
                f"its captions have a phrase for '{key}', which no clip has; there are: "
                f"{', '.join(keys) or 'none'}"
            )
            yield Finding("warning", machine, "attributes", message, [])


def _finding(level: str, machine: Any, kind: str, message: str, clips: pd.DataFrame) -> Finding:
    return Finding(level, str(machine), kind, message, clips["path"].tolist())
