"""The conformance check of a detector's export to ONNX, which needs the extra ``export``."""

from __future__ import annotations

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.recording import decode
from fsasd.evaluation.calibration import Calibration
from fsasd.export.comparison import TOLERANCE, read_input, session
from fsasd.export.graph import NotExportableError
from fsasd.export.model_file import export
from fsasd.export.recording import INPUT
from fsasd.testing.detector_case import ConformanceError, DetectorCase

_ROUNDINGS = 4
"""Of the samples, that a score may be apart where they change it by more than the tolerance."""


def check_export(case: DetectorCase) -> bool:
    """A detector's ONNX file scores as it does, also clips of other lengths; or it is refused.

    Scores are equal to 1e-4, or to a few times of what rounding the samples to single precision
    changes in Python. What is refused says what can be exported.

    Returns:
        Whether it is exported.

    Raises:
        ConformanceError: Scores differ, or a refusal is not in words.
    """
    calibration = _calibration(case)
    try:
        exported = export(case.fitted, calibration)
    except NotExportableError as error:
        if "cannot be exported" not in str(error) or "expected" not in str(error):
            raise ConformanceError(
                f"expected a refusal that says what can be exported: {error}"
            ) from error
        return False
    running = session(exported)
    rng = np.random.default_rng(0)
    others = [
        case.recording(f"export_{seconds}", 0.1 * rng.standard_normal(round(16_000 * seconds)))
        for seconds in (0.01, 0.3, 3.7)
    ]
    for clips in (case.test, Clips(others)):
        expected = np.asarray(case.fitted.score(clips))
        rows = [running.run(None, {INPUT: read_input(exported, clip.path)}) for clip in clips]
        scores, p_values, anomalous = (np.array(column) for column in zip(*rows, strict=True))
        allowed = TOLERANCE * np.maximum(1.0, np.abs(expected))
        if (apart := ~(np.abs(scores - expected) <= allowed)).any():
            # A network whose embeddings hardly differ, say, magnifies rounding.
            rounded = np.abs(case.fitted.score(_rounded(case, clips)) - expected)
            apart &= ~(np.abs(scores - expected) <= _ROUNDINGS * rounded.max())
        if apart.any():
            raise ConformanceError(
                f"expected Python's scores to {TOLERANCE:g}, found {scores.tolist()} for "
                f"{expected.tolist()}"
            )
        if not np.allclose(p_values, calibration.p_values(scores), rtol=TOLERANCE, atol=0):
            raise ConformanceError(
                f"expected the p-values {calibration.p_values(scores).tolist()} of its scores, "
                f"found {p_values.tolist()}"
            )
        if (anomalous != (scores > calibration.threshold)).any():
            raise ConformanceError(f"expected scores above {calibration.threshold} as anomalous")
    return True


def _rounded(case: DetectorCase, clips: Clips) -> Clips:
    """Return clips whose samples are moved by the rounding of single precision."""
    rng = np.random.default_rng(0)
    moved = []
    for number, clip in enumerate(clips):
        waveform, rate = decode(clip.path)
        by = 1 + np.finfo(np.float32).eps * rng.uniform(-1, 1, waveform.shape)
        moved.append(case.recording(f"rounded_{number}", waveform * by, rate, clip))
    return Clips(moved)


def _calibration(case: DetectorCase) -> Calibration:
    train = case.train
    scores = {str(number): score for number, score in enumerate(case.fitted.score(train).tolist())}
    return Calibration.of(scores, train.domains.tolist(), train.states)
