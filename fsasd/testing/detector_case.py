"""What checks of detectors have in common: the detector with its clips, and how a check fails."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from sklearn.base import clone

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip, read_clips
from fsasd.data.recording import SAMPLE_RATE
from fsasd.data.simulate import write_factory
from fsasd.detectors.base import Detector, Params


class ConformanceError(AssertionError):
    """A detector breaks a rule; the message names the check and the observed value."""


class DetectorCase:
    """A detector and the clips to check it on; it is fitted once for all checks.

    Args:
        detector: Unfitted; copies of it are fitted.
        clips: Recordings of one machine: normal ones of split ``train``, of both domains, to fit
            to, and those of split ``test`` to score; 20 + 8 simulated ones by default.
        folder: For recordings of the checks.
        grid: Some settings of the detector's grid.

    Raises:
        ValueError: The clips lack a split or a domain.
    """

    def __init__(
        self,
        detector: Detector,
        clips: Clips | None,
        folder: str | Path,
        grid: Sequence[Params] = (),
    ) -> None:
        self.detector = detector
        self.grid = list(grid)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        clips = _simulated(self.folder) if clips is None else clips
        self.train = clips.where(split="train", label="normal")
        self.test = clips.where(split="test")
        counts = {
            "normal training clips of the source domain": len(self.train.where(domain="source")),
            "normal training clips of the target domain": len(self.train.where(domain="target")),
            "normal test clips": len(self.test.where(label="normal")),
        }
        for what, count in counts.items():
            if count < 2:
                raise ValueError(
                    f"expected at least 2 {what} to check a detector on, found {count}"
                )

    @cached_property
    def fitted(self) -> Detector:
        """A copy fitted to the training clips."""
        return self.fit(self.train)

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores of the test clips by ``fitted``."""
        return np.asarray(self.fitted.score(self.test))

    def fit(self, clips: Clips) -> Detector:
        """Return a new copy fitted to the clips."""
        detector = clone(self.detector)
        detector.fit(clips)
        return detector

    def recording(
        self, name: str, waveform: np.ndarray, rate: int = SAMPLE_RATE, like: Clip | None = None
    ) -> Clip:
        """Write a waveform, and return its clip with the metadata of ``like``."""
        path = self.folder / f"{name}.wav"
        soundfile.write(path, waveform, rate, subtype="FLOAT")
        if like is None:
            return Clip(path, self.train[0].machine, section=self.train[0].section)
        return replace(like, path=path)


def _simulated(folder: Path) -> Clips:
    root = write_factory(
        folder / "factory",
        references=(),
        targets=("fan",),
        seconds=1.0,
        train_clips=20,
        target_domain_clips=4,
        test_clips=2,
    )
    return Clips(read_clips(root))


Check = Callable[[DetectorCase], None]

CHECKS: list[Check] = []
"""All checks, in the order in which they are run."""


def rule(check: Check) -> Check:
    """Register a check; its docstring is the rule that a failure quotes."""

    @functools.wraps(check)
    def checked(case: DetectorCase) -> None:
        try:
            check(case)
        except Exception as error:
            message = str(error) if isinstance(error, AssertionError) else repr(error)
            raise ConformanceError(
                f"{type(case.detector).__name__} breaks {check.__name__} "
                f"({(check.__doc__ or '').strip()}): {message}"
            ) from error

    CHECKS.append(checked)
    return checked


def assert_numbers(scores: np.ndarray, count: int) -> None:
    scores = np.asarray(scores)
    assert scores.shape == (count,), f"{count} clips have scores of shape {scores.shape}"
    assert np.issubdtype(scores.dtype, np.floating), f"scores are {scores.dtype}"
    assert np.isfinite(scores).all(), f"scores are {scores}"


def assert_close(
    actual: np.ndarray, expected: np.ndarray, what: str, tolerance: float = 1e-5
) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    allowed = tolerance * max(float(np.abs(expected).max(initial=0)), 1e-12)
    furthest = float(np.abs(actual - expected).max(initial=0))
    assert furthest <= allowed, (
        f"{what}: scores differ by up to {furthest:g} where they are up to "
        f"{np.abs(expected).max():g}"
    )


def settings(detector: Detector) -> str:
    return repr(sorted(detector.get_params().items()))
