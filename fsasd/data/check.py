"""What a data set holds, and what is wrong with it, before hours of training are spent on it.

Every recording is read once: decoded in full, or only its header. An *error* spoils a run or its
numbers; a *warning* may be as it should be.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fsasd.data.captions import default_captions
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import Clip, MetadataError
from fsasd.data.recording import (
    SAMPLE_RATE,
    AudioError,
    decode,
    header,
    one_channel,
    require_finite,
)

SILENT = 1e-4
"""Peak (full scale is 1) below which nothing was recorded: three steps of 16 bits."""

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
        level: ``error`` or ``warning``.
        machine: Whose clips, or ``None`` where it is about the whole.
        kind: One word, e.g. ``leak``.
        message: What was found, and what it means.
        paths: The clips concerned, all of them.
    """

    level: str
    machine: str | None
    kind: str
    message: str
    paths: list[str]


@dataclass(frozen=True)
class Report:
    """What ``check`` found.

    Attributes:
        recordings: A row per clip: what is known of it, ``seconds``, ``rate``, ``channels``,
            ``peak``, ``silent``, ``clipped``, ``content`` (a hash of all samples) and ``problem``.
        machines: Per machine role, counts, lengths, attributes and captions.
        findings: Errors first.
        headers_only: Whether recordings were not decoded.
    """

    recordings: pd.DataFrame
    machines: dict[str, dict[str, Any]]
    findings: list[Finding]
    headers_only: bool

    @property
    def errors(self) -> list[Finding]:
        """The findings that spoil a run."""
        return [finding for finding in self.findings if finding.level == "error"]

    def to_json(self) -> str:
        """Return the report for machines."""
        report = {
            "clips": len(self.recordings),
            "headers_only": self.headers_only,
            "errors": len(self.errors),
            "warnings": len(self.findings) - len(self.errors),
            "machines": self.machines,
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)

    def print(self, console: Console | None = None) -> None:
        """Print the report for people."""
        out = console or Console(highlight=False, markup=False)
        if console is None and not out.is_terminal:
            out = Console(highlight=False, markup=False, width=130)
        out.print(_table(self.machines))
        for machine, found in self.machines.items():
            told = found["captions"]
            for caption in dict.fromkeys([*told["sample"][:1], told["longest"]]):
                if caption:
                    out.print(f"{machine}: {caption}", soft_wrap=True)
        for finding in self.findings:
            where = f"{finding.machine}: " if finding.machine else ""
            out.print(
                f"{finding.level.upper()} {where}{finding.message}",
                style="red" if finding.level == "error" else "yellow",
                soft_wrap=True,
            )
            for path in finding.paths[:_SHOWN]:
                out.print(f"    {path}", soft_wrap=True)
            if len(finding.paths) > _SHOWN:
                out.print(f"    ... and {len(finding.paths) - _SHOWN} more")
        depth = "headers only" if self.headers_only else "all samples"
        out.print(
            f"{_many(len(self.recordings), 'clip')} read ({depth}): "
            f"{_many(len(self.errors), 'error')}, "
            f"{_many(len(self.findings) - len(self.errors), 'warning')}"
        )


def check(data: FirstShotDataModule, headers_only: bool = False) -> Report:
    """Read every recording of a data set once, and report.

    Args:
        data: The data set, with its captions and its choice of channel.
        headers_only: Do not decode: much quicker, but what only samples tell (silence, clipping,
            NaN, duplicates, leaks) stays unknown.
    """
    recordings = inspect(data.clips, data.cache.channel, headers_only)
    captions, failures = _captions(data)
    findings = [
        *_of_recordings(recordings),
        *_of_contents(recordings),
        *_of_labels(data),
        *_of_attributes(data),
        *failures,
    ]
    findings.sort(key=lambda finding: (finding.level != "error", finding.machine or ""))
    machines = {
        str(machine): _summary(data, str(machine), own, captions[captions["machine"] == machine])
        for machine, own in recordings.groupby("machine")
    }
    return Report(recordings, machines, findings, headers_only)


