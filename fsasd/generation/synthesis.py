"""Synthesis: prompts -> recordings and their manifest, on any number of ranks, resumable."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import numpy as np
import pandas as pd
import soundfile
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader

from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.base import Generator
from fsasd.generation.batches import batches
from fsasd.generation.cleaning import Cleaning
from fsasd.generation.prompts import Prompt
from fsasd.generation.synthetic_clips import COLUMNS, MANIFEST, with_booleans, write_table
from fsasd.runtime.memory import memory_advice
from fsasd.runtime.ranks import rank
from fsasd.runtime.resuming import interruptible
from fsasd.runtime.stopping import OwnSignals
from fsasd.store.atomic import UNFINISHED, replacing

log = logging.getLogger(__name__)

_HEADER = ",".join(COLUMNS).encode()

_TAIL = 8192
"""Bytes that are read at a time to find the end of a table's last row."""


def synthesise(
    generator: Generator,
    prompts: Sequence[Prompt],
    folder: str | Path,
    trainer: L.Trainer,
    cleaning: Cleaning | None = None,
    batch_size: int = 16,
) -> None:
    """Generate a clip per prompt: wav files and ``manifest.csv``.

    The files do not depend on the number of ranks. A call that was interrupted is resumed by the
    same call: clips that are finished stay, batches that are not are generated.

    Args:
        generator: Fine-tuned, or one that needs no training; generates with the moving average of
            its weights where it has one.
        prompts: As ``make_prompts`` or ``with_candidates`` returned them; the generator prepares
            them.
        folder: Gets the recordings and the manifest.
        trainer: Where to compute; all of its ranks call this function.
        cleaning: Applied to each clip; the default one without.
        batch_size: Prompts that are generated together; part of what a clip depends on.

    Raises:
        KeyboardInterrupt: It was interrupted.
        OSError: A file could not be written.
        ValueError: The accelerator's memory does not suffice.

    >>> import tempfile, warnings
    >>> from fsasd.data.clips import Clips
    >>> from fsasd.data.metadata import Clip
    >>> from fsasd.generation.prompts import make_prompts
    >>> from fsasd.generation.synthetic_clips import read_manifest
    >>> from fsasd.generation.transforms import FaultTransforms
    >>> folder = Path(tempfile.mkdtemp())
    >>> noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    >>> soundfile.write(folder / "fan.wav", noise, SAMPLE_RATE)
    >>> normal = Clips([Clip(folder / "fan.wav", "fan", label="normal")])
    >>> prompts = make_prompts(normal, ["The normal sound of a fan."], clips_per_label=1)
    >>> generator = FaultTransforms({"leak": {"strength": [0.2, 0.5], "above": [2e3, 4e3]}})
    >>> trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    >>> with warnings.catch_warnings(action="ignore"):
    ...     synthesise(generator, prompts, folder / "synthetic", trainer)
    >>> [clip.label for clip in read_manifest(folder / "synthetic")]
    ['normal', 'anomaly']
    """
    prompts = generator.prepare(prompts)
    remaining = SynthesisFolder(folder).remaining(prompts)
    if not remaining:
        if rank() == 0:
            # A call that was killed after its last clip has only the manifest to write.
            SynthesisFolder(folder).close(prompts)
        return
    # Ranks are dealt whole batches, which are the same for any number of them.
    loader: DataLoader = DataLoader(
        batches(prompts, remaining, batch_size, trainer.world_size),  # type: ignore[arg-type]
        batch_size=1,
        collate_fn=itemgetter(0),
    )
    writer = _Writer(Path(folder), prompts, cleaning)
    before = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [OwnSignals(), *before, writer]  # type: ignore[attr-defined]
    lower = f"synthesis.batch_size (now {batch_size})"
    try:
        with generator.averaged_weights(), memory_advice(lower), interruptible(trainer):
            trainer.predict(generator, loader, return_predictions=False)
    finally:
        trainer.callbacks = before  # type: ignore[attr-defined]


