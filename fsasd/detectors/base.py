"""What a detector is: a scikit-learn estimator with two methods and one sign convention."""

from __future__ import annotations

import abc
import functools
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, clone

from fsasd.data.audio import Clips

Params = Mapping[str, Any]


class Detector(BaseEstimator, abc.ABC):
    """An anomaly detector of one machine's sounds.

    A subclass stores its constructor's arguments unchanged (scikit-learn's rule), learns arrays,
    also in dicts, in ``fit`` under names that end in an underscore, and never changes when it
    scores. It becomes ``detector=<name>`` by a file ``<name>.yaml`` in the config group
    ``detector``.
    """

    def recipe(self) -> dict[str, Any]:
        """Return all that ``prepare`` depends on but the clips; empty if there is nothing to do."""
        recipes = {name: part.recipe() for name, part in self._detectors()}
        return {name: recipe for name, recipe in recipes.items() if recipe}

    def prepare(self, clips: Clips, folder: Path, trainer: Params | None = None) -> Self:
        """Learn what detectors of all machines share, before ``fit`` is given one machine's clips.

        Detectors of which ``recipe`` is empty have nothing to learn so. It may be called again with
        the same folder: what is there is used, and what was begun goes on. Copies that
        ``sklearn.base.clone`` makes are prepared, too.

        Args:
            clips: Normal clips of all machines.
            folder: Keeps what is learnt, as long as the detector is to be fitted.
            trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
        """
        for name, part in self._detectors():
            if part.recipe():
                part.prepare(clips, Path(folder) / name, trainer)
        return self

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
        return dict(_leaves(learnt))

    def _restored(self) -> None:
        """Called when ``load`` has set what was saved."""

    def _detectors(self) -> Iterator[tuple[str, Detector]]:
        for key, value in self.get_params(deep=False).items():
            parts = value if isinstance(value, Mapping) else {key: value}
            yield from ((name, part) for name, part in parts.items() if isinstance(part, Detector))


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
    tree: dict[str, Any] = {}
    for name, array in load_file(folder / "detector.safetensors").items():
        *path, last = name.split("/")
        functools.reduce(lambda branch, key: branch.setdefault(key, {}), path, tree)[last] = array
    for key, value in tree.items():
        setattr(detector, key, value)
    detector._restored()
    return detector


def _leaves(learnt: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in learnt.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", np.asarray(value, order="C")


def stack(features: Iterable[np.ndarray]) -> np.ndarray:
    """Return float64 (n, ...) of equally shaped features."""
    return np.stack(list(features)).astype(np.float64)
