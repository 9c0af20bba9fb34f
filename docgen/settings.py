"""The keys of ``conf/``, each with the constructor that takes it, its values and its comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

CONF = Path(__file__).parents[1] / "conf"

CONSTRUCTORS = {
    "data.factory": "fsasd.data.simulate.factory.write_factory",
    "pretrain": "fsasd.pipeline.stages.pretrain.Pretrain",
    "selection": "fsasd.selection.selector.Selector",
    "synthesis": "fsasd.pipeline.experiment.Synthesis",
}
"""Of mappings that the code, or a ``_target_`` in another file, gives to a constructor."""

_OF_HYDRA = ("hydra", "defaults")
_PACKAGE = re.compile(r"# @package (\S+)\n")


@dataclass
class Node:
    """A key of a yaml file.

    Attributes:
        value: Its value, if it is not a mapping.
        comment: The lines of comment above it, or behind it.
        children: The keys of a mapping.
    """

    value: object = None
    comment: str = ""
    children: dict[str, Node] | None = None

    @property
    def target(self) -> str | None:
        """The constructor that takes its keys."""
        named = (self.children or {}).get("_target_")
        return str(named.value) if named and named.value else None


@dataclass(frozen=True)
class Key:
    """A key that a choice of a group sets.

    Attributes:
        group: Folder below ``conf/``; empty for ``config.yaml``.
        choice: Name of the file.
        path: Dotted, from the root of the configuration.
        owner: The constructor that takes it; empty where none does.
        node: Its value and comment.
    """

    group: str
    choice: str
    path: str
    owner: str
    node: Node = field(compare=False)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]


def keys(conf: Path = CONF) -> list[Key]:
    """Return the keys of all files, but those of Hydra and those that an experiment overrides.

    Args:
        conf: Folder of the configuration.
    """
    found: list[Key] = []
    files = sorted(conf.rglob("*.yaml"), key=lambda file: ("experiment" in file.parts, file))
    for file in files:
        group = file.parent.relative_to(conf).as_posix().strip(".")
        if (file.parent == conf and file.name != "config.yaml") or group.startswith("hydra"):
            continue  # part of others
        known = {key.path for key in found}
        for path, owner, node in _walk(Node(children=at_root(file, conf)), "", ""):
            is_group = (conf / path.replace(".", "/")).is_dir()
            if not is_group and not (group == "experiment" and path in known):
                found.append(Key(group, file.stem, path, owner, node))
    return found


def head(file: Path) -> str:
    """Return the comment that a file begins with, without the line of its source.

    Args:
        file: A yaml file.
    """
    lines = []
    for line in _PACKAGE.sub("", file.read_text("utf-8")).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(line for line in lines if not line.startswith("Source: "))


def at_root(file: Path, conf: Path = CONF) -> dict[str, Node]:
    """Return the keys of a file where Hydra puts them.

    Args:
        file: A yaml file.
        conf: Folder of the configuration.
    """
    nodes = read(file, conf)
    named = _PACKAGE.match(file.read_text("utf-8"))
    group = file.parent.relative_to(conf).parts
    if named and named[1] == "_global_":
        return nodes
    for part in reversed(group):
        nodes = {part: Node(children=nodes)}
    return nodes


def read(file: Path, conf: Path = CONF) -> dict[str, Node]:
    """Return the keys of a file and of those that it includes.

    Args:
        file: A yaml file.
        conf: Folder of the configuration.
    """
    text = file.read_text("utf-8")
    root = yaml.compose(text)
    own = _children(root, text.splitlines()) if isinstance(root, yaml.MappingNode) else {}
    own.pop("defaults", None)
    nodes: dict[str, Node] = {}
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        if not isinstance(entry, str) or entry == "_self_" or file.parent == conf:
            continue
        name, _, package = entry.partition("@")
        included = (conf if name[0] == "/" else file.parent) / f"{name.lstrip('/')}.yaml"
        if not included.is_file():
            continue  # a plug-in's
        nested = read(included, conf)
        for part in reversed(package.split(".") if package not in ("", "_here_") else []):
            nested = {part: Node(children=nested)}
        nodes = _merged(nodes, nested)
    return _merged(nodes, own)


def _children(mapping: yaml.MappingNode, lines: list[str]) -> dict[str, Node]:
    nodes = {}
    for key, value in mapping.value:
        comment = _comment(lines, key.start_mark.line, key.start_mark.column)
        if isinstance(value, yaml.MappingNode) and value.value:
            nodes[str(key.value)] = Node(None, comment, _children(value, lines))
        else:
            text = "\n".join(lines)[value.start_mark.index : value.end_mark.index]
            nodes[str(key.value)] = Node(text.strip() or "null", comment)
    return nodes


def _comment(lines: list[str], line: int, column: int) -> str:
    """Return the comment behind a key, or the lines of comment right above it."""
    if behind := re.search(r"\s#\s(.*)", lines[line][column:]):
        return behind[1]
    above: list[str] = []
    while line and lines[line - 1].startswith(" " * column + "#"):
        line -= 1
        above.insert(0, lines[line].strip().lstrip("# "))
    return " ".join(text for text in above if not text.startswith(("@package", "Source: ")))


def _merged(first: dict[str, Node], second: dict[str, Node]) -> dict[str, Node]:
    nodes = dict(first)
    for name, node in second.items():
        before = nodes.get(name)
        if before and before.children and node.children and "_target_" not in node.children:
            node = replace(node, children=_merged(before.children, node.children))
        if before and not node.comment:
            node = replace(node, comment=before.comment)
        nodes[name] = node
    return nodes


def _walk(node: Node, path: str, owner: str) -> Iterator[tuple[str, str, Node]]:
    """Yield path, constructor and node of each key; what a constructor takes whole has no keys."""
    for name, child in (node.children or {}).items():
        below = f"{path}.{name}" if path else name
        if below in _OF_HYDRA or (name.startswith("_") and name.endswith("_")):
            continue
        takes = child.target or CONSTRUCTORS.get(below)
        mappings = any(one.target for one in (child.children or {}).values())
        is_section = child.children is not None and not owner and not takes
        if not is_section or child.comment:
            yield below, owner, child
        if takes or is_section or mappings:
            yield from _walk(child, below, takes or "")
