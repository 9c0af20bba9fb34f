"""What the parsers of all commands begin with."""

from __future__ import annotations

import argparse
import os
from typing import Any

from fsasd import __version__


class _Parser(argparse.ArgumentParser):
    """Answers a shell that asks how a command may go on, before it parses anything."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        # argcomplete derives a class of its own from it, and parses what is there with that.
        if "_ARGCOMPLETE" in os.environ and type(self) is _Parser:
            import argcomplete

            argcomplete.autocomplete(self)
        return super().parse_known_args(*args, **kwargs)


def command_parser(prog: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """Return the parser of a command, which answers ``--help`` and ``--version``.

    Args:
        prog: Name of the command.
        description: What it does.
        **options: Further ones of ``argparse.ArgumentParser``.

    >>> command_parser("fsasd-report", "Compare runs.").parse_args([])
    Namespace()
    """
    parser = _Parser(prog, description=description, **options)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust``, which every command that reads a saved detector has.

    >>> parser = command_parser("fsasd-score", "Score recordings.")
    >>> add_trust(parser)
    >>> parser.parse_args(["--trust", "one", "--trust", "other"]).trust
    ['one', 'other']
    """
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE",
        help="a package beside fsasd and scikit-learn whose classes a model may name; importing "
        "it runs its code",
    )  # fmt: skip
