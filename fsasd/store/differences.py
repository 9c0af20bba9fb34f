"""What two specs differ in, in lines that a person reads."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

LINES = 6
"""Differences that are listed one by one; of more, the number is given."""

_ENTRIES = 3
"""Entries of a mapping or list that are listed one by one; of more, the number is given."""

_WIDTH = 60

_NOTHING = "(none)"


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Return what two values of plain JSON differ in, a line for each setting.

    Where many entries of a mapping or a list differ, one line counts them.

    Args:
        old: Texts, numbers, booleans, None, lists and mappings of these.
        new: The same, of the other.
        name: Of the value; names within are appended with dots.

    >>> differences({"trainer": {"max_steps": 400}}, {"trainer": {"max_steps": 800}})
    ['trainer.max_steps 400 -> 800']
    >>> clips = {f"{n}.wav": n for n in range(9)}
    >>> differences({"clips": {}}, {"clips": clips})
    ['clips: 9 added (0.wav, 1.wav, 2.wav, ...)']
    """
    if _text(old) == _text(new):
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _of_mappings(old, new, name)
    if isinstance(old, list) and isinstance(new, list):
        return _of_lists(old, new, name)
    return [f"{name} {_short(old)} -> {_short(new)}".lstrip()]


def count_differences(old: Any, new: Any) -> int:
    """Return how many values differ within two values of plain JSON.

    >>> count_differences({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 0, "b": {"c": 4}})
    3
    """
    left, right = _flat(old), _flat(new)
    return sum((left - right).values()) + sum((right - left).values()) - _changed(left, right)


def without(spec: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a spec without some of its entries.

    Args:
        spec: Plain JSON.
        names: Of the entries, with dots for those within others.

    >>> without({"clips": [1], "data": {"root": "a", "seed": 0}}, ["clips", "data.root"])
    {'data': {'seed': 0}}
    """
    kept = {}
    for key, value in spec.items():
        if key in names:
            continue
        within = [name[len(key) + 1 :] for name in names if name.startswith(f"{key}.")]
        kept[key] = without(value, within) if within and isinstance(value, Mapping) else value
    return kept


def limited(lines: Sequence[str], most: int = LINES) -> list[str]:
    """Return the first lines, and how many more there are.

    >>> limited(["a", "b", "c"], 2)
    ['a', 'b', 'and 1 more difference']
    """
    more = len(lines) - most
    if more <= 0:
        return list(lines)
    return [*lines[:most], f"and {more} more difference{'s' * (more > 1)}"]


def _of_mappings(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> list[str]:
    added = [key for key in new if key not in old]
    removed = [key for key in old if key not in new]
    changed = [key for key in new if key in old and _text(old[key]) != _text(new[key])]
    lines = []
    for key in [*changed, *added, *removed]:
        inner = f"{name}.{key}".lstrip(".")
        if key in old and key in new:
            lines.append(differences(old[key], new[key], inner))
        elif key in new:
            lines.append([f"{inner} {_NOTHING} -> {_short(new[key])}"])
        else:
            lines.append([f"{inner} {_short(old[key])} -> {_NOTHING}"])
    counts = {"added": added, "removed": removed, "changed": changed}
    if name and max(map(len, counts.values())) > _ENTRIES:
        return [_counted(name, counts)]
    return [line for entry in lines for line in entry]


def _of_lists(old: Sequence[Any], new: Sequence[Any], name: str) -> list[str]:
    pairs = [at for at in range(min(len(old), len(new))) if _text(old[at]) != _text(new[at])]
    nested = any(isinstance(value, (Mapping, list)) for value in [*old, *new])
    if len(old) == len(new) and nested and len(pairs) <= _ENTRIES:
        inner = [differences(old[at], new[at], f"{name}.{at}".lstrip(".")) for at in pairs]
        return [line for lines in inner for line in lines]
    if not nested and max(len(_text(old)), len(_text(new))) <= _WIDTH:
        return [f"{name} {_text(old)} -> {_text(new)}".lstrip()]
    left, right = Counter(map(_text, old)), Counter(map(_text, new))
    counts = {"added": list((right - left).elements()), "removed": list((left - right).elements())}
    if not any(counts.values()):
        return [f"{name}: another order".lstrip(": ")]
    return [_counted(name, counts)]


def _counted(name: str, counts: Mapping[str, Sequence[str]]) -> str:
    texts = []
    for what, entries in counts.items():
        if entries:
            shown = ", ".join(_cut(entry.strip('"')) for entry in entries[:_ENTRIES])
            more = ", ..." if len(entries) > _ENTRIES else ""
            texts.append(f"{len(entries)} {what} ({shown}{more})")
    return f"{name}: {', '.join(texts)}".lstrip(": ")


def _flat(value: Any, name: str = "") -> Counter[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        inner: Iterable[tuple[str, Any]] = ((f"{name}.{key}", value[key]) for key in value)
    elif isinstance(value, list) and value:
        inner = ((f"{name}.*", entry) for entry in value)
    else:
        return Counter([(name, _text(value))])
    return sum((_flat(entry, key) for key, entry in inner), Counter())


def _changed(left: Counter[tuple[str, str]], right: Counter[tuple[str, str]]) -> int:
    """Return how many values differ that have the same name on both sides: one change each."""
    old = Counter(name for name, _ in (left - right).elements())
    return (old & Counter(name for name, _ in (right - left).elements())).total()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _short(value: Any) -> str:
    if isinstance(value, str):
        if re.fullmatch(r"[0-9a-f]{32,}", value):
            return value[:12]
        return _cut(value) if value and value == value.strip() else _text(value)
    if isinstance(value, Mapping) and len(_text(value)) > _WIDTH:
        return f"{{{len(value)} entries}}"
    if isinstance(value, list) and len(_text(value)) > _WIDTH:
        return f"[{len(value)} entries]"
    return _text(value)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
