"""What determines an artifact, and the key that is made of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

KEY = re.compile(r"[0-9a-f]{16}")
"""The form of a key: the first 16 hexadecimal digits of a SHA-256."""

_STAGE = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True)
class Description:
    """All that determines an artifact: two artifacts of equal descriptions are the same.

    Args:
        stage: Name of the stage that builds it, a folder of the store.
        version: Of the stage's code; raised when the same spec gives another result.
        spec: The settings that determine the result, plain JSON: texts, numbers, booleans, None,
            lists and mappings of these. Keys of mappings are kept as texts, tuples as lists.
        inputs: Names of the artifacts that the stage reads, and their keys.
        section: Machine and section that it is of, e.g. ``"fan section 00"``; empty where all
            machines share it.

    Raises:
        ValueError: The stage's name cannot be that of a folder.
        TypeError: ``spec`` or ``inputs`` hold something else than plain JSON; the message says
            where.

    >>> train = Description("train", 1, {"trainer": {"max_steps": 400}})
    >>> train.key == Description("train", 1, {"trainer": {"max_steps": 400}}).key
    True
    >>> train.key == Description("train", 2, {"trainer": {"max_steps": 400}}).key
    False
    """

    stage: str
    version: int
    spec: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    section: str = ""

    def __post_init__(self) -> None:
        if not _STAGE.fullmatch(self.stage):
            raise ValueError(
                "stage: expected a name of letters, digits, _ and - that begins with a letter, "
                f"found {self.stage!r}"
            )
        object.__setattr__(self, "spec", plain(self.spec, "spec"))
        object.__setattr__(self, "inputs", plain(self.inputs, "inputs"))

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits, which do not depend on the order of mappings."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """Stage and section, as messages name them.

        >>> Description("detect", 1, {}, section="fan section 00").title
        'detect fan section 00'
        """
        return f"{self.stage} {self.section}".strip()

    @property
    def folder(self) -> str:
        """The artifact's path within a store: stage, section if it is of one, key.

        >>> Description("detect", 1, {}, section="fan/2 section 00").folder.rpartition("/")[0]
        'detect/fan_2 section 00'
        """
        return "/".join(filter(None, (self.stage, section_folder(self.section), self.key)))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {
            "stage": self.stage,
            "section": self.section,
            "version": self.version,
            "spec": self.spec,
            "inputs": self.inputs,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Description:
        """Return the description of what ``to_json`` returned; other entries are ignored."""
        return cls(
            fields["stage"], fields["version"], fields["spec"], fields["inputs"], fields["section"]
        )


def section_folder(section: str) -> str:
    """Return the name of a section's folder below that of a stage.

    What a file system may refuse is replaced; the key tells sections apart that are named alike.

    >>> section_folder("valve: 3 section 01")
    'valve_ 3 section 01'
    """
    name = re.sub(r"[^\w .()+-]", "_", section).strip(". ")[:100]
    return f"{name}_" if KEY.fullmatch(name) else name


def plain(value: Any, where: str) -> Any:
    """Return a copy of plain JSON as it is read again: mappings with texts as keys, lists.

    Args:
        value: Texts, numbers, booleans, None, lists, tuples and mappings of these.
        where: Name of the value, for the message.

    Raises:
        TypeError: It holds something else, or two keys of a mapping that are the same text.

    >>> plain({1: (2, None)}, "spec")
    {'1': [2, None]}
    >>> plain({"root": {"of": {1}}}, "spec")
    Traceback (most recent call last):
    TypeError: spec.root.of: expected plain JSON (text, number, boolean, None, list or mapping), \
found set: {1}
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        copied = {_text(key): plain(item, f"{where}.{key}") for key, item in value.items()}
        if len(copied) < len(value):
            raise TypeError(f"{where}: two keys are the same text, found {list(value)}")
        return copied
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}.{place}") for place, item in enumerate(value)]
    raise TypeError(
        f"{where}: expected plain JSON (text, number, boolean, None, list or mapping), found "
        f"{type(value).__name__}: {value!r}"
    )


def _text(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)
