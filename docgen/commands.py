"""The reference of the commands: what each answers to ``--help``."""

from __future__ import annotations

import argparse
import importlib
import os
from unittest import mock

from fsasd.cli import commands

WIDTH = "96"
"""Columns of the text."""


class _Parsing(Exception):  # noqa: N818
    """A command has built its parser, and is about to parse its arguments."""

    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


def page() -> str:
    """Return the page."""
    parts = [
        "# Commands",
        "Results are on standard output, messages on standard error. Every command answers "
        "`--help` and `--version`, and ends with an exit code other than 0 where something failed.",
        "## fsasd",
        _code(commands.help_page()),
    ]
    with mock.patch.dict(os.environ, {"COLUMNS": WIDTH}):
        for command in sorted(set(commands.COMMANDS) - {"fsasd"}):
            parser = parser_of(command)
            parts += [f"## {command}", _code(parser.format_help())]
            for name, one in subcommands(parser).items():
                parts += [f"### {command} {name}", _code(one.format_help())]
    return "\n\n".join(parts) + "\n"


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command.

    Args:
        command: Its name; any but ``fsasd``, whose arguments Hydra reads.
    """

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Parsing(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            importlib.import_module(commands.COMMANDS[command]).main()
        except _Parsing as parsing:
            return parsing.parser
    raise RuntimeError(f"{command}: expected it to parse its arguments, it did not")


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a command's own commands, by name."""
    actions = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {name: one for action in actions for name, one in action.choices.items()}


def _code(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
