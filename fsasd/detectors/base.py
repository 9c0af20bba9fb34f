"""The interface of detectors: a scikit-learn estimator with ``fit`` and ``score``."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, clone

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips
from fsasd.detectors.saved import ARRAYS, SETTINGS, NotAModelError, Saved, read
from fsasd.detectors.stacking import TooFewClipsError as TooFewClipsError
from fsasd.detectors.stacking import stack as stack
from fsasd.settings.objects import by_name, described, owner, rebuilt, replaced

Params = Mapping[str, Any]


class Detector(BaseEstimator, abc.ABC):
    """An anomaly detector of one machine's sounds.

    A subclass stores its constructor's arguments unchanged (scikit-learn's rule); ``fit`` sets
    attributes whose names end in an underscore, which are arrays or fitted detectors, also in
    dicts; ``score`` changes nothing. A file ``<name>.yaml`` in the config group ``detector`` makes
    it ``detector=<name>``.

    Nested parameters have names with two underscores, also those of representations and of dicts
    (``representation__r``); of detectors in a mapping, the name of the detector comes first.
    """

    trains_network: ClassVar[bool] = False
    """A network is trained, on batches that depend on the order of the clips. The scores of any
    other detector do not depend on the order of its training clips."""

    score_params: ClassVar[frozenset[str]] = frozenset()
    """Parameters that only ``score`` reads: settings that differ in no others share a fit."""

    network_attributes: ClassVar[frozenset[str]] = frozenset()
    """Fitted attributes that hold the networks which ``prepare`` trained. They are the same for all
    machines, so that saved detectors share their files."""

    trained_by_fit: ClassVar[bool] = False
    """Whether ``fit`` trains the networks, those of one machine at a time and in one process:
    settings of the trainer apply only to networks that ``prepare`` trains."""

    fits_in_threads: ClassVar[bool] = False
    """Whether several copies may be fitted at a time in threads of one process, as the folds of
    held-out scores are: for fits that change nothing but the copy, no global random state either,
    and that spend their time in libraries."""

    _prepared: Any = None
    """Result of ``prepare``: shared by clones, but neither a parameter nor saved."""

    @abc.abstractmethod
    def fit(self, clips: Clips) -> Self:
        """Fit to normal clips of one machine.

        Raises:
            TooFewClipsError: There are fewer clips than the settings need.
        """

    @abc.abstractmethod
    def score(self, clips: Clips) -> np.ndarray:
        """Return (n,) anomaly scores; higher is more anomalous."""

    def resolved_params(self) -> dict[str, Any]:
        """Return the values that ``fit`` chose for parameters set to ``auto``.

        A fit on fewer clips may choose other values. Scores that are compared with those of this
        detector, such as held-out ones, are to come from fits of ``resolved``.
        """
        return {}

    def resolved(self) -> Self:
        """Return an unfitted copy with the values of ``resolved_params`` as its settings."""
        return clone(self).set_params(**self.resolved_params())

    def network_spec(self) -> dict[str, Any]:
        """Return what the networks that ``prepare`` trains depend on, beside the clips.

        Plain JSON: the detector's class, a version of the training, and the settings that the
        networks depend on, not those of a back end. Empty if ``prepare`` has nothing to learn. Of
        a detector that holds others: their specs, by name.
        """
        specs = {name: inner.network_spec() for name, inner in self._detectors()}
        return {name: spec for name, spec in specs.items() if spec}

    def prepare(self, clips: Clips, folder: Path, trainer: Params | None = None) -> Self:
        """Train the networks that all machines share, before ``fit`` is given one machine's clips.

        Detectors with an empty ``network_spec`` train none. Networks that the folder holds are not
        trained again, and a training that was interrupted is resumed. Copies that
        ``sklearn.base.clone`` makes are prepared, too: they share ``_prepared``.

        Args:
            clips: Normal clips of all machines.
            folder: Holds the networks; needed as long as copies of the detector are fitted.
            trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
        """
        for name, inner in self._detectors():
            if inner.network_spec():
                inner.prepare(clips, Path(folder) / name, trainer)
        return self

    def synthetic_labels(self) -> frozenset[str]:
        """Return the labels of the synthetic clips that networks are trained on beside real clips.

        They have to follow from ``network_spec``.
        """
        return frozenset()

    def to_prepare(self) -> list[Detector]:
        """Return the detectors with networks to train: this one, or some of those that it holds.

        Each may be prepared by itself; those of equal ``network_spec`` may share a folder, so that
        a detector within an ensemble has the networks of the same detector alone.

        >>> from fsasd.detectors.ensemble import Ensemble
        >>> from fsasd.detectors.knn import KNN
        >>> from fsasd.detectors.thuee import THUEE
        >>> Ensemble({"knn": KNN(), "thuee": THUEE()}).to_prepare()
        [THUEE()]
        """
        if type(self).network_spec is not Detector.network_spec:
            return [self] if self.network_spec() else []
        return [part for _, inner in self._detectors() for part in inner.to_prepare()]

    def __sklearn_clone__(self) -> Self:
        copy = super().__sklearn_clone__()
        if self._prepared is not None:
            copy._prepared = self._prepared
        return copy

    def score_path(
        self, grid: Sequence[Params], fit_clips: Clips, score_clips: Clips
    ) -> np.ndarray:
        """Return (len(grid), n) scores, one row for each setting fitted on ``fit_clips``.

        Override it if several settings can be fitted faster together; rows have to equal those of
        fitting one by one.
        """
        rows: dict[int, np.ndarray] = {}
        for members in self._sharing_a_fit(grid):
            fitted = clone(self).set_params(**grid[members[0]]).fit(fit_clips)
            default = {key: self.get_params(deep=False)[key] for key in self.score_params}
            for row in members:
                changed = {k: v for k, v in grid[row].items() if self._is_score_param(k)}
                fitted.set_params(**default).set_params(**changed)
                rows[row] = fitted.score(score_clips)
        return np.stack([rows[row] for row in range(len(grid))])

    def n_parameters(self) -> int:
        """Return the number of parameters of the fitted detector."""
        return sum(array.size for array in _saved(self)[0].values())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments; ``deep`` adds nested ones."""
        params = super().get_params(deep=False)
        return dict(by_name(params)) if deep else params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, nested ones by ``<parameter>__<name>``.

        Raises:
            ValueError: There is no parameter of that name.
        """
        for name, value in params.items():
            current = self.get_params(deep=False)
            first, *inner = name.split("__")
            try:
                holder, *path = [*owner(current, first), *inner]
            except KeyError:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {first!r}: it has {', '.join(current)}"
                ) from None
            setattr(self, holder, replaced(current[holder], path, value))
        return self

    def save(self, folder: str | Path, shared: str | Path | Sequence[Path] = ()) -> None:
        """Write ``detector.json`` (classes and settings) and ``detector.safetensors`` (arrays).

        Args:
            folder: Gets both files.
            shared: Folder of the networks that ``prepare`` trained, such as ``models/shared``, so
                that detectors of all machines share one copy: files named by their content, to
                which ``detector.json`` refers. Of several folders the first gets what none of them
                holds. Without, ``detector.safetensors`` holds the networks.

        Raises:
            TypeError: A parameter is neither JSON, a dataclass nor an estimator.
        """
        arrays, inner = _saved(self)
        saved = Saved(described(self), inner, arrays, list(_network_paths(self)))
        saved.write(Path(folder), _folders(shared))

    def _restored(self) -> None:
        """Called by ``load`` after the fitted attributes are set."""

    def _detectors(self) -> Iterator[tuple[str, Detector]]:
        for key, value in self.get_params(deep=False).items():
            items = value if isinstance(value, Mapping) else {key: value}
            yield from ((name, item) for name, item in items.items() if isinstance(item, Detector))

    def _is_score_param(self, name: str) -> bool:
        return name.split("__")[0] in self.score_params

    def _sharing_a_fit(self, grid: Sequence[Params]) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for row, params in enumerate(grid):
            fitted = sorted((k, v) for k, v in params.items() if not self._is_score_param(k))
            groups.setdefault(repr(fitted), []).append(row)
        return list(groups.values())


def load(
    folder: str | Path, trust: Iterable[str] = (), shared: str | Path | Sequence[Path] = ()
) -> Detector:
    """Read what ``Detector.save`` wrote.

    Networks to which it refers are searched in ``shared/`` of the folder and of the two above it,
    nowhere else, and their content is checked.

    Args:
        folder: Holds the two files.
        trust: Packages whose classes it may name, beside those of fsasd and scikit-learn.
        shared: Further folders of networks, searched first.

    Raises:
        FileNotFoundError: There is no saved detector, or a network to which it refers is missing.
        NotAModelError: A file is damaged, or names a class that is not trusted or not allowed.
    """
    folder = Path(folder)
    return restored(read(folder, _folders(shared)), folder, trust)


def restored(saved: Saved, folder: Path, trust: Iterable[str] = ()) -> Detector:
    """Create the detector of what was read from a folder (see ``load``)."""
    tree: dict[str, Any] = {}
    for name, array in saved.arrays.items():
        *path, last = name.split("/")
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise NotAModelError(folder / ARRAYS, f"{name} lies within an array")
        branch[last] = array
    try:
        return _restored(tree, {"": saved.settings, **saved.detectors}, "", tuple(trust))
    except (OSError, ImportError):
        # An encoder that it names was moved.
        raise
    except Exception as error:
        # Constructors may raise anything for arguments from a file.
        why = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise NotAModelError(folder / SETTINGS, why) from error


def require_finite(scores: np.ndarray, clips: Clips) -> None:
    """Raise if a clip's score is not finite: NaN would never exceed a threshold.

    Args:
        scores: (..., n), such as a row for each setting.
        clips: The n clips.

    Raises:
        ValueError: Names the first such clip.
    """
    finite = np.isfinite(scores).reshape(-1, len(clips)).all(axis=0)
    if not finite.all():
        first = int(np.argmin(finite))
        values = np.reshape(scores, (-1, len(clips)))[:, first]
        others = int((~finite).sum()) - 1
        more = f" (and for {others} more clips)" if others else ""
        raise ValueError(
            f"{printable(clips[first].path)}: expected a finite anomaly score, found "
            f"{values[~np.isfinite(values)][0]}{more}"
        )


def _saved(value: Any, name: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return fitted arrays, and settings of fitted detectors, by their paths."""
    if isinstance(value, Detector):
        about = {name: described(value)} if name else {}
        value = _fitted(value)
    elif isinstance(value, Mapping):
        about = {}
    else:
        return {name: np.array(value, order="C")}, {}
    arrays: dict[str, np.ndarray] = {}
    for key, item in value.items():
        inner_arrays, inner = _saved(item, f"{name}/{key}" if name else key)
        arrays |= inner_arrays
        about |= inner
    return arrays, about


