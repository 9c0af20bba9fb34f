"""Mutations of files: bytes, words, and the values of JSON, also in the head of safetensors."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_VALUES = (
    None, True, False, 0, 1, -1, 256, 65_536, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "a", "\0", "\ud800", "../../a", "9" * 5000, "nan", [], {}, [[]], [None],
    {"": None}, {"a": 1}, [1, 2], ["a", "b"], {"class": "builtins.list", "params": {}},
)  # fmt: skip


def mutated(content: bytes, rng: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """Return a file's content, altered in one to four places.

    Args:
        content: Of the file.
        rng: Says how.
        words: To insert.

    >>> mutated(b"abc", random.Random(3)) == b"abc"
    False
    """
    if (about := _json(content)) is not None and rng.random() < 0.7:
        return json.dumps(_replaced(about, rng)).encode(errors="surrogatepass")
    if (head := _head(content)) is not None and rng.random() < 0.7:
        text = json.dumps(_replaced(head[0], rng)).encode(errors="surrogatepass")
        return struct.pack("<Q", len(text)) + text + head[1]
    for _ in range(rng.randint(1, 4)):
        content = _altered(content, rng, words)
    return content


def _altered(content: bytes, rng: random.Random, words: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(content))
    end = min(len(content), start + rng.choice((0, 1, 2, 4, 8, 64, len(content))))
    part = content[start:end]
    if words and rng.random() < 0.3:
        new = rng.choice(list(words))
    else:
        new = rng.choice((
            b"",
            rng.randbytes(max(len(part), 1)),
            part * rng.randint(2, 9),
            bytes([b ^ (1 << rng.randrange(8)) for b in part[:1]]) + part[1:],
            rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * max(len(part), 1),
            part[::-1],
        ))  # fmt: skip
    return content[:start] + new + content[end:]


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _head(content: bytes) -> tuple[Any, bytes] | None:
    """Return the head of safetensors, and what is behind it."""
    if len(content) < 10:
        return None
    end = 8 + struct.unpack("<Q", content[:8])[0]
    about = _json(content[8:end]) if end <= len(content) else None
    return None if about is None else (about, content[end:])


def _replaced(about: Any, rng: random.Random) -> Any:
    """Return a JSON value of which one is another, is missing or is there twice."""
    path = rng.choice(list(_paths(about)))
    value = rng.choice((*_VALUES, about))
    if not path:
        return value
    about = json.loads(json.dumps(about))
    at = about
    for key in path[:-1]:
        at = at[key]
    if isinstance(at, dict) and rng.random() < 0.2:
        held = at.pop(path[-1])
        if rng.random() < 0.5:
            at[str(value)[:9]] = held
    elif isinstance(at, list) and rng.random() < 0.2:
        at.insert(path[-1], value)
    else:
        at[path[-1]] = value
    return about


def _paths(about: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = about.items() if isinstance(about, dict) else ()
    items = enumerate(about) if isinstance(about, list) else items
    for key, value in items:
        yield from _paths(value, (*path, key))
