"""Counts and lists of files in messages."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 3
"""Files that a message names."""


def many(number: int, noun: str) -> str:
    """Write a count with its noun in singular or plural.

    >>> many(1, "clip"), many(2, "clip")
    ('1 clip', '2 clips')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def named(files: Sequence[str]) -> str:
    """List the first files by name, and the number of the others.

    >>> named(["a.wav", "b.wav", "c.wav", "d.wav"])
    'a.wav, b.wav, c.wav and 1 more'
    """
    more = len(files) - SHOWN
    return ", ".join(files[:SHOWN]) + (f" and {more} more" if more > 0 else "")
