"""The report of all checks: tables, sample captions and findings for the console; JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from fsasd.data.audio_files import printable
from fsasd.data.check.findings import (
    Finding,
    find_in_metadata,
    find_in_recordings,
)
from fsasd.data.check.inspection import inspect
from fsasd.data.check.wording import SHOWN, many
from fsasd.data.metadata import MetadataError

if TYPE_CHECKING:
    from fsasd.data.datamodule import FirstShotDataModule


@dataclass(frozen=True)
class Report:
    """Result of ``check``.

    Attributes:
        recordings: A row per clip: its metadata, ``seconds``, ``rate``, ``channels``,
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
        """Findings that a run cannot be trusted with."""
        return [finding for finding in self.findings if finding.level == "error"]

    def to_json(self) -> str:
        """Return the report as JSON."""
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
        """Print the report to the console."""
        out = console or Console(highlight=False, markup=False)
        if console is None and not out.is_terminal:
            out = Console(highlight=False, markup=False, width=130)
        out.print(_table(self.machines, self.findings))
        for machine, summary in self.machines.items():
            captions = summary["captions"]
            channels = ", ".join(summary["channels"])
            attributes = ", ".join(summary["attributes"]) or "no attribute"
            line = f"{many(captions['distinct'], 'caption')} of {attributes}"
            if channels not in ("", "1"):
                line = f"{channels} channels, {line}"
            out.print(f"{machine}: {line}", soft_wrap=True)
            for caption in dict.fromkeys([*captions["sample"][:1], captions["longest"]]):
                if caption:
                    out.print(f"    {caption}", soft_wrap=True)
        for finding in self.findings:
            where = f"{finding.machine}: " if finding.machine else ""
            out.print(
                f"{finding.level.upper()} {where}{finding.message}",
                style="red" if finding.level == "error" else "yellow",
                soft_wrap=True,
            )
            for path in finding.paths[:SHOWN]:
                out.print(f"    {path}", soft_wrap=True)
            if len(finding.paths) > SHOWN:
                out.print(f"    ... and {len(finding.paths) - SHOWN} more")
        depth = "headers only" if self.headers_only else "all samples"
        out.print(
            f"{many(len(self.recordings), 'clip')} read ({depth}): "
            f"{many(len(self.errors), 'error')}, "
            f"{many(len(self.findings) - len(self.errors), 'warning')}"
        )


def check(data: FirstShotDataModule, headers_only: bool = False) -> Report:
    """Check a data set, reading every recording once.

    Args:
        data: The data set, with its captions and its choice of channel.
        headers_only: Do not decode: much quicker, but silence, clipping, NaN, duplicates and leaks
            are not noticed.
    """
    recordings = inspect(data.clips, data.cache.channel, headers_only)
    captions, failures = _captions(data)
    no_captions = captions["caption"].iloc[:0]
    findings = [*find_in_recordings(recordings), *find_in_metadata(data), *failures]
    findings.sort(key=lambda finding: (finding.level != "error", finding.machine or ""))
    of_machine = dict(list(captions.groupby("machine")["caption"]))
    machines = {
        str(machine): _summary(data, str(machine), rows, of_machine.get(machine, no_captions))
        for machine, rows in recordings.groupby("machine")
    }
    return Report(recordings, machines, findings, headers_only)


def _captions(data: FirstShotDataModule) -> tuple[pd.DataFrame, list[Finding]]:
    rows, failures = [], []
    for clip in data.trainable:
        try:
            rows.append((clip.machine, data.captions(clip)))
        except MetadataError as error:
            failures.append(
                Finding("error", clip.machine, "caption", str(error), [printable(clip.path)])
            )
    return pd.DataFrame(rows, columns=["machine", "caption"]), failures


def _summary(
    data: FirstShotDataModule, machine: str, rows: pd.DataFrame, captions: pd.Series
) -> dict[str, Any]:
    seconds = rows["seconds"].dropna()
    distinct = captions.drop_duplicates()
    counts: Counter[tuple[str | None, ...]] = Counter()
    values: dict[str, set[str]] = {}
    clips = data.machine(machine)
    for clip in clips:
        counts[clip.split, clip.label, clip.domain] += 1
        for key, value in clip.attributes.items():
            values.setdefault(key, set()).add(value)
    return {
        "role": clips[0].role,
        "clips": len(rows),
        "counts": [
            {"split": split, "label": label, "domain": domain, "clips": count}
            for (split, label, domain), count in sorted(counts.items(), key=str)
        ],
        "seconds": {
            name: round(float(getattr(seconds, name)()), 3) if len(seconds) else None
            for name in ("min", "median", "max", "sum")
        },
        "rates": _counts(rows["rate"]),
        "channels": _counts(rows["channels"]),
        "attributes": {key: len(several) for key, several in values.items()},
        "captions": {
            "distinct": len(distinct),
            "sample": distinct.head(SHOWN).tolist(),
            "longest": max(distinct, key=len, default=None),
        },
    }


def _counts(numbers: pd.Series) -> dict[str, int]:
    counts = numbers.dropna().astype(int).astype(str).value_counts()
    return {str(number): int(count) for number, count in counts.items()}


def _table(machines: dict[str, dict[str, Any]], findings: Sequence[Finding]) -> Table:
    table = Table(
        title="Clips per machine",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
    )
    for heading in (
        "Machine",
        "Role",
        "Train\nnormal/\nanomaly",
        "Test\nnormal/\nanomaly/\nunknown",
        "Domain\nsource/\ntarget",
        "Length\nin s",
        "Rate\nin Hz",
        "In\nerrors/\nwarnings",
    ):
        table.add_column(
            heading,
            justify="left" if heading in ("Machine", "Role") else "right",
            overflow="fold",
            # In a narrow console cells are wrapped, headings are not.
            min_width=max(map(len, heading.split())),
        )
    of_machine: dict[str, list[Finding]] = {}
    for finding in findings:
        of_machine.setdefault(finding.machine or "", []).append(finding)
    for machine, summary in machines.items():
        low, high = summary["seconds"]["min"], summary["seconds"]["max"]
        table.add_row(
            machine,
            summary["role"] or "none",
            _slashed(summary, [{"split": "train", "label": x} for x in ("normal", "anomaly")]),
            _slashed(summary, [{"split": "test", "label": x} for x in ("normal", "anomaly", None)]),
            _slashed(summary, [{"domain": x} for x in ("source", "target")]),
            "" if low is None else f"{low:g}" if low == high else f"{low:g} to {high:g}",
            ", ".join(summary["rates"]),
            _complaints(of_machine.get(machine, ())),
        )
    return table


def _complaints(findings: Sequence[Finding]) -> str:
    """Count the clips that errors and warnings are about."""
    paths = {
        level: {path for finding in findings if finding.level == level for path in finding.paths}
        for level in ("error", "warning")
    }
    return f"{len(paths['error'])}/{len(paths['warning'])}" if any(paths.values()) else ""


def _slashed(summary: dict[str, Any], groups: Sequence[dict[str, str | None]]) -> str:
    numbers = [
        sum(row["clips"] for row in summary["counts"] if group.items() <= row.items())
        for group in groups
    ]
    return "/".join(map(str, numbers)) if any(numbers) else ""
