"""Scanning a manifest, captions, checking recordings: each against the least that it must do.

The floor of a scan is to split the same table into cells and to list its folders; that of a check
is to read the same files with soundfile. Seconds are those of the processor, so "per core".
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

import soundfile

from benchmarks.recordings import write_recordings
from fsasd.data.captions import default_captions
from fsasd.data.check.inspection import inspect
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.manifest import read_manifest
from fsasd.data.metadata import Clip

ROWS, MACHINES, RECORDINGS = 100_000, 20, 400


def main() -> None:
    """Print times, rates and memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = _write_manifest(folder)
        floor, _ = _processor_seconds(_split_into_cells, manifest)
        before = _megabytes()
        seconds, clips = _processor_seconds(read_manifest, manifest)
        grown = _megabytes() - before
        print(
            f"scan of {ROWS} rows: {seconds:.2f} s = {seconds / floor:.1f} x the floor "
            f"({floor:.2f} s); {grown:.0f} MB"
        )
        seconds, _ = _processor_seconds(FirstShotDataModule, clips)
        tracemalloc.start()
        kept = FirstShotDataModule(clips)
        megabytes = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        print(
            f"data module of them: {seconds:.2f} s, keeps {megabytes:.1f} MB of {len(kept.clips)}"
        )
        caption = default_captions()
        seconds, _ = _processor_seconds(lambda: [caption(clip) for clip in clips])
        print(f"captions: {ROWS / seconds:.0f} a second")
        recordings = [Clip(path, "fan") for path in write_recordings(folder / "wav", RECORDINGS)]
        floor, _ = _processor_seconds(_decode, recordings)
        for what, headers_only in (("headers", True), ("all samples", False)):
            seconds, _ = _processor_seconds(inspect, recordings, None, headers_only)
            print(
                f"check of ten-second clips, {what}: {RECORDINGS / seconds:.0f} a second per core "
                f"= {seconds / floor:.2f} x the floor ({RECORDINGS / floor:.0f} a second)"
            )


def _write_manifest(folder: Path) -> Path:
    path = folder / "clips.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "machine", "role", "split", "label", "speed [rpm]", "load", "mic"])
        for machine in range(MACHINES):
            own = folder / f"machine{machine}"
            own.mkdir()
            for i in range(ROWS // MACHINES):
                (own / f"{i:06d}.wav").touch()
                role = "target" if machine == 0 else "reference"
                writer.writerow(
                    [f"{own.name}/{i:06d}.wav", own.name, role, "train", "normal",
                     800 + 100 * (i % 9), i % 4, 1 + i % 3]
                )  # fmt: skip
    return path


def _split_into_cells(manifest: Path) -> None:
    with manifest.open(newline="") as file:
        folders = {row[0].rpartition("/")[0] for row in csv.reader(file)}
    for folder in folders:
        for _ in (manifest.parent / folder).iterdir():
            pass


def _decode(clips: list[Clip]) -> None:
    for clip in clips:
        soundfile.read(clip.path, dtype="float32")


def _processor_seconds(call, *args):
    started = time.process_time()
    result = call(*args)
    return time.process_time() - started, result


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
