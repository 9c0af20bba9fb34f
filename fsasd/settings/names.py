"""Names of settings: the hint for one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint that lists the known names and suggests a similar one.

    >>> near("detecto", ["detector", "seed"])
    ". Did you mean 'detector'? There are detector, seed"
    """
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=1)
    hint = f". Did you mean '{matches[0]}'?" if matches else "."
    return f"{hint} There are {', '.join(known)}"
