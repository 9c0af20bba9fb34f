"""Detectors: one per file, and what they share."""

from __future__ import annotations

from importlib import resources


def available() -> list[str]:
    """Return the names that ``detector=`` takes: those of the config group that ships.

    >>> "twfr_gmm" in available()
    True
    """
    group = resources.files("fsasd.conf") / "detector"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in group.iterdir()
        if entry.name.endswith(".yaml")
    )
