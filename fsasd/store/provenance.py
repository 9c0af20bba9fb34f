"""What an artifact is, how it was built, and whether its files are still what was built."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import fsasd
from fsasd.runtime.commits import loaded
from fsasd.settings.files import fields_of, read_json
from fsasd.store.atomic import UNFINISHED, write_text
from fsasd.store.key import Description

PROVENANCE = "provenance.json"
"""Name of the file in every artifact that holds its provenance."""

BUILDING = "building.json"
"""Name of the file in the folder of an unfinished artifact that says since when it is built."""

HASHED = 64 * 2**20
"""Bytes up to which the content of a file is compared on reuse; of larger ones, the size is."""

_PACKAGES = (
    "torch", "torchaudio", "lightning", "diffusers", "transformers", "peft", "safetensors",
    "numpy", "scipy", "scikit-learn", "pandas", "soundfile",
)  # fmt: skip


class StoreError(OSError):
    """The store cannot do what it is asked for; the message says why, and of which artifact."""


@dataclass(frozen=True)
class File:
    """A file of an artifact: its size in bytes and the SHA-256 of its content."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What an artifact is and how it was built.

    Attributes:
        description: What determines it.
        versions: Of Python, fsasd and the packages that compute.
        commit: Of fsasd's repository, with ``-dirty`` where files were changed; None where fsasd
            was installed without one.
        host: Name of the machine.
        command: Arguments of the process, the program first.
        started: When its first build began, UTC in ISO 8601.
        seconds: That all builds took together, those that were interrupted or killed included.
        files: Paths within the artifact, with ``/``, without that of the provenance.
        hub: Commits of the repositories of the Hugging Face hub that the process had loaded, by
            their ids.
        collected: When its files were deleted (``fsasd-store gc``), UTC; None while it is there.
    """

    description: Description
    versions: Mapping[str, str]
    commit: str | None
    host: str
    command: Sequence[str]
    started: str
    seconds: float
    files: Mapping[str, File]
    collected: str | None = None
    hub: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of the artifact."""
        return self.description.key

    @property
    def bytes(self) -> int:
        """Size of all its files together."""
        return sum(file.size for file in self.files.values())

    @classmethod
    def of(cls, description: Description, folder: Path, started: str, seconds: float) -> Provenance:
        """Describe an artifact that this process has built.

        Args:
            description: What determines it.
            folder: That holds its files, which are all read.
            started: When its first build began, UTC in ISO 8601.
            seconds: That it took.
        """
        return cls(
            description,
            versions(),
            commit(),
            socket.gethostname(),
            list(sys.argv),
            started,
            round(seconds, 3),
            {name: _file(folder / name) for name in sorted(_names(folder))},
            hub=loaded(),
        )

    @classmethod
    def read(cls, path: Path) -> Provenance:
        """Read the provenance that ``write`` wrote.

        Args:
            path: Of the file.

        Raises:
            FileNotFoundError: There is none.
            StoreError: It is damaged.
        """
        try:
            fields = read_json(path)
            checksum = fields.pop("sha256")
            if checksum != _checksum(fields):
                raise ValueError(f"expected the checksum {_checksum(fields)}, found {checksum}")
            return cls(
                Description.from_json(fields),
                files={name: fields_of(File, file) for name, file in fields["files"].items()},
                **{name: fields[name] for name in _COPIED},
                # Older ones have none.
                hub=fields.get("hub", {}),
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise StoreError(f"{path}: expected a provenance that is whole, {error}") from error

    def write(self, path: Path) -> None:
        """Write a file that ``read`` reads; it is whole or not there."""
        fields = self.to_json()
        fields["sha256"] = _checksum(fields)
        write_text(path, json.dumps(fields, indent=1) + "\n")

    def to_json(self) -> dict[str, Any]:
        """Return all that it says as plain JSON, key and bytes included."""
        return {
            "key": self.key,
            **self.description.to_json(),
            **{name: getattr(self, name) for name in _COPIED},
            "hub": dict(self.hub),
            "bytes": self.bytes,
            "files": {
                name: {"size": file.size, "sha256": file.sha256}
                for name, file in self.files.items()
            },
        }

    def damage(self, folder: Path, hashed: float = HASHED) -> str | None:
        """Return what is damaged of an artifact: the first such file, expected and found.

        Args:
            folder: The artifact.
            hashed: Bytes up to which the content of a file is compared.

        Returns:
            None where its files are those that were built. Files that were added are not looked at.

        Raises:
            OSError: A file cannot be opened, which says nothing of what it holds.
        """
        for name, expected in self.files.items():
            try:
                size = (folder / name).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return f"{name}: expected {expected.size} bytes, found no file"
            if size != expected.size:
                return f"{name}: expected {expected.size} bytes, found {size}"
        for name, expected in self.files.items():
            if expected.size <= hashed:
                try:
                    content = _sha256(folder / name)
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    return f"{name}: expected a file that can be read ({error.strerror})"
                if content != expected.sha256:
                    return f"{name}: expected the SHA-256 {expected.sha256}, found {content}"
        return None


_COPIED = ("versions", "commit", "host", "command", "started", "seconds", "collected")


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python, fsasd and the packages that compute."""
    installed = {"python": platform.python_version(), "fsasd": fsasd.__version__}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


@functools.cache
def commit() -> str | None:
    """Return the commit of the repository that fsasd runs from, None where it is installed.

    Where files of it are changed, ``-dirty`` is appended.
    """
    root = Path(fsasd.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*describe, "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != BUILDING and not path.name.endswith(UNFINISHED):
            yield path.relative_to(folder).as_posix()


def _file(path: Path) -> File:
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
        if size > HASHED:
            # On reuse its size alone is compared, which a power failure might leave intact.
            os.fsync(file.fileno())
    return File(size, content)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
