"""A new fit of a saved detector to other normal clips, and its setting after the first faults.

After a repair, or where a machine has drifted, its normal sound is another. What was chosen on
synthetic clips or on other machines' anomalies holds as well as before; means, neighbours and the
threshold do not. Once the machine had faults, these say more of the setting than both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import clone

from fsasd.data.audio_files import printable
from fsasd.data.check.inspection import inspect
from fsasd.data.check.likeness import Profile
from fsasd.data.clips import Clips, FeatureCache, PooledOnce
from fsasd.data.metadata import Clip, read_name
from fsasd.data.names import MetadataError
from fsasd.deployment.about import ABOUT, About, TrainingData
from fsasd.deployment.drift import Drift, drift
from fsasd.deployment.model import Model
from fsasd.detection.decision import write_decision
from fsasd.detection.section import calibrate
from fsasd.detectors.base import Detector, load, require_finite
from fsasd.detectors.estimator import Estimator
from fsasd.detectors.networks.trained_networks import KeptNetworks
from fsasd.evaluation.calibration import Calibration
from fsasd.evaluation.folds import recording_groups
from fsasd.selection.crossfit import crossfit
from fsasd.selection.faults import FaultChoice, choose_on_faults
from fsasd.selection.settings import Candidates, title
from fsasd.settings.objects import rebuilt
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
        faults: The two on the machine's faults, where some were given.
    """

    clips: int
    old_threshold: float
    new_threshold: float
    old_alarms: float
    new_alarms: float
    drift: Drift | None
    faults: FaultComparison | None = None


@dataclass(frozen=True)
class FaultComparison:
    """The old setting and the new one on the machine's first faults.

    Attributes:
        clips: How many anomalous clips.
        settings: How many settings were compared.
        old_setting: In use until now.
        new_setting: The one that is chosen, perhaps the same.
        best_setting: The best one on these clips, without caution.
        old_objective: Of the old setting, on these clips and held-out normal ones, in fractions.
        best_objective: Of ``best_setting``.
        gain: What the new setting is expected to gain on other faults, or the best one where none
            is chosen.
        low: Lower end of its 95 % interval.
        high: Upper end.
        old_detected: How many of the clips the old model calls anomalous.
        new_detected: The same of the new model.
    """

    clips: int
    settings: int
    old_setting: dict[str, Any]
    new_setting: dict[str, Any]
    best_setting: dict[str, Any]
    old_objective: float
    best_objective: float
    gain: float
    low: float
    high: float
    old_detected: int
    new_detected: int

    @classmethod
    def of(cls, choice: FaultChoice, old_detected: int, new_detected: int) -> Self:
        """Return it of a choice, and of how many of the clips either model detects."""
        settings, old, best = choice.candidates.settings, choice.candidates.default, choice.best
        judged = best if choice.row == old else choice.row
        return cls(
            choice.faults,
            len(settings),
            settings[old],
            choice.setting,
            settings[best],
            float(choice.objectives[old]),
            float(choice.objectives[best]),
            float(choice.gains[judged]),
            *choice.interval(judged),
            old_detected,
            new_detected,
        )

    @property
    def changed(self) -> bool:
        """Whether another setting is chosen than the one in use."""
        return self.new_setting != self.old_setting

    def __str__(self) -> str:
        old = title(self.old_setting)
        of = f"{100 * self.gain:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        if self.changed:
            return (
                f"{title(self.new_setting)} instead of {old}, on {self.clips} anomalous "
                f"recordings: expected to gain {of} on other faults"
            )
        if self.best_setting == self.old_setting:
            return f"{old} is kept: the best of {self.settings} settings on these faults, too"
        return (
            f"{old} is kept: {title(self.best_setting)} is the best of {self.settings} settings on "
            f"these faults ({100 * self.best_objective:.1f} % against "
            f"{100 * self.old_objective:.1f} %), and {of} is expected of it on others: too unsure"
        )


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
    return Clips([_labelled(path, machine, "normal") for path in paths])


