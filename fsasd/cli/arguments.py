"""What the parsers of all commands begin with."""

from __future__ import annotations

import argparse
from typing import Any

from fsasd import __version__


def command_parser(prog: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """Return the parser of a command, which answers ``--help`` and ``--version``.

    Args:
        prog: Name of the command.
        description: What it does.
        **options: Further ones of ``argparse.ArgumentParser``.

    >>> command_parser("fsasd-report", "Compare runs.").parse_args([])
    Namespace()
    """
    parser = argparse.ArgumentParser(prog, description=description, **options)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser
