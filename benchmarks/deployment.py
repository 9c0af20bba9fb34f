"""Scoring with a saved model on one core: clips a second from files, and a day of a stream.

The stream is 24 hours of sound, a window of ten seconds each second, as fast as it can be scored;
its memory is compared after the first hour and at the end.
"""

from __future__ import annotations

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

CLIPS, ROUNDS, HOURS = 128, 3, 24


def main() -> None:
    """Print clips a second, and the memory of a day."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        paths = write_recordings(Path(name) / "wav", CLIPS)
        clips = Clips([Clip(path, "fan") for path in paths])
        detection = detect(TWFRGMM(), {}, clips, clips[:1])
        detection.save_model(Path(name) / "model")
        model = load(Path(name) / "model")
        _files(model, paths)
        _day(model, paths)


def _files(model: Model, paths: Sequence[Path]) -> None:
    reading = _seconds(lambda: [read(path) for path in paths])
    whole = _seconds(lambda: _session(model).score_files(grouped(paths)))
    print(
        f"files: {CLIPS / whole:.0f} clips a second, of which reading takes "
        f"{100 * reading / whole:.0f} %; {CLIPS / (whole - reading):.0f} beyond it",
        flush=True,
    )


def _day(model: Model, paths: Sequence[Path]) -> None:
    stream = Stream(window=10.0, hop=1.0)
    source = _Repeated([soundfile.read(path, dtype="int16")[0] for path in paths], HOURS * 3600)
    started = time.process_time()
    _session(model).score_stream(stream, source, "day")
    seconds = time.process_time() - started
    first, last = source.memory
    print(
        f"stream: {HOURS} hours in {seconds:.0f} s of the processor; memory "
        f"{first / 2**20:.1f} MB after the first hour, {last / 2**20:.1f} MB at the end",
        flush=True,
    )


class _Repeated:
    """Recordings one after the other, so many seconds; notes the process's memory."""

    def __init__(self, waveforms: Sequence[np.ndarray], seconds: int) -> None:
        self._waveforms = itertools.cycle(waveforms)
        self._left = seconds * 16_000
        self._hour = self._left - 3600 * 16_000
        self._rest = io.BytesIO()
        self.memory = [0, 0]

    def read(self, size: int) -> bytes:
        data = self._rest.read(size)
        if not data and self._left:
            waveform = next(self._waveforms)[: self._left]
            self._left -= len(waveform)
            self._rest = io.BytesIO(waveform.tobytes())
            memory = psutil.Process().memory_info().rss
            self.memory = [memory if self._left >= self._hour else self.memory[0], memory]
            return self.read(size)
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
