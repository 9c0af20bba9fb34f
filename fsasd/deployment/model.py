"""``Model``: the saved detector of one section with its threshold, ready to score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from fsasd.data.check.likeness import Profile
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, AudioError
from fsasd.deployment.waveforms import ScoringCache, Waveforms
from fsasd.detection.decision import DECISION, read_decision
from fsasd.detectors.saved import NotAModelError
from fsasd.detectors.scoring.scorers import Scorer, load_scorer
from fsasd.evaluation.calibration import Calibration

HUB = "hub:"
"""Begins the name of a model that is downloaded from the Hugging Face hub."""

_NOT_A_MODEL = (TypeError, AttributeError, LookupError, RuntimeError, ValueError)
"""Errors of a detector whose file holds settings or arrays that do not fit each other."""


@dataclass(frozen=True, eq=False)
class Model:
    """The saved detector of one section.

    Attributes:
        folder: That it was read from.
        name: Machine and section, ``fan/section_00``.
        detector: Fitted, or what scores as it does.
        calibration: Its threshold and p-values.
        channel: Channel that it takes of recordings with several (see ``recording.read``).
        profile: Bandwidth, level and length of its training clips, if the run saved them.
    """

    folder: Path
    name: str
    detector: Scorer
    calibration: Calibration
    channel: int | str | None = None
    profile: Profile | None = None

    @property
    def threshold(self) -> float:
        """A recording scored above it is called anomalous."""
        return self.calibration.threshold

    def at(self, false_alarm_rate: float) -> Self:
        """Return the same with the threshold of another false-alarm rate.

        Raises:
            ValueError: The rate is out of (0, 1).
        """
        return replace(self, calibration=self.calibration.at(false_alarm_rate))

    def score(self, recordings: Iterable[str | Path]) -> np.ndarray:
        """Return (n,) anomaly scores of recordings; higher is more anomalous.

        Raises:
            FileNotFoundError: A recording does not exist.
            AudioError: One cannot be used (see ``recording.read``).
            NotAModelError: The files of the model do not fit each other.
        """
        return self.score_clips([Path(path) for path in recordings], ScoringCache(self.channel))

    def score_waveforms(
        self, waveforms: Sequence[np.ndarray], sampling_rate: int = SAMPLE_RATE
    ) -> np.ndarray:
        """Return (n,) anomaly scores of waveforms, as if they had been read from float wavs.

        Args:
            waveforms: (samples,) or (samples, channels) each, full scale is 1.
            sampling_rate: In Hz; others than the detector's are resampled.

        Raises:
            AudioError: One cannot be used (see ``recording.read``).
            NotAModelError: The files of the model do not fit each other.
        """
        named = {Path(f"waveform {number}"): one for number, one in enumerate(waveforms)}
        return self.score_clips(list(named), Waveforms(named, sampling_rate, self.channel))

    def score_clips(self, paths: Sequence[Path], cache: FeatureCache) -> np.ndarray:
        """Return (n,) anomaly scores of what a cache reads for paths.

        Raises:
            AudioError: One cannot be used (see ``recording.read``).
            NotAModelError: The files of the model do not fit each other.
        """
        clips = [Clip(path, machine="", split="test") for path in paths]
        try:
            return np.asarray(self.detector.score(Clips(clips, cache)), dtype=float)
        except AudioError:
            raise
        except _NOT_A_MODEL as error:
            raise NotAModelError(self.folder, f"it cannot score ({error})") from error


def load(path: str | Path, trust: Sequence[str] = ()) -> Model:
    """Read the saved detector of a section: ``fsasd.load``, see there."""
    if str(path).startswith(HUB):
        # Most models are of this machine.
        from fsasd.deployment.downloading import download

        place, name = download(str(path).removeprefix(HUB))
        return replace(load(place, trust), name=name)
    folder = _section(Path(path))
    detector = load_scorer(folder, trust)
    calibration, channel = read_decision(folder / DECISION)
    return Model(folder, _name(folder), detector, calibration, channel, Profile.load(folder))


def load_all(paths: Iterable[Path], trust: Sequence[str] = ()) -> list[Model]:
    """Read several models (see ``load``); of one name, they are named after their folders."""
    models = [load(path, trust) for path in paths]
    names = [model.name for model in models]
    return [
        replace(model, name=str(model.folder)) if names.count(model.name) > 1 else model
        for model in models
    ]


def _name(folder: Path) -> str:
    folder = folder.absolute()
    is_section = folder.name.startswith("section_")
    return f"{folder.parent.name}/{folder.name}" if is_section else folder.name


def _section(folder: Path) -> Path:
    sections = sorted(path.parent for path in folder.glob("section_*/detector.json"))
    if len(sections) > 1:
        names = ", ".join(path.name for path in sections)
        raise ValueError(f"{folder} holds detectors of several sections: name one of {names}")
    return sections[0] if sections else folder
