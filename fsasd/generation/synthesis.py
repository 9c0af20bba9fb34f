"""Prompts -> recordings: how what is synthesised is written, judged and listed."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from fsasd.data.audio_files import path_of
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.cleaning import Cleaning
from fsasd.generation.filters import mark_duplicates
from fsasd.generation.prompts import Prompt

MANIFEST = "manifest.csv"
COLUMNS = [*Prompt._fields, "kept", "reason"]


class SynthesisFolder:
    """Synthetic recordings on their way into one folder, from any number of ranks.

    Every finished clip is a wav and a row in the rank's own table; ``close`` joins the tables into
    ``manifest.csv``. What a killed run has finished is found again by ``remaining``.

    Args:
        folder: Where to.
        rank: Of this process.
        cleaning: What is done to each clip.
    """

    def __init__(self, folder: str | Path, rank: int = 0, cleaning: Cleaning | None = None) -> None:
        self.folder = Path(folder)
        self.rank = rank
        self.cleaning = cleaning or Cleaning()

    def remaining(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that no rank has finished."""
        done = {row["wav"] for row in self._rows()}
        return [prompt for prompt in prompts if prompt.wav not in done]

    def write(self, prompt: Prompt, waveform: np.ndarray) -> None:
        """Restore the level, clean, judge and write one clip (16-bit wav)."""
        waveform, reason = self.cleaning(
            waveform / prompt.gain, prompt.seconds, derived=prompt.derived
        )
        path = self.folder / prompt.wav
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        table = self.folder / f"rows-{self.rank}.csv"
        finished = _whole_lines(table)
        with table.open("a", newline="", encoding="utf-8") as file:
            file.truncate(len(finished))
            writer = csv.writer(file)
            if not finished:
                writer.writerow(COLUMNS)
            writer.writerow([*prompt, not reason, reason])

    def close(
        self,
        prompts: Sequence[Prompt],
        judge: Callable[[pd.DataFrame, Path], pd.DataFrame] | None = None,
    ) -> pd.DataFrame:
        """Join the ranks' rows, in the prompts' order, into ``manifest.csv``.

        Clips that are, sample by sample, earlier ones are not kept.

        Args:
            prompts: All of them.
            judge: (manifest, folder) -> manifest: what else is not kept of the whole set
                (``filters.Filters``).

        Raises:
            RuntimeError: A prompt has not been finished.
        """
        if missing := self.remaining(prompts):
            raise RuntimeError(f"{len(missing)} of {len(prompts)} clips were not synthesised")
        rows = {row["wav"]: row for row in self._rows()}
        manifest = pd.DataFrame([rows[prompt.wav] for prompt in prompts], columns=COLUMNS)
        manifest = mark_duplicates(_with_truths(manifest), self.folder)
        if judge is not None:
            manifest = judge(manifest, self.folder)
        partial = self.folder / f"{MANIFEST}.partial"
        manifest.to_csv(partial, index=False)
        partial.replace(self.folder / MANIFEST)
        for table in self.folder.glob("rows-*.csv"):
            table.unlink()
        return manifest

    def _rows(self) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = []
        tables = [*self.folder.glob("rows-*.csv"), *self.folder.glob(MANIFEST)]
        for table in tables:
            rows += csv.DictReader(io.StringIO(_whole_lines(table).decode(), newline=""))
        return rows


def _with_truths(manifest: pd.DataFrame) -> pd.DataFrame:
    return manifest.assign(**{name: manifest[name] == "True" for name in ("kept", "derived")})


def _whole_lines(table: Path) -> bytes:
    # A killed writer can leave half a last row.
    content = table.read_bytes() if table.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def read_table(folder: str | Path) -> pd.DataFrame:
    """Return the manifest: all text as it was written, ``kept`` and ``derived`` True or False.

    Raises:
        FileNotFoundError: There is no manifest.
        ValueError: A column is missing.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: was the synthesis finished?")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, found none named "
            f"{', '.join(missing)}. It is of an older version: synthesise anew"
        )
    return _with_truths(table)


def read_manifest(folder: str | Path, *, kept: bool = True) -> list[Clip]:
    """Read the synthetic clips of a folder.

    A clip has the attributes of the real one whose caption it has, so that a synthetic normal clip
    is of its class. One that was made of a real one's audio names it as its ``source``, too.

    Raises:
        FileNotFoundError: There is no manifest.
    """
    rows = read_table(folder)
    return [
        Clip(
            path=Path(folder) / row["wav"],
            machine=row["machine"],
            section=row["section"] or None,
            domain=row["domain"] or None,
            label=row["label"],
            attributes=json.loads(row["attributes"]),
            raw_label=row["raw_label"],
            source=path_of(row["source"]) if row["derived"] else None,
            synthetic=True,
        )
        for row in rows.to_dict("records")
        if row["kept"] or not kept
    ]


def rejections(folder: str | Path, machine: str) -> Counter[str]:
    """Count why clips of a machine were not kept."""
    table = read_table(folder)
    return Counter(table[(table["machine"] == machine) & ~table["kept"]]["reason"])
