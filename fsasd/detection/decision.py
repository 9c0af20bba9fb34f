"""``decision.json``: what a run leaves beside a saved detector, so that it can decide."""

from __future__ import annotations

import json
from pathlib import Path

from fsasd.detectors.saved import NotAModelError, read_json
from fsasd.evaluation.calibration import Calibration

DECISION = "decision.json"
"""Beside a saved detector: its calibration, and which channel of recordings it is given."""

DECISION_FORMAT = 3
"""Of that file, raised when what it holds changes."""


def write_decision(folder: Path, calibration: Calibration, channel: int | str | None) -> None:
    """Write ``decision.json``.

    Args:
        folder: Holds the detector.
        calibration: Of the detector.
        channel: Which channel of recordings with several it is given.
    """
    about = {"format": DECISION_FORMAT, "channel": channel, **calibration.described()}
    text = json.dumps(about, indent=1, allow_nan=False) + "\n"
    (folder / DECISION).write_text(text, encoding="utf-8")


def read_decision(path: Path) -> tuple[Calibration, int | str | None]:
    """Read what a run left beside a saved detector.

    Returns:
        Its calibration, and which channel of recordings with several it is given.

    Raises:
        FileNotFoundError: There is no such file.
        NotAModelError: It is damaged, or of another version of fsasd.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it holds the threshold of the detector")
    about = read_json(path, DECISION_FORMAT, again="Run the stage detect anew")
    expected = {"format", "channel", "threshold", "false_alarm_rate", "held_out", "odd", "gamma"}
    if set(about) != expected:
        odd = ", ".join(sorted(set(about) ^ expected))
        raise NotAModelError(path, f"expected the keys {', '.join(sorted(expected))}: see {odd}")
    channel = about["channel"]
    if channel is not None and (isinstance(channel, bool) or not isinstance(channel, (int, str))):
        raise NotAModelError(path, f"expected a number or a name as 'channel', found {channel!r}")
    try:
        return Calibration.from_described(about), channel
    except ValueError as error:
        raise NotAModelError(path, error) from error
