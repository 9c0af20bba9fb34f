"""What a detector is: a scikit-learn estimator with two methods and one sign convention."""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, clone

from fsasd.data.audio import Clips
from fsasd.detectors.settings import by_name, described, made, owner, replaced

Params = Mapping[str, Any]


class TooFewClipsError(ValueError):
    """A detector, at this setting, cannot be fitted on so few clips."""


class Detector(BaseEstimator, abc.ABC):
    """An anomaly detector of one machine's sounds.

    A subclass stores its constructor's arguments unchanged (scikit-learn's rule), learns arrays,
    or other detectors, in ``fit`` under names that end in an underscore (also in dicts), and never
    changes when it scores. It becomes ``detector=<name>`` by a file ``<name>.yaml`` in the config
    group ``detector``.

    Parameters of parameters are reached as in scikit-learn, by two underscores, also those of
    representations (frozen dataclasses) and of dicts: ``representation__r``.
    """

    only_scored: ClassVar[frozenset[str]] = frozenset()
    """Parameters that ``fit`` does not look at: settings that differ in them share a fit."""

    @abc.abstractmethod
    def fit(self, clips: Clips) -> Self:
        """Learn what is normal from normal clips of one machine.

        Raises:
            TooFewClipsError: There are fewer than the setting needs.
        """

    @abc.abstractmethod
    def score(self, clips: Clips) -> np.ndarray:
        """Return (n,) anomaly scores, higher for the more anomalous."""

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

    def score_path(
        self, grid: Sequence[Params], fit_clips: Clips, score_clips: Clips
    ) -> np.ndarray:
        """Return (len(grid), n) scores, one row for each setting fitted on ``fit_clips``.

        Override it where many settings can be fitted faster together than one by one; the rows
        must be those of fitting one by one.
        """
        rows: dict[int, np.ndarray] = {}
        for members in self._sharing_a_fit(grid):
            fitted = clone(self).set_params(**grid[members[0]]).fit(fit_clips)
            own = {key: self.get_params(deep=False).get(key) for key in self.only_scored}
            for row in members:
                asked = {k: v for k, v in grid[row].items() if self._is_only_scored(k)}
                fitted.set_params(**own).set_params(**asked)
                rows[row] = fitted.score(score_clips)
        return np.stack([rows[row] for row in range(len(grid))])

    def n_parameters(self) -> int:
        """Return how many numbers the fitted detector holds."""
        return sum(array.size for array in self._saved().arrays.values())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments; ``deep`` adds those of their parts."""
        params = super().get_params(deep=False)
        return dict(_with_parts(params)) if deep else params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, ``part__name`` for those of a part.

        Raises:
            ValueError: There is no parameter of that name.
        """
        own = self.get_params(deep=False)
        for name, value in params.items():
            first, *path = name.split("__")
            if first not in own:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {first!r}: it has {', '.join(own)}"
                )
            own[first] = _replaced(own[first], path, value)
            setattr(self, first, own[first])
        return self

    def save(self, folder: str | Path) -> None:
        """Write ``detector.json`` (classes and settings) and ``detector.safetensors`` (arrays).

        Raises:
            TypeError: A parameter can be neither JSON nor rebuilt from JSON.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        saved = self._saved()
        about = {**_about(self), "parts": saved.parts} if saved.parts else _about(self)
        (folder / "detector.json").write_text(json.dumps(about, indent=2) + "\n")
        save_file(saved.arrays, folder / "detector.safetensors")

    def _saved(self) -> _Saved:
        saved = _Saved({}, {})
        _collect(self, "", saved)
        return saved

    def _restored(self) -> None:
        """Called when ``load`` has set what was saved."""

    def _is_only_scored(self, name: str) -> bool:
        return name.split("__")[0] in self.only_scored

    def _sharing_a_fit(self, grid: Sequence[Params]) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for row, params in enumerate(grid):
            fitted = sorted((k, v) for k, v in params.items() if not self._is_only_scored(k))
            groups.setdefault(repr(fitted), []).append(row)
        return list(groups.values())


def load(folder: str | Path) -> Detector:
    """Read what ``Detector.save`` wrote.

    Raises:
        FileNotFoundError: There is no saved detector.
        ValueError: A class that was saved is none that a detector is made of.
    """
    folder = Path(folder)
    if not (folder / "detector.json").is_file():
        raise FileNotFoundError(f"{folder} holds no saved detector (detector.json)")
    about = json.loads((folder / "detector.json").read_text())
    parts = about.get("parts", {})
    tree: dict[str, Any] = {}
    for name, array in load_file(folder / "detector.safetensors").items():
        *path, last = name.split("/")
        functools.reduce(lambda branch, key: branch.setdefault(key, {}), path, tree)[last] = array
    return _detector(about, tree, parts, "")


def stack(features: Iterable[np.ndarray]) -> np.ndarray:
    """Return float64 (n, ...) of equally shaped features.

    Raises:
        ValueError: There are none.
    """
    rows = list(features)
    if not rows:
        raise ValueError("expected at least 1 clip, found 0")
    return np.stack(rows).astype(np.float64)


# Parameters of parameters.


def _parts(value: Any) -> Mapping[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return value
    if isinstance(value, BaseEstimator):
        return value.get_params(deep=False)
    return {}


def _with_parts(params: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in params.items():
        yield f"{prefix}{name}", value
        yield from _with_parts(_parts(value), f"{prefix}{name}__")


def _replaced(value: Any, path: Sequence[str], new: Any) -> Any:
    if not path:
        return new
    parts = _parts(value)
    if path[0] not in parts:
        raise ValueError(
            f"{type(value).__name__} has no parameter {path[0]!r}: it has {', '.join(parts)}"
        )
    part = _replaced(parts[path[0]], path[1:], new)
    if isinstance(value, Mapping):
        return {**value, path[0]: part}
    if isinstance(value, BaseEstimator):
        return value.set_params(**{path[0]: part})
    return dataclasses.replace(value, **{path[0]: part})


# What is saved: JSON from which the objects can be made again, and arrays.


@dataclasses.dataclass
class _Saved:
    arrays: dict[str, np.ndarray]
    parts: dict[str, Any]


def _about(value: Any) -> dict[str, Any]:
    kind = type(value)
    params = {name: _plain(part, name) for name, part in _parts(value).items()}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "params": params}


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{name}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) or isinstance(value, BaseEstimator):
        return _about(value)
    raise TypeError(
        f"parameter {name}={value!r} cannot be saved: expected JSON, a dataclass or an estimator"
    )


def _made(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_made(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if set(plain) != {"class", "params"}:
        return {key: _made(item) for key, item in plain.items()}
    module, _, name = plain["class"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    # The file names what is called: nothing but settings may be made of it.
    if not (isinstance(kind, type) and (issubclass(kind, BaseEstimator) or _is_dataclass(kind))):
        raise ValueError(f"{plain['class']} is neither a detector nor a part of one: not loaded")
    return kind(**{key: _made(item) for key, item in plain["params"].items()})


def _is_dataclass(kind: type) -> bool:
    return dataclasses.is_dataclass(kind)


def _collect(value: Any, name: str, saved: _Saved) -> None:
    if isinstance(value, Detector):
        if name:
            saved.parts[name] = _about(value)
        learnt = {k: v for k, v in vars(value).items() if k.endswith("_") and k[0] != "_"}
    elif isinstance(value, Mapping):
        learnt = dict(value)
    else:
        saved.arrays[name] = np.array(value, order="C")
        return
    for key, item in learnt.items():
        _collect(item, f"{name}/{key}".lstrip("/"), saved)


def _detector(
    about: Mapping[str, Any], tree: Mapping[str, Any], parts: Mapping[str, Any], name: str
) -> Detector:
    detector = _made({key: about[key] for key in ("class", "params")})
    for key, branch in tree.items():
        setattr(detector, key, _learnt(branch, parts, f"{name}/{key}".lstrip("/")))
    detector._restored()
    return detector


def _learnt(branch: Any, parts: Mapping[str, Any], name: str) -> Any:
    if not isinstance(branch, dict):
        return branch
    if name in parts:
        return _detector(parts[name], branch, parts, name)
    return {key: _learnt(item, parts, f"{name}/{key}") for key, item in branch.items()}