class SynthesisFolder:
    """A folder that synthetic recordings are written into, by any number of ranks.

    A finished clip is a wav file and a row of its rank's table, which has the file's SHA-256;
    ``close`` joins the tables into ``manifest.csv``.

    Args:
        folder: Gets the recordings.
        rank: Of this process.
        cleaning: Applied to each clip; the default one without.
    """

    def __init__(self, folder: str | Path, rank: int = 0, cleaning: Cleaning | None = None) -> None:
        self.folder = Path(folder)
        self.rank = rank
        self.cleaning = cleaning or Cleaning()

    def remaining(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that no rank has finished, or whose file is damaged or missing."""
        finished = self._finished()
        return [prompt for prompt in prompts if prompt.wav not in finished]

    def write(self, prompt: Prompt, waveform: np.ndarray, rate: int = SAMPLE_RATE) -> None:
        """Write one clip (16-bit wav), cleaned and at the level of its source.

        Args:
            prompt: What it was generated for.
            waveform: (samples,) as the generator returned it.
            rate: Of the waveform, and of the file, in Hz.

        Raises:
            OSError: It could not be written; the clip is not finished then.
        """
        waveform, reason = self.cleaning(
            waveform / prompt.gain, prompt.seconds, derived=prompt.derived, sampling_rate=rate
        )
        encoded = io.BytesIO()
        soundfile.write(encoded, waveform.clip(-1, 1), rate, subtype="PCM_16", format="WAV")
        content = encoded.getvalue()
        path = self.folder / prompt.wav
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
        self._append([*prompt, hashlib.sha256(content).hexdigest(), not reason, reason])

    def close(self, prompts: Sequence[Prompt]) -> pd.DataFrame:
        """Join the ranks' tables, in the order of the prompts, into ``manifest.csv``.

        Returns:
            The manifest (see ``synthetic_clips.read_table``).

        Raises:
            RuntimeError: A prompt has not been finished.
        """
        finished = self._finished()
        if missing := [prompt.wav for prompt in prompts if prompt.wav not in finished]:
            raise RuntimeError(
                f"{self.folder}: {len(missing)} of {len(prompts)} clips were not synthesised, the "
                f"first is {missing[0]}"
            )
        rows = [finished[prompt.wav] for prompt in prompts]
        manifest = with_booleans(pd.DataFrame(rows, columns=COLUMNS))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_table(manifest, self.folder)
        killed_writers = self.folder.rglob(f"*{UNFINISHED}")
        for path in [*self.folder.glob("rows-*.csv"), *killed_writers]:
            path.unlink()
        return manifest

    def _append(self, row: Sequence[Any]) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        with (self.folder / f"rows-{self.rank}.csv").open("a+b") as file:
            end = _end_of_rows(file)
            file.truncate(end)
            if not end:
                writer.writerow(COLUMNS)
            writer.writerow(row)
            file.write(text.getvalue().encode())

    def _finished(self) -> dict[str, dict[str, str]]:
        """Return wav -> row of the clips whose file is as it was written."""
        # The manifest last: by the time that a rank's table is gone, it is there.
        tables = [*self.folder.glob("rows-*.csv"), self.folder / MANIFEST]
        finished: dict[str, dict[str, str]] = {}
        for table in tables:
            lines = io.StringIO(_complete_lines(table).decode(errors="replace"), newline="")
            for row in csv.DictReader(lines):
                if row["wav"] in finished:
                    continue
                path = self.folder / row["wav"]
                if path.is_file() and _sha256(path) == row["sha256"]:
                    finished[row["wav"]] = row
                else:
                    log.warning("%s: missing or damaged since it was written", path)
        return finished


class _Writer(BasePredictionWriter):
    """Writes what ``trainer.predict`` generates, from every rank."""

    def __init__(self, folder: Path, prompts: Sequence[Prompt], cleaning: Cleaning | None) -> None:
        super().__init__("batch")
        self.folder = folder
        self.prompts = prompts
        self.cleaning = cleaning

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the clips of a batch."""
        folder = SynthesisFolder(self.folder, trainer.global_rank, self.cleaning)
        for prompt, waveform in zip(batch, prediction, strict=True):
            folder.write(prompt, waveform.numpy(), pl_module.sampling_rate)  # type: ignore[arg-type]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the manifest once every rank is done."""
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            SynthesisFolder(self.folder).close(self.prompts)
        trainer.strategy.barrier()


def _complete_lines(table: Path) -> bytes:
    try:
        with table.open("rb") as file:
            end = _end_of_rows(file)
            file.seek(0)
            return file.read(end)
    except FileNotFoundError:
        return b""


def _end_of_rows(file: BinaryIO) -> int:
    """Return where the complete rows of a table end; only its beginning and its end are read."""
    # A killed writer can leave an incomplete last row. A table with another header is damaged, or
    # of an older version, and is started anew.
    file.seek(0)
    if file.read(len(_HEADER)) != _HEADER:
        return 0
    end = file.seek(0, io.SEEK_END)
    while end > 0:
        begin = max(end - _TAIL, 0)
        file.seek(begin)
        if (last := file.read(end - begin).rfind(b"\n")) >= 0:
            return begin + last + 1
        end = begin
    return 0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
