"""Shell completion: ``fsasd completion SHELL``, and what may follow on the command line of fsasd.

The groups, choices and keys of the configuration are read from its files as they are: Hydra's own
completion composes it, which takes as long as a run's start.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from fsasd.cli.arguments import command_parser

SHELLS = ("bash", "zsh", "fish")

_GLOBAL = "# @package _global_"

COMMANDS = {
    "plan": "what would be built and what reused",
    "init": "begin a study of your own recordings",
    "completion": "complete fsasd in a shell",
}
"""Of ``fsasd``, beside overrides."""


def main(commands: Sequence[str], argv: Sequence[str] | None = None) -> int:
    """Run ``fsasd completion``.

    Args:
        commands: Names of the commands to complete.
        argv: Its arguments.
    """
    parser = command_parser(
        "fsasd completion",
        "Print what completes all commands of fsasd in a shell. "
        'bash, zsh: eval "$(fsasd completion bash)". fish: fsasd completion fish | source.',
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(argv).shell
    import argcomplete

    print(argcomplete.shellcode(list(commands), shell=shell))
    return 0


def complete_fsasd() -> None:
    """Answer the shell's question for ``fsasd``, and end the process."""
    import argcomplete

    parser = argparse.ArgumentParser("fsasd", add_help=False)
    for option in ("--help", "--version", "--multirun", "-m", "--plan"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("--config-dir").completer = argcomplete.DirectoriesCompleter()  # type: ignore[attr-defined]
    parser.add_argument("overrides", nargs="*").completer = _overrides  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def overrides(prefix: str, before: Sequence[str] = ()) -> list[str]:
    """Return what may begin so.

    Args:
        prefix: Of an override.
        before: Overrides that are there already; they say which choice of a group has keys.

    >>> overrides("generator=audioldm_n")
    ['generator=audioldm_nano', 'generator=audioldm_nano_fast']
    >>> overrides("detector.k", ["detector=knn"]), overrides("plan=")
    (['detector.k='], ['plan=true', 'plan=false'])
    """
    conf = resources.files("fsasd.conf")
    name, is_value, value = prefix.partition("=")
    if is_value and (folder := conf / name).is_dir():
        # The last of several values, with commas between them.
        done = value[: value.rfind(",") + 1]
        offered = [f"{name}={done}{choice}" for choice in _choices(folder)]
        return [one for one in offered if one.startswith(prefix)]
    keys = dict(_keys(_tree(conf, before)))
    if is_value:
        offered = [f"{name}=true", f"{name}=false"] if isinstance(keys.get(name), bool) else []
        return [one for one in offered if one.startswith(prefix)]
    groups = [f"{group}=" for group in _groups(conf)]
    for level in itertools.count(prefix.count(".")):
        # What is below a name that is not complete comes with the next question, but a name alone.
        names = {*groups, *(_to_level(key, level) for key in keys)}
        offered = sorted(one for one in names if one.startswith(prefix))
        if [one[-1] for one in offered] != ["."]:
            break
    return offered


def _overrides(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    before = parsed_args.overrides or []
    offered = overrides(prefix, before)
    if not before:
        offered += [name for name in COMMANDS if name.startswith(prefix)]
    name, is_value, value = prefix.partition("=")
    if is_value and (not offered or name == "data"):
        import argcomplete

        offered += [f"{name}={file}" for file in argcomplete.FilesCompleter()(value)]
    return offered


def _to_level(key: str, level: int) -> str:
    parts = key.split(".")
    return f"{key}=" if len(parts) <= level + 1 else ".".join(parts[: level + 1]) + "."


def _choices(folder: Traversable) -> list[str]:
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def _groups(conf: Traversable, above: str = "") -> Iterator[str]:
    for folder in conf.iterdir():
        if folder.is_dir() and _choices(folder):
            yield f"{above}{folder.name}"
        if folder.is_dir():
            yield from _groups(folder, f"{above}{folder.name}/")


def _keys(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if name.startswith("_") or name in ("defaults", "hydra"):
            continue
        if isinstance(value, dict):
            yield from _keys({str(k): v for k, v in value.items()}, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _tree(conf: Traversable, before: Sequence[str]) -> dict[str, Any]:
    """Return the keys of ``config.yaml`` and of the choices of its groups."""
    text = (conf / "config.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    chosen: dict[str, str] = {}
    for entry in tree["defaults"]:
        if isinstance(entry, dict):
            chosen |= {name: choice for name, choice in entry.items() if choice}
    chosen |= dict(one.split("=", 1) for one in before if "=" in one)
    for group, choice in chosen.items():
        if (conf / group / f"{choice}.yaml").is_file():
            _merge(tree, _of_choice(conf, group, choice))
    return tree


def _of_choice(conf: Traversable, group: str, choice: str) -> dict[str, Any]:
    """Return the keys of a choice where Hydra puts them."""
    keys = _read(conf, group, choice)
    if (conf / group / f"{choice}.yaml").read_text(encoding="utf-8").startswith(_GLOBAL):
        return keys
    for part in reversed(group.split("/")):
        keys = {part: keys}
    return keys


def _read(conf: Traversable, group: str, choice: str) -> dict[str, Any]:
    """Return the keys of a file and of those that it includes in its place."""
    keys = yaml.safe_load((conf / group / f"{choice}.yaml").read_text(encoding="utf-8")) or {}
    tree: dict[str, Any] = {}
    for entry in keys.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            place, _, package = entry.partition("@")
            above, _, name = place.lstrip("/").rpartition("/")
            if package in ("", "_here_"):
                _merge(tree, _read(conf, above if place[0] == "/" else group, name))
        elif isinstance(entry, dict):
            for name, chosen in entry.items():
                if (conf / group / name).is_dir() and isinstance(chosen, str):
                    _merge(tree, {name: _read(conf, f"{group}/{name}", chosen)})
    _merge(tree, keys)
    return tree


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        else:
            tree[name] = value
