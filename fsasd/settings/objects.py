"""Nested settings: reached by name as in scikit-learn, and written as JSON.

The components of a detector may have components themselves: frozen dataclasses (representations,
front ends), scikit-learn estimators, mappings, and mappings of names to detectors.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

TRUSTED = frozenset({"fsasd", "sklearn"})
"""Packages whose classes a saved detector may name."""


def components(value: Any) -> Mapping[str, Any]:
    """Return the components of a setting by name; none for plain values.

    >>> components({"k": 1}), components(3)
    ({'k': 1}, {})
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return value
    if _is_estimator(value):
        return value.get_params(deep=False)
    return {}


def by_name(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings and all of their components, ``setting__component__component``.

    Estimators in a mapping of nothing else go by their own names, as in scikit-learn's ensembles.

    >>> dict(by_name({"weights": {"knn": 0.5}}))
    {'weights': {'knn': 0.5}, 'weights__knn': 0.5}
    """
    for name, value in settings.items():
        yield f"{prefix}{name}", value
        inner = prefix if _is_named_estimators(value) else f"{prefix}{name}__"
        yield from by_name(components(value), inner)


def owner(settings: Mapping[str, Any], name: str) -> list[str]:
    """Return the path to a setting, or to an estimator in a mapping, whose name is given first.

    Raises:
        KeyError: There is none.
    """
    if name in settings:
        return [name]
    for holder, value in settings.items():
        if _is_named_estimators(value) and name in value:
            return [holder, name]
    raise KeyError(name)


def replaced(value: Any, path: Sequence[str], new: Any) -> Any:
    """Return a setting with one of its components replaced.

    Dataclasses and mappings are copied, estimators altered, as ``set_params`` does.

    Raises:
        ValueError: There is no such part.

    >>> replaced({"a": 1, "b": 2}, ["b"], 3)
    {'a': 1, 'b': 3}
    """
    if not path:
        return new
    if _is_estimator(value):
        return value.set_params(**{"__".join(path): new})
    first, *rest = path
    inner = components(value)
    if first not in inner:
        raise ValueError(
            f"{type(value).__name__} has no parameter {first!r}: it has {', '.join(inner)}"
        )
    part = replaced(inner[first], rest, new)
    if isinstance(value, Mapping):
        return {**value, first: part}
    return dataclasses.replace(value, **{first: part})


def described(value: Any, name: str = "") -> Any:
    """Return JSON from which ``rebuilt`` makes an equal object.

    Raises:
        TypeError: It is no JSON, and neither a dataclass nor an estimator.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [described(item, name) for item in value]
    if isinstance(value, Mapping):
        return {key: described(item, f"{name}.{key}") for key, item in value.items()}
    kind = type(value)
    if not _is_part(kind):
        raise TypeError(
            f"parameter {name}={value!r} cannot be saved: expected JSON, a dataclass or an "
            "estimator"
        )
    params = {
        key: described(item, f"{name}.{key}".lstrip(".")) for key, item in components(value).items()
    }
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "params": params}


