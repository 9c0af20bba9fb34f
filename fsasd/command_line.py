"""The commands as they are typed: what can be said without loading torch is said at once."""

from __future__ import annotations

import importlib
import sys
from importlib import resources

import yaml

from fsasd import __version__

_COMMANDS = {
    "fsasd": "fsasd.main",
    "fsasd-check": "fsasd.check_command",
    "fsasd-download": "fsasd.data.download.command",
    "fsasd-evaluate": "fsasd.evaluation.submission",
    "fsasd-score": "fsasd.score_command",
}


def help_page() -> str:
    """Return the page of ``fsasd --help``, which Hydra shows too."""
    text = (resources.files("fsasd.conf") / "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["hydra"]["help"]["template"]


def run(command: str) -> int | None:
    """Run a command on ``sys.argv``.

    Args:
        command: Its name.

    Returns:
        Its exit code.
    """
    asked = sys.argv[1:]
    if asked == ["--version"]:
        print(f"{command} {__version__}")
        return 0
    if command == "fsasd" and asked in (["--help"], ["-h"]):
        print(help_page())
        return 0
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
