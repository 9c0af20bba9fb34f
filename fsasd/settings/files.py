"""JSON and YAML files: a value of the kind that is expected, or an error that names the file.

They may come from anywhere. Libraries raise whatever they stumble over in a damaged one.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

T = TypeVar("T")

# libyaml's is not slow where lists lie in lists, and ends where they do a thousand times.
_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WORDS: dict[Any, str] = {
    dict: "an object", list: "a list", str: "a text", bool: "true or false",
    int: "a whole number", float: "a number", types.NoneType: "null",
}  # fmt: skip


def read_json(
    path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: Of the file.
        object_hook: See ``json.loads``.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It holds something else; names it.
    """
    try:
        return _of_kind(dict, parse_json(path.read_bytes(), object_hook))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_json(
    text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Return the value of JSON.

    Raises:
        ValueError: It is none, or lists lie in lists a thousand times.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ...
    ValueError: expected JSON, found lists or objects in each other too many times
    """
    try:
        return json.loads(text, object_hook=object_hook)
    except RecursionError:
        raise ValueError(
            "expected JSON, found lists or objects in each other too many times"
        ) from None
    except ValueError as error:
        raise ValueError(f"expected JSON ({error})") from error


def read_yaml(path: Path, kind: type[T]) -> T:
    """Read YAML of plain values; a file without any is an empty one of its kind.

    Args:
        path: Of the file.
        kind: ``dict`` or ``list``.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It holds something else, or aliases, by which a small file becomes a large
            value; names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _YAML)):
            raise ValueError("found an alias (*), which is not read")
        content = yaml.load(text, _YAML)
        return kind() if content is None else _of_kind(kind, content)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError,
            OverflowError, RecursionError) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: expected YAML: {reason}") from error


def fields_of(kind: type[T], about: Any, where: str = "") -> T:
    """Return a dataclass of a value of JSON, whose entries have the types of its fields.

    Args:
        kind: A dataclass; its fields may be such, too.
        about: The value.
        where: The place in the file, for the message.

    Raises:
        ValueError: An entry is missing, is none of its fields, or has another type.

    >>> @dataclasses.dataclass
    ... class Size:
    ...     width: float
    >>> fields_of(Size, {"width": 3})
    Size(width=3.0)
    >>> fields_of(Size, {"width": "3"})
    Traceback (most recent call last):
    ...
    ValueError: width: expected a number, found '3'
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _of_kind(dict, about)
    required = {
        name for name, field in fields.items()
        if field.default is field.default_factory is dataclasses.MISSING
    }  # fmt: skip
    if missing := sorted(required - about.keys()):
        raise ValueError(f"{where}expected {', '.join(sorted(required))}, missing: {missing[0]}")
    if strange := sorted(about.keys() - fields):
        raise ValueError(f"{where}expected {', '.join(fields)}, found also {strange[0]!r:.40}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _checked(value, hints[name], f"{where}{name}")
                   for name, value in about.items()})  # fmt: skip


def _checked(value: Any, hint: Any, where: str) -> Any:
    """Return a value of JSON as a type wants it."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first(value, inner, where)
    if origin is Literal and value in inner:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return fields_of(hint, value, f"{where}.")
    if origin is tuple and isinstance(value, list):
        kinds = inner if inner[-1] is not Ellipsis else inner[:1] * len(value)
        if len(kinds) == len(value):
            return tuple(_checked(v, h, where) for v, h in zip(value, kinds, strict=True))
    elif origin in (list, Sequence) and isinstance(value, list):
        return [_checked(item, inner[0], where) for item in value]
    elif origin in (dict, Mapping) and isinstance(value, dict) and all(map(_is_text, value)):
        return {key: _checked(item, inner[1], f"{where}.{key:.40}") for key, item in value.items()}
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < 2**63:
            return float(value)
    elif hint is str and isinstance(value, str):
        if _is_text(value):
            return value
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"{where}: expected {_described(hint)}, found {value!r:.60}")


def _is_text(value: str) -> bool:
    """Return whether a file can hold a text: JSON may hold halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(value: Any, hints: Sequence[Any], where: str) -> Any:
    for hint in hints:
        try:
            return _checked(value, hint, where)
        except ValueError:
            continue
    described = " or ".join(map(_described, hints))
    raise ValueError(f"{where}: expected {described}, found {value!r:.60}")


def _described(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is tuple and get_args(hint)[-1] is not Ellipsis:
        return f"a list of {len(get_args(hint))}"
    kinds = {Mapping: dict, Sequence: list, tuple: list, None: hint}
    word = kinds.get(origin, origin)
    return _WORDS.get(word, "an object" if dataclasses.is_dataclass(hint) else str(hint))


def _of_kind(kind: type[T], content: Any) -> T:
    if not isinstance(content, kind):
        word = _WORDS.get(type(content), type(content).__name__)
        raise ValueError(f"expected {_WORDS[kind]}, found {word}")
    return content
