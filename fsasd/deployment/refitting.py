"""A new fit of a saved detector to other normal clips: setting and networks are kept.

After a repair, or where a machine has drifted, its normal sound is another. What was chosen on
synthetic clips or on other machines' anomalies holds as well as before; means, neighbours and the
threshold do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from fsasd.data.audio_files import printable
from fsasd.data.check.inspection import inspect
from fsasd.data.check.likeness import Profile
from fsasd.data.clips import Clips, FeatureCache, PooledOnce
from fsasd.data.metadata import Clip, read_name
from fsasd.data.names import MetadataError
from fsasd.deployment.about import About, TrainingData
from fsasd.deployment.drift import Drift, drift
from fsasd.deployment.model import Model
from fsasd.detection.decision import write_decision
from fsasd.detection.section import calibrate
from fsasd.detectors.base import Detector, load
from fsasd.detectors.confidence import Confidence
from fsasd.detectors.learned import LearnedRepresentation
from fsasd.detectors.vector_detector import VectorDetector
from fsasd.evaluation.calibration import Calibration
from fsasd.store.provenance import versions


class RefitError(ValueError):
    """A saved detector cannot be fitted again by itself."""


@dataclass(frozen=True)
class Comparison:
    """The old model and the new one on the new normal clips.

    Attributes:
        clips: How many.
        old_threshold: Of the old model.
        new_threshold: Of the new one.
        old_alarms: Share of the clips that the old model calls anomalous.
        new_alarms: The same of the new one, each clip held out of its fit.
        drift: How the old model scores those that it calls normal; ``None`` if it calls none so.
    """

    clips: int
    old_threshold: float
    new_threshold: float
    old_alarms: float
    new_alarms: float
    drift: Drift | None


@dataclass(frozen=True, eq=False)
class Refit:
    """A detector that was fitted again.

    Attributes:
        detector: Fitted to the new clips.
        calibration: Its threshold and p-values.
        channel: As of the old model.
        profile: Of the new clips' recordings.
        about: What is known of it.
        comparison: With the old model.
    """

    detector: Detector
    calibration: Calibration
    channel: int | str | None
    profile: Profile | None
    about: About
    comparison: Comparison

    def save(self, folder: Path) -> None:
        """Write the model into a folder, which is empty or does not exist.

        Raises:
            FileExistsError: It holds files.
        """
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder}: expected an empty folder or none, found files in it")
        self.detector.save(folder)
        write_decision(folder, self.calibration, self.channel)
        if self.profile:
            self.profile.save(folder)
        self.about.write(folder)


def normal_clips(paths: Sequence[Path], machine: str) -> Clips:
    """Return recordings as normal training clips.

    Domain and attributes are those of DCASE's file names, where they have them.

    Raises:
        ValueError: A recording is named as an anomaly.
    """
    return Clips([_normal(path, machine) for path in paths])


def refit(
    model: Model,
    paths: Sequence[Path],
    trust: Sequence[str] = (),
    false_alarm_rate: float | None = None,
) -> Refit:
    """Fit a saved detector again.

    Args:
        model: The saved detector.
        paths: Normal recordings, all that it is to know: those of before, too, if they still hold.
        trust: Packages whose classes it may name.
        false_alarm_rate: Share of normal clips to be called anomalous; by default as before.

    Raises:
        RefitError: Its networks are trained on several machines, which takes a run of ``fsasd``.
        TooFewClipsError: There are fewer clips than its setting needs.
        AudioError: A recording cannot be used.
    """
    about = About.read(model.folder)
    machine = about.machine if about else model.name
    cache = FeatureCache(channel=model.channel)
    clips = Clips(normal_clips(paths, machine), PooledOnce(cache))
    if len(clips) < 2:
        raise ValueError(f"expected normal recordings, 2 or more, found {len(clips)}")
    rate = false_alarm_rate or model.calibration.false_alarm_rate
    fitted, calibration = _fitted(load(model.folder, trust), clips, rate)
    old_scores = np.asarray(model.detector.score(clips), dtype=float)
    held_out = np.array(list(calibration.held_out.values()))
    comparison = Comparison(
        len(clips),
        model.threshold,
        calibration.threshold,
        float((old_scores > model.threshold).mean()),
        float((held_out > calibration.threshold).mean()),
        drift(model.calibration, old_scores),
    )
    profile = Profile.of(inspect(clips, model.channel))
    new = _about(about, machine, model, fitted, clips)
    return Refit(fitted, calibration, model.channel, profile, new, comparison)


def _fitted(saved: Detector, clips: Clips, rate: float) -> tuple[Detector, Calibration]:
    """Return a copy that is fitted to clips, with the networks of the saved one."""
    learned = vars(saved).get("representation_")
    if isinstance(learned, LearnedRepresentation) and not isinstance(saved, Confidence):
        assert isinstance(saved, VectorDetector)
        kept = clone(saved).set_params(representation=_Kept(learned))
        fitted = clone(kept).fit(clips)
        calibration = calibrate(fitted.resolved(), clips, rate)
        fitted.representation, fitted.representation_ = saved.representation, learned
        return fitted, calibration
    if saved.to_prepare() and not saved.trained_by_fit:
        raise RefitError(
            f"{type(saved).__name__}: its networks are trained on clips of several machines, and "
            "what it learned of this one cannot be replaced by itself. Run fsasd with the new "
            "recordings"
        )
    fitted = clone(saved).fit(clips)
    return fitted, calibrate(fitted.resolved(), clips, rate)


class _Kept:
    """A fitted representation that fits of a detector use as it is; copies of it are itself."""

    def __init__(self, representation: LearnedRepresentation) -> None:
        self._representation = representation

    def __call__(self, clips: Clips) -> np.ndarray:
        return self._representation(clips)

    def __sklearn_clone__(self) -> _Kept:
        return self

    def n_parameters(self) -> int:
        return self._representation.n_parameters()


def _about(
    old: About | None, machine: str, model: Model, detector: Detector, clips: Clips
) -> About:
    provenance: dict[str, Any] = {
        "refitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "from": dict(old.provenance) if old else {},
    }
    section = model.folder.name.removeprefix("section_")
    about = old or About(machine, section, type(detector).__name__, {}, "", 0, TrainingData(0))
    return replace(
        about,
        parameters=detector.n_parameters(),
        training=TrainingData.of(clips),
        # Those of before are of another fit.
        metrics={},
        provenance=provenance,
    )


def _normal(path: Path, machine: str) -> Clip:
    try:
        clip = read_name(path)
    except MetadataError:
        return Clip(path, machine, split="train", label="normal")
    if clip.label == "anomaly":
        raise ValueError(f"{printable(path)}: expected a normal recording, and it is named anomaly")
    return replace(clip, machine=machine, split="train", label="normal")
