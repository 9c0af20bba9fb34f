"""What a store holds: artifacts that are whole, unfinished or collected."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from fsasd.settings.files import read_json
from fsasd.store.key import KEY, Description
from fsasd.store.locks import file_lock
from fsasd.store.provenance import BUILDING, PROVENANCE, Provenance, StoreError

COLLECTED = ".collected.json"
"""Ending of the file that is left of a collected artifact: its key and provenance."""

PARTIAL = ".partial"
"""Ending of the folder of an artifact that is not complete."""

_NAME = re.compile(rf"({KEY.pattern})(\.partial|\.collected\.json|\.replaced)?")


@dataclass(frozen=True)
class Artifact:
    """An entry of a store.

    Attributes:
        path: Folder of the artifact, complete or not; of a collected one the file that is left.
        key: Of the artifact.
        state: ``whole`` (verified or not), ``building`` (by a job that goes on), ``unfinished``
            (of a job that ended), ``collected``, ``damaged`` (without readable provenance) or
            ``replaced`` (a rest of one that was replaced).
        description: What determines it; None where nothing readable says so.
        provenance: None where it is not whole.
    """

    path: Path
    key: str
    state: str
    description: Description | None = None
    provenance: Provenance | None = None

    @property
    def bytes(self) -> int:
        """Size of its files together."""
        if self.state == "collected":
            return 0
        return self.provenance.bytes if self.provenance else folder_bytes(self.path)

    @property
    def final(self) -> Path:
        """Where the complete artifact is, or would be."""
        return self.path.with_name(self.key)


def artifacts(root: Path) -> Iterator[Artifact]:
    """Yield the entries of a store, by stage and section.

    Args:
        root: Folder of the store.

    >>> import tempfile
    >>> from fsasd.store.store import Store
    >>> store = Store(tempfile.mkdtemp())
    >>> _ = store.build(Description("compute", 1, {}), lambda folder: None)
    >>> [(artifact.state, artifact.description.title) for artifact in artifacts(store.root)]
    [('whole', 'compute')]
    """
    for stage in _folders(root):
        yield from _within(stage)
        for section in _folders(stage):
            if not _NAME.fullmatch(section.name):
                yield from _within(section)


def entry(path: Path) -> Artifact:
    """Return what a path of a store is.

    Args:
        path: Of a complete, unfinished, replaced or collected artifact.

    Raises:
        ValueError: It has another name.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected a name that begins with a key of 16 hex digits")
    key, ending = match[1], match[2]
    if ending == PARTIAL:
        state = "building" if is_locked(path.with_name(key)) else "unfinished"
        return Artifact(path, key, state, _unfinished(path))
    if ending == ".replaced":
        return Artifact(path, key, "replaced")
    try:
        provenance = Provenance.read(path if ending == COLLECTED else path / PROVENANCE)
    except (StoreError, FileNotFoundError):
        return Artifact(path, key, "damaged")
    state = "collected" if ending == COLLECTED else "whole"
    return Artifact(path, key, state, provenance.description, provenance)


def is_locked(final: Path) -> bool:
    """Return whether some process is building an artifact."""
    if not lock_path(final).exists():
        return False
    try:
        with file_lock(lock_path(final), timeout=0, mode=0o664):
            return False
    except Timeout:
        return True
    except OSError:
        # Nobody builds in a store that cannot be written.
        return False


def lock_path(final: Path) -> Path:
    """Return the file by which an artifact is locked while it is built."""
    return final.with_name(f"{final.name}.lock")


def folder_bytes(folder: Path) -> int:
    """Return the size of the files below a folder; files that are linked twice count once."""
    sizes = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if not path.is_dir():
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _within(folder: Path) -> Iterator[Artifact]:
    # The features of a hundred thousand recordings may be beside them.
    for path in sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
        yield entry(path)


def _unfinished(partial: Path) -> Description | None:
    try:
        return Description.from_json(read_json(partial / BUILDING))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
