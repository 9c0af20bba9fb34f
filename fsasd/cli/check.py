"""The command ``fsasd-check``: ``fsasd`` with the stage ``check`` only."""

from __future__ import annotations

import sys
from pathlib import Path

from fsasd.cli.arguments import command_parser


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
    added = ["stages=[check]", *(_data_at(options.data) if options.data else [])]
    if options.headers_only:
        added.append("check.headers_only=true")
    if options.json:
        added.append("check.json=true")
    # Hydra wants all overrides in one place, which options like --config-dir must not divide.
    place = next((i for i, a in enumerate(given) if "=" in a and a[0] != "-"), len(given))
    sys.argv[1:] = [*given[:place], *added, *given[place:]]
    import fsasd.cli.main

    fsasd.cli.main.main()


def _data_at(place: str) -> list[str]:
    """Return the overrides that name a manifest, a folder or an edition."""
    from fsasd.data.metadata import ROLES

    path, quoted = Path(place), "'" + place.replace("'", "\\'") + "'"
    if path.suffix and not path.is_dir():
        return ["data=manifest", f"data.manifest={quoted}"]
    if path.is_dir() or len(path.parts) > 1:
        layout = "dcase" if any((path / part).is_dir() for part in ROLES) else "folder"
        return [f"data={layout}", f"data.root={quoted}"]
    return [f"data={place}"]


if __name__ == "__main__":
    main()
