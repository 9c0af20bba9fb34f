"""Checks of arguments: by the annotations of constructors, and by the ranges of numbers.

They run before anything is computed, and before an object is created from a file.
"""

from __future__ import annotations

import inspect
import math
import pkgutil
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fsasd.settings.names import near


@dataclass(frozen=True)
class Interval:
    """Numbers of a type between two limits, as scikit-learn's, whose import takes a second.

    Attributes:
        type: ``Integral`` or ``Real``.
        left: Lower limit.
        right: Upper limit; infinity if ``None``.
        closed: Which of the limits belong to it.

    >>> 1.0 in Interval(Real, 0, 1, closed="left"), float("nan") in Interval(Real, 0, None, "left")
    (False, False)
    """

    type: type
    left: float
    right: float | None
    closed: Literal["left", "both", "neither"]

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, self.type) or not _is_computable(value):
            return False
        number: Any = value
        right = math.inf if self.right is None else self.right
        above = number > self.left if self.closed == "neither" else number >= self.left
        return bool(above and (number <= right if self.closed == "both" else number < right))


_WHOLE_NUMBERS = {
    "accumulate_grad_batches": 1, "at_most": 1, "bands": 1, "batch_size": 1, "blocks": 1,
    "candidates": 1, "channels": 1, "class_epochs": 0, "clips_per_label": 1, "clusters": 1,
    "density": 0, "depth": 1, "dim": 1, "epochs": 1, "every_n_validations": 1, "first_epochs": 0,
    "folds": 2, "frames": 1, "heads": 1, "hidden": 1, "hop": 1, "k": 1, "mask_bins": 0,
    "mask_frames": 0, "max_steps": -1, "n_components": 1, "n_fft": 1, "n_mels": 1, "networks": 1,
    "num_nodes": 1, "num_workers": 0, "patch": 1, "rank": 1, "rate": 1, "samples": 1,
    "pad": 0, "samples_every_n_steps": 0, "segments": 1, "smote_neighbours": 1, "text_steps": 0,
    "vae_steps": 0, "warmup_steps": 0, "workers": 1,
}  # fmt: skip
_SIZES = (
    "bands", "channels", "dim", "frames", "hidden", "hop", "n_fft", "n_mels", "pad", "patch",
    "rank",
)  # fmt: skip
LARGEST = 65_536
"""Of what determines the size of an array by itself, so that no file asks for all the memory."""
_LAYERS = ("blocks", "depth", "heads", "networks")
_MOST_LAYERS = 256

_ABOVE_ZERO = ("learning_rate", "scale", "temperature", "width")
_SECONDS = ("crop_seconds", "max_seconds", "seconds")
_HOUR = 3600
_FROM_ZERO = (
    "gradient_clip_val", "high_pass", "margin", "mixup", "noise_offset", "outliers", "r",
    "reg_covar", "smote", "weight", "weight_decay",
)  # fmt: skip
_SHARES = (
    "audio_share", "balance", "blend", "condition_dropout", "ema_decay", "featex", "final_rate",
    "reconstruction", "visible", "statex",
)  # fmt: skip

RANGES: dict[str, Interval] = {
    **{name: Interval(Integral, low, None, closed="left") for name, low in _WHOLE_NUMBERS.items()},
    **{name: Interval(Integral, _WHOLE_NUMBERS[name], LARGEST, closed="both") for name in _SIZES},
    **{name: Interval(Integral, 1, _MOST_LAYERS, closed="both") for name in _LAYERS},
    **dict.fromkeys(_ABOVE_ZERO, Interval(Real, 0, None, closed="neither")),
    **dict.fromkeys(_SECONDS, Interval(Real, 0, _HOUR, closed="neither")),
    **dict.fromkeys(_FROM_ZERO, Interval(Real, 0, None, closed="left")),
    **dict.fromkeys(_SHARES, Interval(Real, 0, 1, closed="both")),
    "val_share": Interval(Real, 0, 1, closed="left"),
    "seed": Interval(Integral, 0, 2**32 - 1, closed="both"),
    "sampling_rate": Interval(Integral, 1_000, 400_000, closed="both"),
}
"""Of numbers, by the name that they have in every constructor of fsasd and in the configuration."""

_CHOICES: dict[str, Any] = {
    "channel": [Literal["near", "far", "mean"], Interval(Integral, 0, None, closed="left"), None],
}

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def check_settings(settings: Any, path: str = "") -> None:
    """Check the arguments of every class that settings name.

    Args:
        settings: Plain ones (dicts, lists, values) with Hydra's ``_target_``.
        path: Where they are in the configuration.

    Raises:
        ValueError: A class has no such argument, or does not take such a value; says where, what
            was expected and what was found.

    >>> check_settings({"_target_": "fsasd.detectors.knn.KNN", "k": 0}, "detector")
    Traceback (most recent call last):
    ...
    ValueError: detector.k=0: expected a whole number of 1 or more
    """
    if isinstance(settings, Mapping):
        if isinstance(target := settings.get("_target_"), str) and (kind := _resolve(target)):
            arguments = {k: v for k, v in settings.items() if not k.startswith("_")}
            check_arguments(kind, arguments, path)
        inner: Iterable[tuple[Any, Any]] = settings.items()
    elif isinstance(settings, (list, tuple)):
        inner = enumerate(settings)
    else:
        return
    for name, value in inner:
        check_settings(value, f"{path}.{name}".lstrip("."))