def refit(
    model: Model,
    paths: Sequence[Path],
    trust: Sequence[str] = (),
    false_alarm_rate: float | None = None,
    faults: Sequence[Path] = (),
) -> Refit:
    """Fit a saved detector again.

    Args:
        model: The saved detector.
        paths: Normal recordings, all that it is to know: those of before, too, if they still hold.
        trust: Packages whose classes it may name.
        false_alarm_rate: Share of normal clips to be called anomalous; by default as before.
        faults: Anomalous recordings of the machine: with some, its setting is chosen anew
            (``selection.faults``).

    Raises:
        RefitError: Its networks are trained on several machines, which takes a run of ``fsasd``, or
            it is not known what its setting was chosen from.
        ValueError: A recording is named otherwise than as what it is given for, or given as both.
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
    detector = _keeping_networks(load(model.folder, trust))
    choice = None
    if faults:
        choice, anomalous = _choose_anew(faults, detector, clips, about, trust)
        detector.set_params(**choice.setting)
    fitted = clone(detector).fit(clips)
    calibration = calibrate(fitted.resolved(), clips, rate)
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
    new = _about(about, machine, model, fitted, clips)
    if choice:
        detected = [
            int((np.asarray(one.score(anomalous)) > threshold).sum())
            for one, threshold in (
                (model.detector, model.threshold),
                (fitted, calibration.threshold),
            )
        ]
        on_faults = FaultComparison.of(choice, *detected)
        comparison = replace(comparison, faults=on_faults)
        if on_faults.changed:
            new = replace(new, setting=choice.setting, choice=f"It was chosen anew: {on_faults}.")
    profile = Profile.of(inspect(clips, model.channel))
    return Refit(fitted, calibration, model.channel, profile, new, comparison)


def _keeping_networks(saved: Detector) -> Detector:
    """Return an unfitted copy of a detector whose fits take its networks."""
    copy, known = clone(saved), list(_fitted_within(saved))
    for part in copy.to_prepare():
        spec = part.network_spec()
        same = [(one, classes) for one, classes in known if one.network_spec() == spec]
        networks = {k: network for one, _ in same for k, network in one.fitted_networks().items()}
        if not networks:
            raise RefitError(
                f"{type(part).__name__}: it is trained on clips of several machines, and its "
                "networks cannot be kept. Run fsasd with the new recordings"
            )
        of_machine = {
            k: classes
            for one, classes in same
            if classes is not None
            for k in one.fitted_networks()
        }
        part._prepared = KeptNetworks(spec, networks, of_machine)
    return copy


def _fitted_within(
    value: Any, classes: np.ndarray | None = None
) -> Iterator[tuple[Estimator, np.ndarray | None]]:
    """Yield the fitted estimators of a detector, with the classes that their detector noted."""
    if isinstance(value, Estimator):
        yield value, classes
        inner = {k: v for k, v in vars(value).items() if k.endswith("_")}
        classes = inner.get("classes_")
    elif isinstance(value, Mapping):
        inner = dict(value)
    else:
        return
    for one in inner.values():
        yield from _fitted_within(one, classes)


def _choose_anew(
    faults: Sequence[Path],
    detector: Detector,
    clips: Clips,
    about: About | None,
    trust: Sequence[str],
) -> tuple[FaultChoice, Clips]:
    """Return the choice of a setting on anomalous recordings, and these."""
    known = about.candidates if about else {}
    if not known.get("grids"):
        raise RefitError(
            f"{ABOUT}: expected the settings that this detector's was chosen from, found none. "
            "Without anomalous recordings its setting is kept"
        )
    labelled = [_labelled(path, clips[0].machine, "anomaly") for path in faults]
    anomalous = Clips(labelled, clips.cache)
    if both := {clip.path.resolve() for clip in clips} & {c.path.resolve() for c in anomalous}:
        raise ValueError(
            f"{printable(min(both))}: expected a normal or an anomalous recording, and it is given "
            "as both"
        )
    candidates = Candidates.of(detector, rebuilt(known["grids"], tuple(trust)))
    normal, scores = crossfit(detector, candidates.settings, clips, anomalous)
    require_finite(normal, clips)
    require_finite(scores, anomalous)
    groups = recording_groups(clips.recordings)
    objective = known["objective"]
    choice = choose_on_faults(candidates, normal, scores, objective, clips.domains, groups)
    return choice, anomalous


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


def _labelled(path: Path, machine: str, label: Literal["normal", "anomaly"]) -> Clip:
    try:
        clip = read_name(path)
    except MetadataError:
        return Clip(path, machine, split="train", label=label)
    if clip.label not in (None, label):
        raise ValueError(
            f"{printable(path)}: expected {_A[label]} recording, and it is named {clip.label}"
        )
    return replace(clip, machine=machine, split="train", label=label)


_A = {"normal": "a normal", "anomaly": "an anomalous"}