def _network_paths(value: Any, name: str = "", shared: bool = False) -> Iterator[str]:
    """Yield the paths of mappings of arrays that are networks which ``prepare`` trained."""
    if isinstance(value, Detector):
        items = _fitted(value)
        networks = frozenset() if value._prepared is None else value.network_attributes
    else:
        items, networks = value, frozenset(value) if shared else frozenset()
    for key, item in items.items():
        path = f"{name}/{key}" if name else key
        if isinstance(item, (Detector, Mapping)):
            yield from _network_paths(item, path, key in networks)
        elif shared:
            yield name
            return


def _fitted(detector: Detector) -> dict[str, Any]:
    return {k: v for k, v in vars(detector).items() if k.endswith("_") and not k.startswith("_")}


def _folders(shared: str | Path | Sequence[Path]) -> list[Path]:
    return [Path(shared)] if isinstance(shared, (str, Path)) else list(shared)


def _restored(branch: Any, about: Mapping[str, Any], name: str, trust: Sequence[str]) -> Any:
    if not isinstance(branch, dict):
        return branch
    inner = f"{name}/" if name else ""
    fitted = {k: _restored(v, about, f"{inner}{k}", trust) for k, v in branch.items()}
    if name not in about:
        return fitted
    detector = rebuilt(about[name], trust)
    if not isinstance(detector, Detector):
        raise ValueError(f"expected a detector, found {about[name]['class']}")
    for key, value in fitted.items():
        # A file cannot replace a method or a setting by an array.
        if not key.endswith("_") or key.startswith("_"):
            raise ValueError(
                f"{inner}{key} is not a fitted attribute of {about[name]['class']}: expected a "
                "name that ends in an underscore"
            )
        setattr(detector, key, value)
    detector._restored()
    return detector
