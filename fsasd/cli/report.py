"""The command ``fsasd-report``: runs and sweeps beside each other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fsasd.cli.arguments import command_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-report``.

    Returns:
        Exit code: 0 if all jobs have results; 1 where an argument is wrong or jobs of a sweep have
        no result; 3 where results lack sections or recordings.
    """
    arguments = _parser().parse_args(argv)
    # Its help loads neither pandas nor scikit-learn.
    from fsasd.report.runs.comparison import compare_runs
    from fsasd.report.runs.console import print_comparison, print_missing

    try:
        comparison = compare_runs(*arguments.folders, baseline=arguments.baseline)
        if not (comparison.is_scored or comparison.is_finetuned):
            names = ", ".join(map(str, arguments.folders))
            raise ValueError(
                f"{names}: expected runs with the stage finetune or detect, found no result of "
                f"them ({comparison.states})"
            )
        print_comparison(comparison, f"Settings, {comparison.order}", machines=True)
        if arguments.output is not None:
            from fsasd.report.runs.files import write_comparison

            for path in write_comparison(comparison, arguments.output):
                print(f"{path.suffix[1:] + ':':<16} {path}")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.flush()
    print_missing(comparison)
    return comparison.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "fsasd-report",
        "Compare runs and sweeps: mean and standard deviation over seeds, differences "
        "between settings on the same test clips with 95 % intervals, the best setting of each "
        "machine; of fine-tunings losses, steps and time.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RUN_OR_SWEEP",
        help="folder of a run or of a sweep, or of several: all runs below it",
    )
    parser.add_argument(
        "--baseline",
        metavar="SETTING",
        help="compare with this setting instead of the best one, e.g. detector=knn",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write comparison.html, .md, .tex and .csv, jobs.csv and machines.csv there",
    )
    return parser
