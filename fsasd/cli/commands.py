"""Entry points of the commands; help, version and unknown overrides are handled without torch."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import resources

import yaml

from fsasd import __version__
from fsasd.cli.data_choice import with_data
from fsasd.cli.hydra_version import wrong_hydra
from fsasd.runtime.signals import exit_code, first_raised, ignore_signals, raise_on_signals

COMMANDS = {
    "fsasd": "fsasd.cli.main",
    "fsasd-check": "fsasd.cli.check",
    "fsasd-download": "fsasd.cli.download",
    "fsasd-evaluate": "fsasd.cli.evaluate",
    "fsasd-export": "fsasd.cli.export",
    "fsasd-push": "fsasd.cli.push",
    "fsasd-refit": "fsasd.cli.refit",
    "fsasd-report": "fsasd.cli.report",
    "fsasd-score": "fsasd.cli.score",
    "fsasd-store": "fsasd.cli.store",
    "fsasd-submit": "fsasd.cli.submit",
}
"""Name of a command to its module."""

_CONFIGURATION = ("--config", "-cd", "-cp", "-cn", "hydra.searchpath")
_ONE_MODE = "Only one of --run"
"""What Hydra raises for ``-m --cfg job`` and its kind."""


def help_page() -> str:
    """Return the text of ``fsasd --help``."""
    text = (resources.files("fsasd.conf") / "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["hydra"]["help"]["template"]


def unknown_override(arguments: Sequence[str]) -> str | None:
    """Return the first override whose name the shipped configuration does not have.

    Hydra would advise to add it, and no stage would read it. With a configuration of the user's,
    nothing is checked, since it may have further names.

    Args:
        arguments: Of ``fsasd``.

    >>> unknown_override(["experiment=tiny", "detecto=knn"])
    'detecto=knn'
    """
    if any(argument.startswith(_CONFIGURATION) for argument in arguments):
        return None
    known = _names()
    named = (re.match(r"([A-Za-z_]\w*)[\w./@]*=", argument) for argument in arguments)
    return next((m.string for m in named if m and m[1] not in known), None)


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """Write ``plan``, ``--plan`` and ``data=<path>`` as the overrides that they stand for.

    Args:
        arguments: Of ``fsasd``.

    >>> as_overrides(["plan", "seed=1"]), as_overrides(["seed=1", "--plan"])
    (['seed=1', 'plan=true'], ['seed=1', 'plan=true'])
    """
    arguments = with_data(arguments)
    rest = [a for n, a in enumerate(arguments) if a != "--plan" and (n or a != "plan")]
    return rest if len(rest) == len(arguments) else [*rest, "plan=true"]


def _names() -> set[str]:
    conf = resources.files("fsasd.conf")
    files = [conf / "config.yaml", *(conf / "experiment").iterdir()]
    texts = [file.read_text(encoding="utf-8") for file in files if file.name.endswith(".yaml")]
    groups = {group.name for group in conf.iterdir() if group.is_dir()}
    return groups.union({"hydra"}, *(yaml.safe_load(text) or {} for text in texts))


def run(command: str) -> int | None:
    """Run a command on ``sys.argv``.

    Args:
        command: Its name.

    Returns:
        Its exit code; 0 where the reader of its output has closed the pipe (``| head``), 143 where
        SIGTERM ended it, 130 where Ctrl-C did.
    """
    try:
        if command == "fsasd":
            # In a sweep, this process may only start those that run its jobs.
            raise_on_signals()
        code = _run(command, sys.argv[1:])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        ignore_signals()
        error = first_raised(error)
        print(f"ended by {str(error) or 'Ctrl-C'}", file=sys.stderr)
        return exit_code(error)
    except ValueError as error:
        if not str(error).startswith(_ONE_MODE):
            raise
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(command: str, arguments: Sequence[str]) -> int | None:
    if command == "fsasd" and "_ARGCOMPLETE" in os.environ:
        from fsasd.cli import completion

        completion.complete_fsasd()
    if command == "fsasd" and arguments[:1] == ["completion"]:
        from fsasd.cli import completion

        return completion.main(list(COMMANDS), arguments[1:])
    if command == "fsasd" and arguments[:1] == ["init"]:
        from fsasd.cli import init

        return init.main(arguments[1:])
    if command == "fsasd":
        # Hydra, and Lightning where it starts other ranks, read them from there.
        sys.argv[1:] = arguments = as_overrides(arguments)
    if arguments == ["--version"]:
        print(f"{command} {__version__}")
        return 0
    if command == "fsasd" and not {"--help", "-h"}.isdisjoint(arguments):
        print(help_page())
        return 0
    if command == "fsasd" and (unknown := unknown_override(arguments)):
        from fsasd.settings.names import near

        name = re.split(r"[./@=]", unknown)[0]
        known = _names() - {"defaults"}
        print(f"{unknown}: there is no such setting{near(name, known)}", file=sys.stderr)
        return 1
    if wrong := wrong_hydra():
        print(wrong, file=sys.stderr)
        return 1
    return importlib.import_module(COMMANDS[command]).main()


def fsasd() -> int | None:
    """The command ``fsasd``."""
    return run("fsasd")


def check() -> int | None:
    """The command ``fsasd-check``."""
    return run("fsasd-check")


def download() -> int | None:
    """The command ``fsasd-download``."""
    return run("fsasd-download")


def evaluate() -> int | None:
    """The command ``fsasd-evaluate``."""
    return run("fsasd-evaluate")


def export() -> int | None:
    """The command ``fsasd-export``."""
    return run("fsasd-export")


def push() -> int | None:
    """The command ``fsasd-push``."""
    return run("fsasd-push")


def refit() -> int | None:
    """The command ``fsasd-refit``."""
    return run("fsasd-refit")


def report() -> int | None:
    """The command ``fsasd-report``."""
    return run("fsasd-report")


def score() -> int | None:
    """The command ``fsasd-score``."""
    return run("fsasd-score")


def store() -> int | None:
    """The command ``fsasd-store``."""
    return run("fsasd-store")


def submit() -> int | None:
    """The command ``fsasd-submit``."""
    return run("fsasd-submit")
