"""What a detector is: a scikit-learn estimator with two methods and one sign convention."""

from __future__ import annotations

import abc
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, clone

from fsasd.data.audio import Clips

Params = Mapping[str, Any]


class TooFewClipsError(ValueError):
    """A detector, at this setting, cannot be fitted on so few clips."""


class Detector(BaseEstimator, abc.ABC):
    """An anomaly detector of one machine's sounds.

    A subclass stores its constructor's arguments unchanged (scikit-learn's rule), learns arrays in
    ``fit`` under names that end in an underscore, and never changes when it scores. It becomes
    ``detector=<name>`` by a file ``<name>.yaml`` in the config group ``detector``.

    An argument may be a mapping of names to detectors. Their parameters are then also this
    detector's, as ``<name>__<parameter>``, and what ``fit`` learns may be detectors, too.
    """

    @abc.abstractmethod
    def fit(self, clips: Clips) -> Self:
        """Learn what is normal from normal clips of one machine.

        Raises:
            TooFewClipsError: There are fewer than the setting needs.
        """

    @abc.abstractmethod
    def score(self, clips: Clips) -> np.ndarray:
        """Return (n,) anomaly scores, higher for the more anomalous."""

    def score_path(
        self, grid: Sequence[Params], fit_clips: Clips, score_clips: Clips
    ) -> np.ndarray:
        """Return (len(grid), n) scores, one row for each setting fitted on ``fit_clips``.

        Override it where many settings can be fitted faster together than one by one; the rows
        must be those of fitting one by one.
        """
        return np.stack(
            [clone(self).set_params(**p).fit(fit_clips).score(score_clips) for p in grid]
        )

    def n_parameters(self) -> int:
        """Return how many numbers the fitted detector holds."""
        return sum(array.size for array in _arrays(self).values())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings; ``deep`` adds those of detectors that are settings themselves."""
        params = super().get_params(deep)
        for value in list(params.values()) if deep else []:
            if isinstance(value, Mapping):
                for name, inner in value.items():
                    if isinstance(inner, Detector):
                        params[name] = inner
                        params |= {f"{name}__{key}": v for key, v in inner.get_params().items()}
        return params

    def save(self, folder: str | Path) -> None:
        """Write ``detector.json`` (class and settings) and ``detector.safetensors`` (arrays).

        Detectors within this one are described where they stand; their arrays are called
        ``<attribute>.<array>``, or ``<attribute>.<name>.<array>`` where there are several.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "detector.json").write_text(json.dumps(_described(self), indent=2) + "\n")
        save_file(_arrays(self), folder / "detector.safetensors")


def load(folder: str | Path) -> Detector:
    """Read what ``Detector.save`` wrote.

    Raises:
        FileNotFoundError: There is no saved detector.
    """
    folder = Path(folder)
    if not (folder / "detector.json").is_file():
        raise FileNotFoundError(f"{folder} holds no saved detector (detector.json)")
    detector = _rebuilt(json.loads((folder / "detector.json").read_text()))
    for path, value in load_file(folder / "detector.safetensors").items():
        *owners, name = path.split(".")
        owner = detector
        for key in owners:
            owner = owner[key] if isinstance(owner, Mapping) else getattr(owner, key)
        setattr(owner, name, value)
    return detector


def stack(features: Iterable[np.ndarray]) -> np.ndarray:
    """Return float64 (n, ...) of equally shaped features."""
    return np.stack(list(features)).astype(np.float64)


def _learnt(detector: Detector) -> dict[str, Any]:
    learnt = vars(detector).items()
    return {k: v for k, v in learnt if k.endswith("_") and not k.startswith("_")}


def _arrays(value: Any) -> dict[str, np.ndarray]:
    if isinstance(value, Detector):
        value = _learnt(value)
    if not isinstance(value, Mapping):
        return {"": np.ascontiguousarray(value)}
    return {
        f"{key}.{inner}" if inner else key: array
        for key, part in value.items()
        for inner, array in _arrays(part).items()
    }


def _holds_detectors(value: Any) -> bool:
    return isinstance(value, Detector) or (
        isinstance(value, Mapping) and any(isinstance(v, Detector) for v in value.values())
    )


def _described(value: Any) -> Any:
    """Turn a detector, at any depth of a setting, into JSON."""
    if isinstance(value, Detector):
        kind = type(value)
        about = {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "params": _described(value.get_params(deep=False)),
        }
        fitted = {k: _described(v) for k, v in _learnt(value).items() if _holds_detectors(v)}
        return {**about, "fitted": fitted} if fitted else about
    if isinstance(value, Mapping):
        return {key: _described(part) for key, part in value.items()}
    return value


def _rebuilt(about: Any) -> Any:
    if not isinstance(about, Mapping):
        return about
    if not {"class", "params"} <= set(about):
        return {key: _rebuilt(part) for key, part in about.items()}
    module, _, name = about["class"].rpartition(".")
    detector = getattr(importlib.import_module(module), name)(**_rebuilt(about["params"]))
    for attribute, fitted in about.get("fitted", {}).items():
        setattr(detector, attribute, _rebuilt(fitted))
    return detector
