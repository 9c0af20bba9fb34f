"""Detectors: one per file, and what they share.

``base`` is their interface; ``representations`` are what many of them score: by statistics of a
spectrogram, by pretrained ``encoders`` or by the learned ``systems``, which ``networks`` trains.
"""

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
