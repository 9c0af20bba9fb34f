"""An exported detector held against the one in Python: scores, and the time of a clip."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import BOTH, read
from fsasd.deployment.waveforms import Waveforms
from fsasd.detectors.scoring.scorers import Scorer
from fsasd.export.graph import require_extra
from fsasd.export.model_file import Exported
from fsasd.export.recording import INPUT

TOLERANCE = 1e-4
"""Difference of a score from Python's that is allowed, relative to scores above 1."""

SECONDS = 10.0
"""Of the clip whose time is taken."""

_ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """An exported detector and the one in Python on the same waveforms.

    Attributes:
        clips: How many were scored.
        difference: The largest of their scores' differences, relative to scores above 1.
        onnx_milliseconds: Of onnxruntime for a clip of ``SECONDS``, on one thread.
        python_milliseconds: Of Python for the same.
    """

    clips: int
    difference: float
    onnx_milliseconds: float
    python_milliseconds: float


def read_input(exported: Exported, path: Path) -> np.ndarray:
    """Read a recording as the input of an exported detector.

    Raises:
        AudioError: It cannot be used (see ``recording.read``).
    """
    channel = exported.metadata["channel"] or None
    rate, seconds = int(exported.metadata["sampling_rate"]), exported.metadata["seconds"]
    return read(
        path,
        channel=int(channel) if channel and channel.isdecimal() else channel,
        seconds=float(seconds) if seconds else None,
        sampling_rate=rate,
    )


def drawn_input(exported: Exported, seconds: float = SECONDS) -> np.ndarray:
    """Return a waveform for an exported detector: tones that beat, and noise."""
    rng = np.random.default_rng(0)
    rate, channels = int(exported.metadata["sampling_rate"]), int(exported.metadata["channels"])
    at = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * hertz * at) / 2**n for n, hertz in enumerate((50, 317, 1210)))
    sound = 0.1 * tones * (1 + 0.5 * np.sin(2 * np.pi * 1.3 * at))
    waveform = sound + 0.02 * rng.standard_normal((channels, len(at)))
    return (waveform if exported.metadata["channel"] == BOTH else waveform[0]).astype(np.float32)


def session(exported: Exported) -> Any:
    """Return an onnxruntime session of one thread.

    Raises:
        ModuleNotFoundError: The extra ``export`` is not installed.
    """
    runtime = require_extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(exported.content, options, ["CPUExecutionProvider"])


def compare(
    exported: Exported, detector: Scorer, waveforms: Mapping[Path, np.ndarray]
) -> Comparison:
    """Score waveforms by an exported detector and in Python, and take the time of a clip.

    Args:
        exported: The detector as ONNX.
        detector: The same in Python.
        waveforms: Name to waveform, as ``read_input`` returns them; one is drawn if there are none.
    """
    running = session(exported)
    drawn = {Path("drawn"): drawn_input(exported)}
    waveforms = dict(waveforms) or drawn
    of_onnx = np.array([running.run(["score"], {INPUT: one})[0] for one in waveforms.values()])
    rate = int(exported.metadata["sampling_rate"])
    of_python = _scores(detector, waveforms, rate)
    differences = np.abs(of_onnx - of_python) / np.maximum(1.0, np.abs(of_python))
    with threadpool_limits(1):
        onnx, python = (
            _milliseconds(call)
            for call in (
                lambda: running.run(None, {INPUT: drawn[Path("drawn")]}),
                lambda: _scores(detector, drawn, rate),
            )
        )
    # The largest of NaN is NaN, which is no equality.
    return Comparison(len(waveforms), float(differences.max()), onnx, python)


def _scores(
    detector: Scorer, waveforms: Mapping[Path, np.ndarray], sampling_rate: int
) -> np.ndarray:
    clips = [Clip(path, machine="", split="test") for path in waveforms]
    named = {path: waveform.T for path, waveform in waveforms.items()}
    return detector.score(Clips(clips, Waveforms(named, sampling_rate)))


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return 1e3 * min(taken)
