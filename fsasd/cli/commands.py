"""The commands as they are typed: what can be said without loading torch is said at once."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import resources

import yaml

from fsasd import __version__

_COMMANDS = {
    "fsasd": "fsasd.cli.main",
    "fsasd-check": "fsasd.cli.check",
    "fsasd-download": "fsasd.cli.download",
    "fsasd-evaluate": "fsasd.cli.evaluate",
    "fsasd-score": "fsasd.cli.score",
    "fsasd-store": "fsasd.cli.store",
}

_OWN_CONFIGURATION = ("--config", "-cd", "-cp", "-cn", "hydra.searchpath")


def help_page() -> str:
    """Return the page of ``fsasd --help``, which Hydra shows too."""
    text = (resources.files("fsasd.conf") / "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["hydra"]["help"]["template"]


def unknown_override(arguments: Sequence[str]) -> str | None:
    """Return the first override of a name that the configuration has not, of what ships.

    Hydra would advise to add it, which nothing would look at. Whoever brings a configuration along
    may have names that are not known here.

    Args:
        arguments: Of ``fsasd``.

    >>> unknown_override(["experiment=tiny", "detecto=knn"])
    'detecto=knn'
    """
    if any(argument.startswith(_OWN_CONFIGURATION) for argument in arguments):
        return None
    known = _names()
    named = (re.match(r"([A-Za-z_]\w*)[\w./@]*=", argument) for argument in arguments)
    return next((m.string for m in named if m and m[1] not in known), None)


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
        Its exit code; 0 where who reads its output has read enough (``| head``).
    """
    try:
        code = _run(command, sys.argv[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # What is still to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(command: str, asked: Sequence[str]) -> int | None:
    if asked == ["--version"]:
        print(f"{command} {__version__}")
        return 0
    if command == "fsasd" and asked in (["--help"], ["-h"]):
        print(help_page())
        return 0
    if command == "fsasd" and (unknown := unknown_override(asked)):
        from fsasd.settings.parameters import near

        name = re.split(r"[./@=]", unknown)[0]
        print(
            f"{unknown}: nothing is called so{near(name, _names() - {'defaults'})}", file=sys.stderr
        )
        return 1
    return importlib.import_module(_COMMANDS[command]).main()


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


def score() -> int | None:
    """The command ``fsasd-score``."""
    return run("fsasd-score")


def store() -> int | None:
    """The command ``fsasd-store``."""
    return run("fsasd-store")
