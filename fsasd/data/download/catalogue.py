"""The catalogue: the archives of every edition, from ``editions/<edition>.yaml``."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from fsasd.data.names import require_known

ZENODO = "https://zenodo.org"

FOLDERS = {"dev": "dev_data", "eval_train": "eval_data", "eval_test": "eval_data"}
"""The parts of an edition, and where their machines' folders belong.

DCASE calls them development, additional training and evaluation data set.
"""


@dataclass(frozen=True)
class Archive:
    """One zip file of a Zenodo record: the clips of one machine in one part of an edition.

    Attributes:
        edition: e.g. ``dcase2023``.
        part: One of ``FOLDERS``.
        machine: Machine type, as the data set spells it.
        record: Zenodo's number of the record.
        name: File name, unique within an edition.
        md5: Checksum, None where only the record knows it.
        size: Bytes, None where only the record knows it.
        renamed: Folders within the machine's that are called otherwise afterwards.
    """

    edition: str
    part: str
    machine: str
    record: int
    name: str
    md5: str | None = None
    size: int | None = None
    renamed: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def folder(self) -> str:
        """Where its contents belong, relative to the data set's root."""
        return f"{FOLDERS[self.part]}/{self.machine}"


def editions() -> list[str]:
    """Return the names of the editions that can be downloaded.

    >>> editions()[0], editions()[-1]
    ('dcase2020', 'dcase2026')
    """
    files = (resources.files(__package__) / "editions").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def archives(
    edition: str,
    parts: Collection[str] | None = None,
    machines: Collection[str] | None = None,
) -> list[Archive]:
    """Return the archives of an edition.

    Args:
        edition: ``dcase2023``, or ``2023`` for short.
        parts: Of ``FOLDERS``; all by default.
        machines: Machine types; all by default. One that only some of the parts have is taken
            from these.

    Returns:
        In the order of the parts, then of the machines' names.

    Raises:
        MetadataError: An edition, part or machine that is not known; the near miss is suggested.

    >>> [archive.name for archive in archives("2023", machines=["bandsaw"])]
    ['eval_data_bandsaw_train.zip', 'eval_data_bandsaw_test.zip']
    """
    name = edition if edition.startswith("dcase") else f"dcase{edition}"
    require_known([name], editions(), "editions")
    require_known(parts or (), FOLDERS, "parts")
    chosen = [archive for archive in _read(name) if parts is None or archive.part in parts]
    if machines is not None:
        there = {archive.machine for archive in chosen}
        require_known(machines, there, f"machines of {name} ({', '.join(parts or FOLDERS)})")
        chosen = [archive for archive in chosen if archive.machine in machines]
    return chosen


@functools.cache
def _read(edition: str) -> list[Archive]:
    text = (resources.files(__package__) / "editions" / f"{edition}.yaml").read_text("utf-8")
    known: dict[str, Any] = yaml.safe_load(text)
    return [
        Archive(
            edition,
            part,
            machine,
            known["parts"][part]["record"],
            entry["file"],
            entry.get("md5"),
            entry.get("bytes"),
            known.get("renamed", {}),
        )
        for part in FOLDERS
        for machine, entry in known["parts"][part]["archives"].items()
    ]
