"""The command ``fsasd-check``: ``fsasd`` with the stage ``check`` only."""

from __future__ import annotations

import sys

from fsasd.cli.arguments import command_parser
from fsasd.cli.data_choice import data_at, with_data


def main() -> None:
    """Translate the options into overrides and run ``fsasd stages=[check]``."""
    parser = command_parser(
        "fsasd-check",
        "Report what a data set holds and the problems in it. Exit code 1: errors.",
        epilog="All other arguments are overrides of fsasd (see fsasd --help), for instance "
        "data=dcase2023 data.root=path data.channel=near captions=dcase.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data", help="a folder of recordings, a manifest, or an edition such as dcase2023"
    )
    parser.add_argument("--headers-only", action="store_true", help="do not decode recordings")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options, given = parser.parse_known_args()
    given = with_data(given)
    added = ["stages=[check]", *(data_at(options.data) if options.data else [])]
    if options.headers_only:
        added.append("check.headers_only=true")
    if options.json:
        added.append("check.json=true")
    # Hydra wants all overrides in one place, which options like --config-dir must not divide.
    place = next((i for i, a in enumerate(given) if "=" in a and a[0] != "-"), len(given))
    sys.argv[1:] = [*given[:place], *added, *given[place:]]
    import fsasd.cli.main

    fsasd.cli.main.main()


if __name__ == "__main__":
    main()
