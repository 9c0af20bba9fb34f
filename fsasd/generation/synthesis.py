"""Prompts -> recordings: what is to be synthesised, and how it is written and listed."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile

from fsasd.data.audio import SAMPLE_RATE, Clips
from fsasd.data.captions import anomalous
from fsasd.data.metadata import Clip, MetadataError
from fsasd.generation.latents import normalise
from fsasd.generation.quality import clean

MANIFEST = "manifest.csv"


class Prompt(NamedTuple):
    """One recording to synthesise; it depends on nothing but this.

    Attributes:
        wav: File name, relative to the manifest.
        machine: The machine that it shall sound like.
        section: Its section.
        domain: Domain of the real recording whose caption it takes.
        label: ``normal`` or ``anomaly``.
        caption: What the generator is told.
        seconds: Length to generate.
        gain: Gain of the real recording whose level it takes (see ``latents.normalise``).
        seed: Of its noise.
    """

    wav: str
    machine: str
    section: str | None
    domain: str | None
    label: str
    caption: str
    seconds: float
    gain: float
    seed: int


def make_prompts(
    clips: Clips, captions: Sequence[str], clips_per_label: int, seed: int = 0
) -> list[Prompt]:
    """Ask for as many normal as anomalous clips of each machine, from its normal captions.

    Every machine's captions come up in proportion to its real clips. An anomalous prompt is a
    normal one with the word replaced (METHOD, step 3), so that both sets differ in nothing else.

    Args:
        clips: Real normal training clips of the machines to synthesise.
        captions: One per clip.
        clips_per_label: Clips of each label per machine.
        seed: Two values give two sets.

    Raises:
        MetadataError: A clip is not normal.
    """
    machines = sorted({clip.machine for clip in clips})
    prompts = []
    for machine in machines:
        own = [i for i, clip in enumerate(clips) if clip.machine == machine]
        if wrong := next((clips[i] for i in own if clips[i].label != "normal"), None):
            raise MetadataError(f"{wrong.path}: prompts are made from normal clips only")
        order = np.random.default_rng([seed, _number(machine)]).permutation(own)
        for n in range(clips_per_label):
            clip, caption = clips[int(order[n % len(own)])], captions[order[n % len(own)]]
            waveform = clips.cache.read(clip)
            _, gain = normalise(waveform)
            for label, text in (("normal", caption), ("anomaly", anomalous(caption))):
                name = f"{machine}/{label}_{n:04d}.wav"
                prompts.append(
                    Prompt(
                        wav=name,
                        machine=machine,
                        section=clip.section,
                        domain=clip.domain,
                        label=label,
                        caption=text,
                        seconds=round(len(waveform) / SAMPLE_RATE, 2),
                        gain=float(gain),
                        seed=_number(f"{seed}/{name}"),
                    )
                )
    return prompts


class SynthesisFolder:
    """Synthetic recordings on their way into one folder, from any number of ranks.

    Every finished clip is a wav and a row in the rank's own table; ``close`` joins the tables into
    ``manifest.csv``. What a killed run has finished is found again by ``remaining``.
    """

    def __init__(self, folder: str | Path, rank: int = 0) -> None:
        self.folder = Path(folder)
        self.rank = rank

    def remaining(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that no rank has finished."""
        done = {row["wav"] for row in self._rows()}
        return [prompt for prompt in prompts if prompt.wav not in done]

    def write(self, prompt: Prompt, waveform: np.ndarray) -> None:
        """Restore the level, remove silence, judge and write one clip (16-bit wav)."""
        waveform, reason = clean(waveform / prompt.gain)
        path = self.folder / prompt.wav
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        table = self.folder / f"rows-{self.rank}.csv"
        finished = _whole_lines(table)
        with table.open("a", newline="", encoding="utf-8") as file:
            file.truncate(len(finished))
            writer = csv.writer(file)
            if not finished:
                writer.writerow([*Prompt._fields, "kept", "reason"])
            writer.writerow([*prompt, not reason, reason])

    def close(self, prompts: Sequence[Prompt]) -> pd.DataFrame:
        """Join the ranks' rows, in the prompts' order, into ``manifest.csv``.

        Raises:
            RuntimeError: A prompt has not been finished.
        """
        if missing := self.remaining(prompts):
            raise RuntimeError(f"{len(missing)} of {len(prompts)} clips were not synthesised")
        rows = {row["wav"]: row for row in self._rows()}
        manifest = pd.DataFrame([rows[prompt.wav] for prompt in prompts])
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


def _whole_lines(table: Path) -> bytes:
    # A killed writer can leave half a last row.
    content = table.read_bytes() if table.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def read_manifest(folder: str | Path, *, kept: bool = True) -> list[Clip]:
    """Read the synthetic clips of a folder.

    Raises:
        FileNotFoundError: There is no manifest.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: was the synthesis finished?")
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [
        Clip(
            path=path.parent / row["wav"],
            machine=row["machine"],
            section=row["section"] or None,
            domain=row["domain"] or None,
            label=row["label"],
            raw_label=row["caption"],
        )
        for row in rows
        if not kept or row["kept"] == "True"
    ]


def rejections(folder: str | Path, machine: str) -> Counter[str]:
    """Count why clips of a machine were not kept."""
    table = pd.read_csv(Path(folder) / MANIFEST, dtype=str, keep_default_na=False)
    return Counter(table[(table.machine == machine) & (table.kept != "True")].reason)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
