"""Settings that change where, when or how much is computed, and no result."""

from __future__ import annotations

import re

_NO_RESULT = re.compile(
    r"(hydra|logger|check|runner|search)([./@].*)?"
    r"|store|stages|force|plan|shard|tables|keep_checkpoints|data\.(cache|num_workers)"
)


def changes_no_result(name: str) -> bool:
    """Return whether a setting changes no result: runs that differ in it only are one run twice.

    Args:
        name: As on the command line, with what may stand before it.

    >>> [changes_no_result(name) for name in ("runner.workers", "+shard", "~logger")]
    [True, True, True]
    >>> [changes_no_result(name) for name in ("detector", "data.root", "storey", "frozen")]
    [False, False, False, False]
    """
    return _NO_RESULT.fullmatch(name.lstrip("+~")) is not None