def check_arguments(kind: Callable[..., Any], arguments: Mapping[str, Any], path: str = "") -> None:
    """Check arguments by a constructor's signature, without calling it.

    Args:
        kind: A class, or a method that makes one of it.
        arguments: By name; what will be an object is a mapping that names its class.
        path: Where they are from.

    Raises:
        ValueError: See ``check_settings``.
    """
    known, hints = _signature(kind)
    where = f"{path}." if path else ""
    for name, value in arguments.items():
        if known is not None and name not in known:
            raise ValueError(
                f"{where}{name}: {kind.__qualname__} has no such argument{near(name, known)}"
            )
        if name in hints:
            check_value(f"{where}{name}", value, hints[name])
        _check_by_sklearn(kind, name, value, where)


def check_value(path: str, value: Any, hint: Any) -> None:
    """Check one value by its type, and by the range that is known of its name.

    Raises:
        ValueError: See ``check_settings``.

    >>> check_value("synthesis.clips_per_label", -1, int)
    Traceback (most recent call last):
    ...
    ValueError: synthesis.clips_per_label=-1: expected a whole number of 1 or more
    """
    if value == "???":
        return
    name = path.rpartition(".")[2]
    options = list(_options(hint))
    wanted: list[Any] = _CHOICES.get(name, [])
    if not wanted and name in RANGES and {int, float} & set(options):
        # None, and values that are no numbers, are checked by type alone.
        wanted = [RANGES[name], *(option for option in options if option not in (int, float))]
    if not any(_fits(value, option) for option in wanted or options):
        words = dict.fromkeys(map(_describe, wanted or options))
        raise ValueError(f"{path}={value!r}: expected {' or '.join(words)}")


def _resolve(target: str) -> Callable[..., Any] | None:
    # The caller reports a class that cannot be imported.
    try:
        return pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return None


def _signature(kind: Callable[..., Any]) -> tuple[set[str] | None, dict[str, Any]]:
    """Return the names of all arguments, ``None`` where it takes any, and types where known."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return None, {}
    hints = _hints(vars(kind).get("__init__", kind) if isinstance(kind, type) else kind)
    known = {p.name for p in parameters if p.kind != p.VAR_KEYWORD}
    if all(p.kind != p.VAR_KEYWORD for p in parameters):
        return known, hints
    # A classmethod passes other arguments on to its class, a class of fsasd to the one above it.
    above = getattr(kind, "__self__", None)
    if isinstance(kind, type):
        makers = [base for base in kind.__mro__ if "__init__" in vars(base)]
        above = makers[1] if makers[1].__module__.startswith("fsasd.") else None
    rest, more = _signature(above) if isinstance(above, type) else (None, {})
    return (None if rest is None else known | rest), more | hints


def _hints(function: Any) -> dict[str, Any]:
    if not getattr(function, "__module__", "").startswith(("fsasd", "lightning")):
        return {}
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        # Of annotations that are only there for a type checker.
        return {}


def _check_by_sklearn(kind: Any, name: str, value: Any, where: str) -> None:
    if not getattr(kind, "__module__", "").startswith("sklearn") or isinstance(value, Mapping):
        return
    wanted = getattr(kind, "_parameter_constraints", {}).get(name, "no_validation")
    if wanted == "no_validation":
        return
    from sklearn.utils._param_validation import make_constraint

    constraints = [make_constraint(one) for one in wanted]
    if not any(constraint.is_satisfied_by(value) for constraint in constraints):
        words = [str(constraint) for constraint in constraints if not constraint.hidden]
        raise ValueError(f"{where}{name}={value!r}: expected {' or '.join(words)}")


def _options(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            yield from _options(option)
    else:
        yield hint


def _fits(value: Any, option: Any) -> bool:
    if isinstance(value, Mapping):
        # It is checked when the object is created from it.
        return option not in _WORDS
    if isinstance(option, Interval):
        return not isinstance(value, bool) and value in option
    if option in (None, types.NoneType):
        return value is None
    if get_origin(option) is Literal:
        return value in get_args(option)
    if option in (int, float):
        is_number = isinstance(value, (int, option)) and not isinstance(value, bool)
        return is_number and _is_computable(value)
    if option in (str, bool):
        return isinstance(value, option)
    if _is_list(option):
        return isinstance(value, (list, tuple))
    if _is_mapping(option):
        return False
    return not isinstance(value, (bool, int, float)) or option is Any or not _is_known(option)


def _is_computable(number: Any) -> bool:
    """Return whether a number is none of those whole ones of a file that no float can hold."""
    return not isinstance(number, int) or abs(number) < 2**63


def _describe(option: Any) -> str:
    if option in (None, types.NoneType):
        return "null"
    if get_origin(option) is Literal:
        return f"one of {', '.join(map(str, get_args(option)))}"
    if isinstance(option, Interval):
        return _range(option)
    if _is_list(option):
        return "a list, [...]"
    if _is_mapping(option):
        return "a mapping, {...}"
    return _WORDS.get(option) or str(getattr(option, "__name__", option))


def _is_list(option: Any) -> bool:
    return (get_origin(option) or option) in (Sequence, list, tuple)


def _is_known(option: Any) -> bool:
    return (get_origin(option) or option) is Path


def _is_mapping(option: Any) -> bool:
    return (get_origin(option) or option) in (Mapping, dict)


def _range(interval: Interval) -> str:
    """Return a range in words.

    >>> _range(RANGES["k"]), _range(RANGES["balance"]), _range(RANGES["seconds"])
    ('a whole number of 1 or more', 'a number from 0 to 1', 'a number above 0 and below 3600')
    """
    kind = _WORDS[int if interval.type is Integral else float]
    if interval.right is None:
        low = f"of {interval.left:g} or more" if interval.closed == "left" else "above 0"
        return f"{kind} {low}"
    if interval.closed == "neither":
        return f"{kind} above {interval.left:g} and below {interval.right:g}"
    to = "to" if interval.closed == "both" else "to below"
    return f"{kind} from {interval.left:g} {to} {interval.right}"
