"""The interface of what is fitted to clips: detectors, and representations that are learned."""

from __future__ import annotations

import abc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator

from fsasd.data.clips import Clips
from fsasd.detectors.saved import Saved
from fsasd.settings.objects import by_name, described, owner, rebuilt, replaced

Params = Mapping[str, Any]


class Estimator(BaseEstimator, abc.ABC):
    """A detector, or a representation that is learned.

    A subclass stores its constructor's arguments unchanged (scikit-learn's rule); ``fit`` sets
    attributes whose names end in an underscore, which are arrays or fitted estimators, also in
    dicts.

    Nested parameters have names with two underscores, also those of representations and of dicts
    (``representation__r``); of detectors in a mapping, the name of the detector comes first.
    """

    trains_network: ClassVar[bool] = False
    """A network is trained, on batches that depend on the order of the clips. What any other
    estimator learns does not depend on the order of its training clips."""

    network_attributes: ClassVar[frozenset[str]] = frozenset()
    """Fitted attributes that hold the networks which ``prepare`` trained. They are the same for all
    machines, so that saved detectors share their files."""

    trained_by_fit: ClassVar[bool] = False
    """Whether ``fit`` trains the networks, those of one machine at a time and in one process:
    settings of the trainer apply only to networks that ``prepare`` trains."""

    _prepared: Any = None
    """Result of ``prepare``: shared by clones, but neither a parameter nor saved."""

    @abc.abstractmethod
    def fit(self, clips: Clips) -> Self:
        """Fit to normal clips of one machine.

        Raises:
            TooFewClipsError: There are fewer clips than the settings need.
        """

    def network_spec(self) -> dict[str, Any]:
        """Return what the networks that ``prepare`` trains depend on, beside the clips.

        Plain JSON: the class, a version of the training, and the settings that the networks depend
        on. Empty if ``prepare`` has nothing to learn. Of an estimator that holds others, such as
        a detector on a learned representation: their specs, by name.
        """
        specs = {name: inner.network_spec() for name, inner in self._estimators()}
        return {name: spec for name, spec in specs.items() if spec}

    def prepare(self, clips: Clips, folder: Path, trainer: Params | None = None) -> Self:
        """Train the networks that all machines share, before ``fit`` is given one machine's clips.

        Estimators with an empty ``network_spec`` train none. Networks that the folder holds are not
        trained again, and a training that was interrupted is resumed. Copies that
        ``sklearn.base.clone`` makes are prepared, too: they share ``_prepared``.

        Args:
            clips: Normal clips of all machines.
            folder: Holds the networks, those of each ``network_spec`` in a folder of its own;
                needed as long as copies of the estimator are fitted.
            trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
        """
        for number, group in enumerate(by_network(self._parts())):
            for part in group:
                part.prepare(clips, Path(folder) / f"network_{number}", trainer)
        return self

    def fitted_networks(self) -> Mapping[int, Any]:
        """Return the networks of the fitted estimator that ``prepare`` would train, by number.

        A copy whose ``_prepared`` is ``KeptNetworks`` takes them. Empty where there are none, or
        they cannot be kept.
        """
        return {}

    def synthetic_labels(self) -> frozenset[str]:
        """Return the labels of the synthetic clips that networks are trained on beside real clips.

        They have to follow from ``network_spec``.
        """
        return frozenset()

    def to_prepare(self) -> list[Estimator]:
        """Return the estimators with networks to train: this one, or some of those that it holds.

        Each may be prepared by itself; those of equal ``network_spec`` may share a folder, so that
        a representation has the same networks whatever detector scores it.

        >>> from fsasd.detectors.ensemble import Ensemble
        >>> from fsasd.detectors.knn import KNN
        >>> from fsasd.detectors.systems.thuee import THUEE
        >>> Ensemble({"statistics": KNN(), "learned": KNN(THUEE())}).to_prepare()
        [THUEE()]
        """
        if type(self).network_spec is not Estimator.network_spec:
            return [self] if self.network_spec() else []
        return self._parts()

    def __sklearn_clone__(self) -> Self:
        copy = super().__sklearn_clone__()
        if self._prepared is not None:
            copy._prepared = self._prepared
        return copy

    def n_parameters(self) -> int:
        """Return the number of parameters that the fitted estimator holds."""
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
        saved.write(Path(folder), folders(shared))

    def _restored(self) -> None:
        """Called by ``load`` after the fitted attributes are set."""

    def _parts(self) -> list[Estimator]:
        return [part for _, inner in self._estimators() for part in inner.to_prepare()]

    def _estimators(self) -> Iterator[tuple[str, Estimator]]:
        for key, value in self.get_params(deep=False).items():
            items = value if isinstance(value, Mapping) else {key: value}
            yield from ((name, item) for name, item in items.items() if isinstance(item, Estimator))


def by_network(parts: Iterable[Estimator]) -> list[list[Estimator]]:
    """Group estimators by their ``network_spec``: those of a group have the same networks.

    >>> from fsasd.detectors.systems.thuee import THUEE
    >>> by_network([THUEE(dim=8), THUEE(), THUEE(dim=8)])
    [[THUEE(dim=8), THUEE(dim=8)], [THUEE()]]
    """
    groups: dict[str, list[Estimator]] = {}
    for part in parts:
        groups.setdefault(json.dumps(part.network_spec(), sort_keys=True), []).append(part)
    return list(groups.values())


def _saved(value: Any, name: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return fitted arrays, and settings of fitted estimators, by their paths."""
    if isinstance(value, Estimator):
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
    if isinstance(value, Estimator):
        items = _fitted(value)
        networks = frozenset() if value._prepared is None else value.network_attributes
    else:
        items, networks = value, frozenset(value) if shared else frozenset()
    for key, item in items.items():
        path = f"{name}/{key}" if name else key
        if isinstance(item, (Estimator, Mapping)):
            yield from _network_paths(item, path, key in networks)
        elif shared:
            yield name
            return


def _fitted(estimator: Estimator) -> dict[str, Any]:
    return {k: v for k, v in vars(estimator).items() if k.endswith("_") and not k.startswith("_")}


def restored(branch: Any, about: Mapping[str, Any], name: str, trust: Iterable[str]) -> Any:
    """Return the fitted estimators and arrays of a branch of a saved detector.

    Args:
        branch: An array, or names to branches.
        about: Class and parameters of the estimators, by their path.
        name: Path of the branch.
        trust: Packages whose classes it may name, beside those of fsasd and scikit-learn.

    Raises:
        ValueError: A class is not allowed, or its attributes are not those of a fit.
    """
    if not isinstance(branch, dict):
        return branch
    inner = f"{name}/" if name else ""
    fitted = {k: restored(v, about, f"{inner}{k}", trust) for k, v in branch.items()}
    if name not in about:
        return fitted
    estimator = rebuilt(about[name], trust)
    if not isinstance(estimator, Estimator):
        raise ValueError(
            f"expected a detector or a learned representation, found {about[name]['class']}"
        )
    for key, value in fitted.items():
        # A file cannot replace a method or a setting by an array.
        if not key.endswith("_") or key.startswith("_"):
            raise ValueError(
                f"{inner}{key} is not a fitted attribute of {about[name]['class']}: expected a "
                "name that ends in an underscore"
            )
        setattr(estimator, key, value)
    estimator._restored()
    return estimator


def folders(shared: str | Path | Sequence[Path]) -> list[Path]:
    """Return one folder, or several, as a list."""
    return [Path(shared)] if isinstance(shared, (str, Path)) else list(shared)
