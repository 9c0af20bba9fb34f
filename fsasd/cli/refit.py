"""The command ``fsasd-refit``: fit a saved detector to new normal recordings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fsasd.cli.arguments import add_trust, command_parser
from fsasd.data.audio_files import READABLE

if TYPE_CHECKING:
    from fsasd.deployment.refitting import Comparison


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = command_parser(
        "fsasd-refit",
        "Fit a saved detector to new normal recordings, after maintenance or drift: its setting "
        "and its networks are kept, its threshold is set anew. With recordings of the machine's "
        "first faults its setting is chosen anew. Old and new model are compared.",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL",
        help="models/<machine>/ of a run's folder, models/<machine>/section_<nn>/, or "
        "hub:owner/name",
    )  # fmt: skip
    parser.add_argument(
        "--normal", nargs="+", required=True, metavar="WAV",
        help=f"normal recordings ({READABLE}), folders, patterns: all that the new model is to "
        "know, also those of before that still hold",
    )  # fmt: skip
    parser.add_argument(
        "--anomalous", nargs="+", default=[], metavar="WAV",
        help="recordings of the machine's first faults, one or a few of each fault: the setting is "
        "chosen anew, with caution where they are few",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR",
        help="gets the new model: a folder that is empty or does not exist",
    )  # fmt: skip
    parser.add_argument(
        "--false-alarm-rate", type=float, metavar="SHARE",
        help="share of normal clips that may be called anomalous; by default the old model's",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    add_trust(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-refit``.

    Returns:
        Exit code: 0, or 2 when there is no such model, a recording cannot be used, or the model
        cannot be fitted again.
    """
    arguments = parser().parse_args(argv)
    from fsasd.deployment.files import recordings
    from fsasd.deployment.model import load
    from fsasd.deployment.refitting import refit

    try:
        model = load(arguments.model, arguments.trust)
        paths = list(recordings(arguments.normal))
        faults = list(recordings(arguments.anomalous))
        result = refit(model, paths, arguments.trust, arguments.false_alarm_rate, faults)
        result.save(arguments.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if odd := result.calibration.odd_clips():
        print(f"WARNING {odd}. The threshold is set without", file=sys.stderr)
    comparison = result.comparison
    print(json.dumps(asdict(comparison)) if arguments.json else _text(comparison, arguments.out))
    return 0


def _text(comparison: Comparison, out: Path) -> str:
    lines = [
        f"{comparison.clips} normal recordings",
        f"{'':18}{'old model':>12}{'new model':>12}",
        f"{'threshold':18}{comparison.old_threshold:>12.5g}{comparison.new_threshold:>12.5g}",
        f"{'called anomalous':18}{100 * comparison.old_alarms:>10.1f} %"
        f"{100 * comparison.new_alarms:>10.1f} %",
    ]
    if faults := comparison.faults:
        detected = (f"{n} of {faults.clips}" for n in (faults.old_detected, faults.new_detected))
        lines.append("{:18}{:>12}{:>12}".format("faults detected", *detected))
        lines.append(f"setting: {faults}")
    if comparison.drift:
        lines.append(f"by the old model, {comparison.drift}")
    return "\n".join([*lines, f"new model: {out}"])


if __name__ == "__main__":
    sys.exit(main())
