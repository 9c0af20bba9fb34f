"""The command ``fsasd-submit``: write and check the package of a submission to DCASE Task 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fsasd.cli.arguments import command_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = command_parser(
        "fsasd-submit",
        "Write the package of a submission to DCASE Task 2 from a run: task2/<label>/ with scores, "
        "decisions and <label>.meta.yaml. It is checked by the challenge's rules, as --check "
        "checks any package.",
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--label",
        help="of the system: <last name>_<institute>_task2_<1 to 4>, such as Doe_TUX_task2_1",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="the package's folder")
    parser.add_argument(
        "--meta", type=Path, metavar="FILE",
        help="YAML of the form of meta.yaml with what the run does not know: authors, description",
    )  # fmt: skip
    parser.add_argument(
        "--development", type=Path, metavar="RUN",
        help="a run on the development machines, whose metrics.csv gives the results in meta.yaml",
    )  # fmt: skip
    parser.add_argument("--check", type=Path, metavar="DIR", help="check a package")
    parser.add_argument(
        "--edition", metavar="NAME",
        help="whose evaluation machines there have to be, such as dcase2025; by default that whose "
        "machines they are",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="root of the data set, each of whose test clips has to be there once",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``fsasd-submit``.

    Returns:
        Exit code: 0 when the package keeps the rules; 1 when it does not; 2 when there is none, or
        it cannot be written.
    """
    asked = parser()
    arguments = asked.parse_args(argv)
    written = (arguments.run, arguments.label, arguments.out)
    if (arguments.check is None and None in written) or (arguments.check and any(written)):
        asked.error("expected RUN, --label and --out, or --check DIR")
    from fsasd.evaluation.submission.package import check_package, write_package

    try:
        if arguments.check is None:
            folder = write_package(*written, arguments.meta, arguments.development)
            print(f"written: {folder}", flush=True)
        systems = check_package(arguments.check or arguments.out, arguments.edition, arguments.data)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    for system in systems:
        clips, of = sum(system.sections.values()), system.edition or "the data set"
        state = f"problems: {len(system.problems)}" if system.problems else "keeps the rules"
        print(
            f"{system.folder.name}: {len(system.sections)} machines and sections of {of}, "
            f"{clips} clips: {state}"
        )
        for problem in system.problems:
            print(problem, file=sys.stderr)
    if arguments.data is None:
        print("Whether the clips are those of the data set was not checked: --data does")
    return int(any(system.problems for system in systems))


if __name__ == "__main__":
    sys.exit(main())
