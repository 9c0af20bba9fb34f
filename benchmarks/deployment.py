"""Scoring with a saved model on one core: clips a second from files, and a day of a stream.

The stream is 24 hours of sound (``--hours``), a window of ten seconds each second, as fast as it
can be scored: minutes of a core, and longer by the clock where other processes want that core, too.
Each hour of sound is a line, with the memory of the process.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import soundfile
from threadpoolctl import threadpool_limits

from benchmarks.recordings import write_recordings
from fsasd import load
from fsasd.cli.scoring import ScoringSession
from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import read
from fsasd.deployment.files import grouped
from fsasd.deployment.model import Model
from fsasd.deployment.results import ResultWriter
from fsasd.deployment.streaming import Stream
from fsasd.detection.section import detect
from fsasd.detectors.twfr_gmm import TWFRGMM

CLIPS, ROUNDS = 128, 3

_HOUR = 3600 * 16_000
"""Samples."""


def main() -> None:
    """Print clips a second, and the memory of a day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=24, help="length of the stream")
    hours = parser.parse_args().hours
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        paths = write_recordings(Path(name) / "wav", CLIPS)
        clips = Clips([Clip(path, "fan") for path in paths])
        detection = detect(TWFRGMM(), {}, clips, clips[:1])
        detection.save_model(Path(name) / "model")
        model = load(Path(name) / "model")
        _files(model, paths)
        _stream(model, paths, hours)


def _files(model: Model, paths: Sequence[Path]) -> None:
    reading = _seconds(lambda: [read(path) for path in paths])
    whole = _seconds(lambda: _session(model).score_files(grouped(paths)))
    print(
        f"files: {CLIPS / whole:.0f} clips a second, of which reading takes "
        f"{100 * reading / whole:.0f} %; {CLIPS / (whole - reading):.0f} beyond it",
        flush=True,
    )


def _stream(model: Model, paths: Sequence[Path], hours: int) -> None:
    stream, rows = Stream(window=10.0, hop=1.0), _Lines()
    source = _Repeated([soundfile.read(path, dtype="int16")[0] for path in paths], hours)
    started = time.process_time()
    ScoringSession([model], ResultWriter(rows)).score_stream(stream, source, "stream")
    seconds = time.process_time() - started
    windows = int((3600 * hours - stream.window) / stream.hop) + 1
    print(
        f"stream: {hours} hours in {seconds:.0f} s of the processor; {rows.count - 1} windows "
        f"of {windows}; memory {source.memory[0]:.1f} MB after the first hour, later at most "
        f"{max(source.memory):.1f} MB",
        flush=True,
    )


class _Lines(io.TextIOBase):
    """Counts lines that are written, the title's included."""

    count = 0

    def write(self, text: str) -> int:
        self.count += text.count("\n")
        return len(text)


class _Repeated:
    """Recordings one after the other, for hours; notes the process's memory after each."""

    def __init__(self, waveforms: Sequence[np.ndarray], hours: int) -> None:
        self._waveforms = itertools.cycle(waveforms)
        self._left = hours * _HOUR
        self._rest = io.BytesIO()
        self.memory: list[float] = []

    def read(self, size: int) -> bytes:
        data = self._rest.read(size)
        if not data and self._left:
            waveform = next(self._waveforms)[: self._left]
            self._left -= len(waveform)
            self._rest = io.BytesIO(waveform.tobytes())
            data = self._rest.read(size)
            if self._left % _HOUR == 0:
                self.memory.append(psutil.Process().memory_info().rss / 2**20)
                print(f"hour {len(self.memory)}: {self.memory[-1]:.1f} MB", flush=True)
        return data


def _session(model: Model) -> ScoringSession:
    return ScoringSession([model], ResultWriter(Path(os.devnull).open("w")))


def _seconds(call) -> float:
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    main()
