"""What a constructor takes: meaning, type, choices and default of each argument."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args, get_origin, get_type_hints

import griffe
import hydra

from fsasd.settings.parameters import RANGES

_PARSERS: dict[str, Any] = {"sklearn": "numpy"}
"""Of a package's docstrings; Google's style where it is not named."""


@dataclass(frozen=True)
class Argument:
    """An argument of a constructor.

    Attributes:
        meaning: From its docstring; empty if that says nothing.
        type: As it is annotated.
        choices: Of a ``Literal``.
        range: Of a number, if fsasd checks it.
        default: As Python writes it; ``None`` if it has to be given.
    """

    meaning: str = ""
    type: str = ""
    choices: tuple[str, ...] = ()
    range: str = ""
    default: str | None = None


def summary(target: str) -> str:
    """Return the first paragraph of a constructor's docstring.

    Args:
        target: Dotted name.
    """
    called = hydra.utils.get_object(target)
    return _text((inspect.getdoc(called) or "").split("\n\n")[0], called)


@functools.cache
def arguments(target: str) -> dict[str, Argument]:
    """Return what a constructor takes, by name.

    Args:
        target: Dotted name of a class or function. Arguments that it passes on (``**options``) are
            those of the class to which it belongs.
    """
    taken: dict[str, Argument] = {}
    for call in reversed(list(_calls(target))):
        meanings = _meanings(call)
        hints = _hints(call)
        for name, parameter in inspect.signature(call).parameters.items():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            hint = hints.get(name, parameter.annotation)
            default = parameter.default
            taken[name] = Argument(
                meanings.get(name, taken[name].meaning if name in taken else ""),
                _named(hint, parameter.annotation),
                tuple(dict.fromkeys(_choices(hint))),
                _range(name) if target.startswith("fsasd.") else "",
                None if default is parameter.empty else _value(default),
            )
        for name, meaning in meanings.items():
            taken.setdefault(name, Argument(meaning))
    taken.pop("self", None)
    return taken


def _calls(target: str) -> Iterator[Callable[..., Any]]:
    called = hydra.utils.get_object(target)
    yield called
    kinds = [p.kind for p in inspect.signature(called).parameters.values()]
    if inspect.ismethod(called) and inspect.Parameter.VAR_KEYWORD in kinds:
        yield called.__self__


def _meanings(call: Callable[..., Any]) -> dict[str, str]:
    """Return the sections on arguments of a docstring; of a class, with those of its bases."""
    texts = [call]
    if isinstance(call, type):
        texts = [one for base in reversed(call.__mro__[:-1]) for one in (base.__init__, base)]
    meanings: dict[str, str] = {}
    for one in texts:
        doc = inspect.cleandoc(one.__doc__ or "")
        style = _PARSERS.get((getattr(one, "__module__", None) or "").split(".")[0], "google")
        for section in griffe.Docstring(doc).parse(style, warnings=False):
            if section.kind.value in ("parameters", "attributes", "other parameters"):
                described = {a.name.lstrip("*"): a.description for a in section.value}
                meanings |= {name: _text(said, one) for name, said in described.items()}
    return meanings


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    try:
        of_class = isinstance(call, type) and "__init__" in vars(call)
        return get_type_hints(call.__init__ if of_class else call)
    except (NameError, TypeError) as error:  # imported for type checkers only
        logging.getLogger(__name__).debug("%s: %s", call, error)
        return {}


def _choices(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    elif get_origin(hint) in (typing.Union, types.UnionType):
        for one in get_args(hint):
            yield from _choices(one)


def _named(hint: Any, written: Any) -> str:
    """Write an annotation without modules; ``Literal`` as the type of its values."""
    if hint is inspect.Parameter.empty:
        return ""
    if isinstance(hint, str):
        return hint
    if get_origin(hint) is Literal:
        return " | ".join(dict.fromkeys(type(one).__name__ for one in get_args(hint)))
    if get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(_named(one, written) for one in get_args(hint)))
    if get_args(hint) and get_origin(hint) is not None:
        inner = ", ".join("..." if a is ... else _named(a, written) for a in get_args(hint))
        return f"{getattr(get_origin(hint), '__name__', get_origin(hint))}[{inner}]"
    if hint in (None, type(None)):
        return "None"
    if isinstance(hint, list):  # the arguments of a Callable
        return f"[{', '.join(_named(one, written) for one in hint)}]"
    return getattr(hint, "__name__", None) or str(hint).rpartition(".")[2]


def _range(name: str) -> str:
    if (interval := RANGES.get(name)) is None:
        return ""
    whole = "whole, " if interval.type is Integral else ""
    left = f"{'above ' if interval.closed == 'neither' else ''}{interval.left}"
    if interval.right is None:
        return f"{whole}{left}" + ("" if interval.closed == "neither" else " and more")
    right = f"below {interval.right}" if interval.closed == "left" else f"{interval.right}"
    return f"{whole}{left} to {right}"


def _value(default: Any) -> str:
    if inspect.isclass(default) or callable(default):
        return getattr(default, "__name__", repr(default))
    return str(default) if isinstance(default, str) else repr(default)


def _text(said: str, call: Callable[..., Any]) -> str:
    """Return a text on one line; of other packages its first paragraph, without their markup."""
    if not (getattr(call, "__module__", None) or "").startswith("fsasd"):
        said = re.split(r"\n\s*\n|\n\s*-|Example", said)[0]
        said = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", said)
    return " ".join(said.split())
