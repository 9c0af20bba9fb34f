"""The Hydra that Python would import is one that fsasd works with."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

OLDEST = (1, 3)
"""Of Hydra; ``pip`` keeps to it, but ``PYTHONPATH`` and a user's own packages may bring another."""


def wrong_hydra() -> str:
    """Return in one line what is wrong with the Hydra that would be imported; empty if nothing is.

    Hydra is not imported: old ones fail in new versions of Python before they say what they are.

    >>> wrong_hydra()
    ''
    """
    spec = find_spec("hydra")
    if spec is None or spec.origin is None:
        installed, where = "none", ""
    else:
        text = Path(spec.origin).read_text("utf-8")
        version = re.search(r'^__version__ = "((\d+)\.(\d+).*)"', text, re.MULTILINE)
        if version and (int(version[2]), int(version[3])) >= OLDEST:
            return ""
        installed = f"version {version[1]}" if version else "another package of that name"
        where = f" in {Path(spec.origin).parent}"
    expected = ".".join(map(str, OLDEST))
    return (
        f"Hydra {expected} or newer is expected, found {installed}{where}: take that away, or "
        f"install the other before it (pip install 'hydra-core>={expected}.2')"
    )
