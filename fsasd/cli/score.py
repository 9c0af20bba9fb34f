"""The command ``fsasd-score``: score recordings with a saved detector and decide."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fsasd.cli.arguments import command_parser
from fsasd.data.audio_files import READABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-score``.

    Returns:
        Exit code: 0 when every recording was scored; 1 when some could not be, which are on stderr;
        2 when there is no such model or no recording.
    """
    parser = command_parser(
        "fsasd-score",
        "Score recordings with a saved detector and decide which are anomalous: a CSV "
        "row (file, score, threshold, decision, p_value) for each, on standard output. The p-value "
        "is the probability that a normal clip has this score or a higher one.",
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR",
        help="models/<machine>/ of a run's folder, or models/<machine>/section_<nn>/",
    )  # fmt: skip
    parser.add_argument(
        "recordings", type=Path, nargs="+", metavar="WAV",
        help=f"recordings, or folders of recordings ({READABLE})",
    )  # fmt: skip
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE",
        help="a package beside fsasd and scikit-learn whose classes the model may name; importing "
        "it runs its code",
    )  # fmt: skip
    parser.add_argument(
        "--false-alarm-rate", type=float, metavar="SHARE",
        help="share of normal clips that may be called anomalous, in place of the run's "
        "(decision.false_alarm_rate)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each recording, not CSV"
    )
    arguments = parser.parse_args(argv)
    from fsasd.cli.scoring import NOT_A_MODEL, print_rows, read_model, recordings
    from fsasd.detectors.saved import NotAModelError

    try:
        model = read_model(arguments.model, arguments.trust)
        if arguments.false_alarm_rate is not None:
            calibration = model.calibration.at(arguments.false_alarm_rate)
            model = replace(model, calibration=calibration)
        paths = list(recordings(arguments.recordings))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return int(print_rows(model, paths, arguments.json) > 0)
    except NOT_A_MODEL as error:
        print(NotAModelError(arguments.model, f"it cannot score ({error})"), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