def described_by_name(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in a description by the names of ``by_name``, without importing anything.

    Parts of a mapping go by both names that they may have, as it is not known what they are.

    >>> knn = {"class": "fsasd.detectors.knn.KNN", "params": {"k": 2}}
    >>> found = dict(described_by_name({"detectors": {"knn": knn}}))
    >>> found["knn__k"], found["detectors__knn__k"]
    (2, 2)
    """
    for name, value in params.items():
        yield f"{prefix}{name}", value
        if _is_class(value):
            yield from described_by_name(value["params"], f"{prefix}{name}__")
        elif isinstance(value, Mapping):
            yield from described_by_name(value, f"{prefix}{name}__")
            if all(map(_is_class, value.values())):
                yield from described_by_name(value, prefix)


def check_described(about: Any, path: str = "") -> None:
    """Check the arguments of every class that ``described`` names, of those that are imported.

    Raises:
        ValueError: See ``parameters.check_settings``.
    """
    from fsasd.settings.parameters import check_settings

    check_settings(_as_configuration(about), path)


def packages(settings: Any) -> set[str]:
    """Return the packages of the classes that ``described``, or a configuration, names.

    >>> packages({"class": "my_package.loudness.Loudness", "params": {}})
    {'my_package'}
    >>> packages([{"_target_": "my_package.loudness.Loudness"}])
    {'my_package'}
    """
    if isinstance(settings, list):
        return set().union(*map(packages, settings))
    if not isinstance(settings, Mapping):
        return set()
    name = settings["class"] if _is_class(settings) else settings.get("_target_")
    inner = packages(list(settings.values()))
    return inner | ({name.partition(".")[0]} if isinstance(name, str) else set())


def rebuilt(about: Any, trust: Iterable[str] = ()) -> Any:
    """Create the object that ``described`` has written.

    Args:
        about: Content of a file, which is not trusted: classes may be estimators and dataclasses
            of fsasd, scikit-learn and the packages that are trusted, which is checked before
            anything is imported.
        trust: Names of more packages, such as ``my_package``.

    Raises:
        ValueError: Another class is named, or one that does not take its arguments.
    """
    trust = frozenset(trust)
    if isinstance(about, list):
        return [rebuilt(item, trust) for item in about]
    if not isinstance(about, Mapping):
        return about
    if not _is_class(about):
        return {key: rebuilt(item, trust) for key, item in about.items()}
    from fsasd.settings.parameters import check_arguments

    kind = _class(about["class"], trust)
    check_arguments(kind, {k: _as_configuration(v) for k, v in about["params"].items()})
    params = {key: rebuilt(item, trust) for key, item in about["params"].items()}
    if isinstance(params.get("memory"), (str, Mapping)):
        # A scikit-learn pipeline would read pickles from there.
        raise ValueError(f"{about['class']} names a folder of pickles as its 'memory': not loaded")
    try:
        return kind(**params)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise ValueError(f"{about['class']}: {error}") from error


def _class(path: str, trust: frozenset[str]) -> type:
    module, _, name = path.rpartition(".")
    package = module.partition(".")[0]
    if package not in TRUSTED | trust:
        raise ValueError(
            f"{path} is a class of neither {' nor '.join(sorted(TRUSTED | trust))}: not imported. "
            f"If you trust its package {package!r}, say so (fsasd-score --trust {package})"
        )
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise ValueError(f"{path} could not be imported ({error})") from error
    # A module holds other names than its own, and a file may name anything that can be called.
    if not _is_part(kind) or path != f"{kind.__module__}.{kind.__qualname__}":
        raise ValueError(f"{path} is neither a detector nor a part of one: not loaded")
    return kind


def _is_class(about: Any) -> bool:
    return (
        isinstance(about, Mapping)
        and set(about) == {"class", "params"}
        and isinstance(about["class"], str)
        and isinstance(about["params"], Mapping)
    )


def _as_configuration(about: Any) -> Any:
    if isinstance(about, list):
        return [_as_configuration(item) for item in about]
    if not isinstance(about, Mapping):
        return about
    if _is_class(about):
        return {"_target_": about["class"], **_as_configuration(about["params"])}
    return {key: _as_configuration(item) for key, item in about.items()}


def _is_part(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and (
        issubclass(kind, _estimators()) or dataclasses.is_dataclass(kind)
    )


def _is_estimator(value: Any) -> TypeGuard[BaseEstimator]:
    return isinstance(value, _estimators())


def _estimators() -> tuple[type, ...]:
    """Return the class of scikit-learn's estimators; none where nothing has imported it.

    Its import takes a second of a command that may need no estimator.
    """
    base = sys.modules.get("sklearn.base")
    return () if base is None else (base.BaseEstimator,)


def _is_named_estimators(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(_is_estimator(part) for part in value.values())
