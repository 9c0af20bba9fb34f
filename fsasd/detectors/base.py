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


class Detector(BaseEstimator, abc.ABC):
    """An anomaly detector of one machine's sounds.

    A subclass stores its constructor's arguments unchanged (scikit-learn's rule), learns arrays in
    ``fit`` under names that end in an underscore, and never changes when it scores. It becomes
    ``detector=<name>`` by a file ``<name>.yaml`` in the config group ``detector``.
    """

    @abc.abstractmethod
    def fit(self, clips: Clips) -> Self:
        """Learn what is normal from normal clips of one machine."""

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
        return sum(array.size for array in self._arrays().values())

    def save(self, folder: str | Path) -> None:
        """Write ``detector.json`` (class and settings) and ``detector.safetensors`` (arrays)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        kind = type(self)
        about = {"class": f"{kind.__module__}.{kind.__qualname__}", "params": self.get_params()}
        (folder / "detector.json").write_text(json.dumps(about, indent=2) + "\n")
        save_file(self._arrays(), folder / "detector.safetensors")

    def _arrays(self) -> dict[str, np.ndarray]:
        learnt = {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}
        return {key: np.ascontiguousarray(value) for key, value in learnt.items()}


def load(folder: str | Path) -> Detector:
    """Read what ``Detector.save`` wrote.

    Raises:
        FileNotFoundError: There is no saved detector.
    """
    folder = Path(folder)
    if not (folder / "detector.json").is_file():
        raise FileNotFoundError(f"{folder} holds no saved detector (detector.json)")
    about = json.loads((folder / "detector.json").read_text())
    module, _, name = about["class"].rpartition(".")
    detector = getattr(importlib.import_module(module), name)(**about["params"])
    for key, value in load_file(folder / "detector.safetensors").items():
        setattr(detector, key, value)
    return detector


def stack(features: Iterable[np.ndarray]) -> np.ndarray:
    """Return float64 (n, ...) of equally shaped features."""
    return np.stack(list(features)).astype(np.float64)
