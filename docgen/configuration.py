"""The reference of the configuration, from ``conf/`` and the constructors that it names.

A key means what its constructor's docstring says. Where no constructor takes it, and where the
docstring is silent, the comment above the key says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from docgen import settings
from docgen.constructors import Argument, arguments, summary
from docgen.settings import Key
from fsasd.cli.commands import help_page

_VALUES = 3
"""Values of a key that the table names; with more, the default is the constructor's."""

_HEAD = """\
# Configuration

Any value can be set on the command line: `group=choice` takes a file of that
name, `group.key=value` sets a key. `fsasd --cfg job ...` prints the whole configuration of a run,
`fsasd group=x` the choices that there are. A key with + is in no file, and is set by
`+group.key=value`.

This page is written from the files of `conf/` and the constructors that they name."""


def page(conf: Path = settings.CONF) -> str:
    """Return the page.

    Args:
        conf: Folder of the configuration.
    """
    keys = settings.keys(conf)
    files = (file.parent.relative_to(conf).as_posix() for file in conf.rglob("*.yaml"))
    groups = sorted({group.strip(".") for group in files if not group.startswith("hydra")})
    shown: dict[str, str] = {}
    parts = [_HEAD]
    for group in groups:
        parts += _group(group, [key for key in keys if key.group == group], shown, conf)
    return "\n\n".join(parts) + "\n"


def meaning(key: Key) -> str:
    """Return what a key means; empty if nothing says it.

    Args:
        key: Of a file.
    """
    documented = arguments(key.owner).get(key.name, Argument()).meaning if key.owner else ""
    if documented or key.node.comment:
        return documented or key.node.comment
    return summary(key.node.target) if key.node.target else ""


def undocumented(conf: Path = settings.CONF) -> list[str]:
    """Return the keys without a meaning, with their files.

    Args:
        conf: Folder of the configuration.
    """
    return sorted(
        f"conf/{(Path(key.group) / key.choice).as_posix()}.yaml: {key.path}: write what it means "
        f"into the docstring of {key.owner or 'its constructor'}, or into a comment above it"
        for key in settings.keys(conf)
        if not meaning(key)
    )


def _group(group: str, keys: Sequence[Key], shown: dict[str, str], conf: Path) -> list[str]:
    parts = [f"## `{group}`" if group else "## Top level"]
    if group:
        described = rf"^ {{8}}{re.escape(group)} +(.*(?:\n {{24}}.*)*)"
        if said := re.search(described, help_page(), re.MULTILINE):
            parts.append(_sentence(said[1]))
        parts.append(_choices(sorted((conf / group).glob("*.yaml"))))
    for owner in dict.fromkeys(key.owner for key in keys):
        owned = [key for key in keys if key.owner == owner]
        places = sorted({key.path.rpartition(".")[0] for key in owned})
        if owner in shown:
            parts.append(f"[`{owner}`](#{shown[owner]}) also: {_code(places)}.")
        elif owner:
            shown[owner] = _anchor(owner)
            heading = f"### `{owner.rpartition('.')[2]}` {{ #{shown[owner]} }}"
            parts += [heading, f"`{owner}`, at {_code(places)}. {summary(owner)}"]
            parts.append(_table(owned, arguments(owner)))
        else:
            parts.append(_table(owned, {}, whole=True))
    return parts


def _choices(files: Sequence[Path]) -> str:
    rows = [f"| `{file.stem}` | {_cell(settings.head(file))} |" for file in files]
    return "\n".join(["| choice | content |", "|---|---|", *rows])


def _table(keys: Sequence[Key], taken: dict[str, Argument], whole: bool = False) -> str:
    """Write a row per key; those of several choices share it."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    by_name: dict[str, list[Key]] = {}
    for key in keys:
        by_name.setdefault(key.path if whole else key.name, []).append(key)
    for name, same in by_name.items():
        argument = taken.get(same[0].name, Argument())
        kind, default = _type(argument, same), _default(same, argument)
        rows.append(f"| `{name}` | {kind} | {default} | {_cell(meaning(same[0]))} |")
    if keys[0].owner.startswith("fsasd."):
        for name, argument in taken.items():
            if name not in by_name and argument.default is not None and argument.meaning:
                default = f"`{_cell(argument.default)}`"
                rows.append(
                    f"| +`{name}` | {_type(argument)} | {default} | {_cell(argument.meaning)} |"
                )
    return "\n".join(rows)


def _type(argument: Argument, keys: Sequence[Key] = ()) -> str:
    if argument.choices:
        others = [one for one in argument.type.split(" | ") if one != "str"]
        return _cell(", ".join(f"`{one}`" for one in [*argument.choices, *others]))
    if not argument.type and keys:
        values = [yaml.safe_load(str(key.node.value)) for key in keys if not key.node.children]
        kinds = dict.fromkeys(type(value).__name__ for value in values if value is not None)
        return _cell(" | ".join(kinds))
    return _cell(", ".join(text for text in (argument.type, argument.range) if text))


def _default(keys: Sequence[Key], argument: Argument) -> str:
    values: dict[str, list[str]] = {}
    for key in keys:
        if key.node.children is None:
            values.setdefault(" ".join(str(key.node.value).split()), []).append(key.choice)
    targets = dict.fromkeys(filter(None, (key.node.target for key in keys)))
    if not values:
        return ", ".join(f"`{one.rpartition('.')[2]}`" for one in targets)
    if set(values) == {"???"}:
        return "required"
    if len(values) == 1:
        return f"`{_short(next(iter(values)))}`"
    if len(values) <= _VALUES:
        most = max(values, key=lambda value: len(values[value]))
        others = [f"`{_short(v)}` ({', '.join(c)})" for v, c in values.items() if v != most]
        return "; ".join([f"`{_short(most)}`", *others])
    if argument.default is not None:
        return f"`{_short(argument.default)}`, or by choice"
    return "by choice"


def _anchor(owner: str) -> str:
    return owner.lower().replace(".", "-")


def _short(value: str) -> str:
    return _cell(value if len(value) <= 60 else f"{value[:57]}...")


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line[0].upper() + line[1:] + ("" if line.endswith(".") else ".")


def _cell(text: str) -> str:
    """Write a text as Markdown on one line; what is not between backticks has no markup."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("``", "`").replace("|", "\\|"))
    parts[::2] = [re.sub(r"([_*<\[\]])", r"\\\1", part) for part in parts[::2]]
    return re.sub(r"docs/([\w-]+)/([\w-]+)\.md", r"[\2](../\1/\2.md)", "".join(parts))