def inspect(
    clips: Sequence[Clip], channel: int | str | None = None, headers_only: bool = False
) -> pd.DataFrame:
    """Read recordings, several at a time.

    Args:
        clips: Which.
        channel: What will be taken of those with several channels (see ``recording.read``).
        headers_only: Do not decode.

    Returns:
        ``Report.recordings``; a recording that cannot be read has a ``problem`` and no numbers.
    """
    look = _header if headers_only else _listen
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:
        found = threads.map(lambda clip: _look(look, clip, channel), clips)
        bar = Console(stderr=True)
        rows = list(
            track(
                found,
                "Reading",
                len(clips),
                console=bar,
                transient=True,
                disable=not bar.is_terminal,
            )
        )
    columns = ["path", "machine", "role", "split", "label", "domain", "seconds", "rate",
               "channels", "peak", "silent", "clipped", "content", "problem"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _look(look, clip: Clip, channel: int | str | None) -> dict[str, Any]:
    known = {
        "path": str(clip.path),
        "machine": clip.machine,
        "role": clip.role,
        "split": clip.split,
        "label": clip.label,
        "domain": clip.domain,
    }
    try:
        return known | look(clip, channel)
    except (AudioError, OSError) as error:
        said = str(error).removeprefix(f"{clip.path}: ")
        return known | {"problem": said}


def _header(clip: Clip, channel: int | str | None) -> dict[str, Any]:
    announced = header(clip.path)
    one_channel(np.empty((1, announced.channels)), channel, clip.path)
    return announced._asdict()


def _listen(clip: Clip, channel: int | str | None) -> dict[str, Any]:
    samples, rate = decode(clip.path)
    waveform = one_channel(samples, channel, clip.path)
    require_finite(waveform, clip.path)
    low, high = float(waveform.min()), float(waveform.max())
    return {
        "seconds": len(samples) / rate,
        "rate": rate,
        "channels": samples.shape[1],
        "peak": max(high, -low),
        # A constant is silence, too.
        "silent": high - low < 2 * SILENT,
        "clipped": (high > 0.99 and _rests_at(waveform, high))
        or (low < -0.99 and _rests_at(waveform, low)),
        "content": hashlib.blake2b(samples.data, digest_size=16).hexdigest(),
    }


def _rests_at(waveform: np.ndarray, extreme: float) -> bool:
    # A loud wave touches its extreme; a clipped one stays there.
    there = waveform == extreme
    return bool((there[2:] & there[1:-1] & there[:-2]).any())


def _captions(data: FirstShotDataModule) -> tuple[pd.DataFrame, list[Finding]]:
    told, failures = [], []
    for clip in data.trainable:
        try:
            told.append((clip.machine, data.captions(clip)))
        except MetadataError as error:
            failures.append(Finding("error", clip.machine, "caption", str(error), [str(clip.path)]))
    return pd.DataFrame(told, columns=["machine", "caption"]), failures


def _of_recordings(recordings: pd.DataFrame) -> Iterator[Finding]:
    for machine, own in recordings.groupby("machine"):
        for problem, clips in own.groupby("problem"):
            yield _finding(
                "error", machine, "unreadable", f"{_many(len(clips), 'clip')}: {problem}", clips
            )
        for kind, what in (
            ("silent", f"with a peak below {SILENT:g}, or constant"),
            ("clipped", "resting at full scale: clipped"),
        ):
            if len(clips := own[own[kind].eq(True)]):
                yield _finding(
                    "warning", machine, kind, f"{_many(len(clips), 'clip')} {what}", clips
                )
        rates = own["rate"].dropna()
        if len(clips := own.loc[rates[rates != SAMPLE_RATE].index]):
            found = ", ".join(f"{rate:g}" for rate in sorted(set(clips["rate"])))
            message = f"{_many(len(clips), 'clip')} at {found} Hz, to be resampled to {SAMPLE_RATE}"
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
        for machine, own in by_machine.items():
            clips = pd.concat(own)
            told = f"{len(clips)} clips have the same content as {message}"
            yield _finding(level, machine, kind, told, clips)


def _of_labels(data: FirstShotDataModule) -> Iterator[Finding]:
    if not data.targets:
        yield Finding("warning", None, "roles", "no target machine: nothing to detect", [])
    if not data.references:
        message = "no reference machine: a generator has no anomalies to learn from"
        yield Finding("warning", None, "roles", message, [])
    for machine in [*data.references, *data.targets]:
        clips = data.machine(machine)
        count = Counter((clip.split, clip.label) for clip in clips)
        tests = {label: n for (split, label), n in count.items() if split == "test"}
        if machine in data.references and not any(label == "anomaly" for _, label in count):
            message = "a reference machine without a labelled anomaly"
            yield Finding("warning", machine, "labels", message, [])
        if machine in data.targets and not count["train", "normal"]:
            message = "no normal training clip: nothing to fit a detector on"
            yield Finding("error", machine, "labels", message, [])
        if machine in data.targets and not tests:
            yield Finding("error", machine, "labels", "no test clip: nothing to score", [])
        if None in tests and len(tests) > 1:
            paths = [str(c.path) for c in clips if c.split == "test" and c.label is None]
            message = f"{len(paths)} of {sum(tests.values())} test clips unlabelled: no metrics"
            yield Finding("warning", machine, "labels", message, paths)


def _of_attributes(data: FirstShotDataModule) -> Iterator[Finding]:
    for machine in [*data.references, *data.targets]:
        clips = [clip for clip in data.trainable if clip.machine == machine]
        keys = dict.fromkeys(key for clip in clips for key in clip.attributes)
        for key in keys:
            if lacking := [str(clip.path) for clip in clips if key not in clip.attributes]:
                message = f"{len(lacking)} of {len(clips)} clips without the attribute '{key}'"
                yield Finding("warning", machine, "attributes", message, lacking)
        shipped = default_captions().own.get(machine, {})
        for key in sorted(data.captions.own.get(machine, {}).keys() - shipped.keys() - set(keys)):
            message = (
                f"its captions have a phrase for '{key}', which no clip has; there are: "
                f"{', '.join(keys) or 'none'}"
            )
            yield Finding("warning", machine, "attributes", message, [])


def _finding(level: str, machine: Any, kind: str, message: str, clips: pd.DataFrame) -> Finding:
    return Finding(level, str(machine), kind, message, clips["path"].tolist())


def _summary(
    data: FirstShotDataModule, machine: str, own: pd.DataFrame, captions: pd.DataFrame
) -> dict[str, Any]:
    seconds = own["seconds"].dropna()
    said = captions["caption"].drop_duplicates()
    counts: Counter[tuple[str | None, ...]] = Counter()
    values: dict[str, set[str]] = {}
    clips = data.machine(machine)
    for clip in clips:
        counts[clip.split, clip.label, clip.domain] += 1
        for key, value in clip.attributes.items():
            values.setdefault(key, set()).add(value)
    return {
        "role": clips[0].role,
        "clips": len(own),
        "counts": [
            {"split": split, "label": label, "domain": domain, "clips": count}
            for (split, label, domain), count in sorted(counts.items(), key=str)
        ],
        "seconds": {
            name: round(float(getattr(seconds, name)()), 3) if len(seconds) else None
            for name in ("min", "median", "max", "sum")
        },
        "rates": _counts(own["rate"]),
        "channels": _counts(own["channels"]),
        "attributes": {key: len(found) for key, found in values.items()},
        "captions": {
            "distinct": len(said),
            "sample": said.head(_SHOWN).tolist(),
            "longest": max(said, key=len, default=None),
        },
    }


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _counts(numbers: pd.Series) -> dict[str, int]:
    found = numbers.dropna().astype(int).astype(str).value_counts()
    return {str(number): int(count) for number, count in found.items()}


def _table(machines: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Clips per machine", title_justify="left")
    table.add_column("Machine\n", no_wrap=True)
    table.add_column("Role\n")
    for column in (
        "Train\nnormal/anomaly",
        "Test\nnormal/anomaly/?",
        "Domain\nsource/target",
        "Length\ns",
        "Rate\nHz",
        "Chan-\nnels",
        "Cap-\ntions",
    ):
        table.add_column(column, justify="right", overflow="fold")
    table.add_column("Attributes\n")
    for machine, found in machines.items():
        low, high = found["seconds"]["min"], found["seconds"]["max"]
        table.add_row(
            machine,
            found["role"] or "none",
            _slashed(found, [{"split": "train", "label": x} for x in ("normal", "anomaly")]),
            _slashed(found, [{"split": "test", "label": x} for x in ("normal", "anomaly", None)]),
            _slashed(found, [{"domain": x} for x in ("source", "target")]),
            "" if low is None else f"{low:g}" if low == high else f"{low:g} to {high:g}",
            ", ".join(found["rates"]),
            ", ".join(found["channels"]),
            str(found["captions"]["distinct"]),
            ", ".join(found["attributes"]) or "none",
        )
    return table


def _slashed(found: dict[str, Any], groups: Sequence[dict[str, str | None]]) -> str:
    numbers = [
        sum(row["clips"] for row in found["counts"] if group.items() <= row.items())
        for group in groups
    ]
    return "/".join(map(str, numbers)) if any(numbers) else ""
