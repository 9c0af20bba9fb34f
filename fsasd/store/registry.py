"""Run folders that use a store: what ``fsasd-store gc`` does not collect."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fsasd.settings.files import parse_json
from fsasd.store.atomic import is_read_only

RUNS = "runs"
"""Folder of the store that holds a file for each run folder."""


@dataclass(frozen=True)
class Run:
    """A run folder, and the artifacts that it used.

    Attributes:
        folder: Of the run.
        hosts: Names of the machines that it ran on.
        artifacts: Keys, and when each was last used (UTC, ISO 8601).
        file: Of the store, that says so.
    """

    folder: Path
    hosts: frozenset[str]
    artifacts: dict[str, str]
    file: Path

    def exists(self, root: Path) -> bool | None:
        """Return whether the folder is there; None where this machine cannot know.

        A folder of another machine is gone if a folder above it lies on the store's file system,
        of which both machines see the same.

        Args:
            root: Folder of the store.
        """
        try:
            if self.folder.exists():
                return True
            if socket.gethostname() in self.hosts:
                return False
            above = next(folder for folder in self.folder.parents if folder.exists())
            return False if above.stat().st_dev == root.stat().st_dev else None
        except OSError:
            # Another user's folder may be closed.
            return None


def register(root: Path, run_folder: Path, keys: Iterable[str]) -> None:
    """Note that a run uses artifacts; in a store that cannot be written nothing is noted.

    Args:
        root: Folder of the store.
        run_folder: Of the run.
        keys: Of the artifacts.
    """
    folder = run_folder.resolve()
    line = {
        "folder": str(folder),
        "host": socket.gethostname(),
        "used": datetime.now(UTC).isoformat(timespec="seconds"),
        "artifacts": sorted(keys),
    }
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    try:
        (root / RUNS).mkdir(parents=True, exist_ok=True)
        with (root / RUNS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            # The line before may be half a line of a process that was killed.
            file.write("\n" + json.dumps(line))
    except OSError as error:
        if not is_read_only(error):
            raise


def registered(root: Path) -> Iterator[Run]:
    """Yield the run folders that a store lists, those that are gone included.

    Args:
        root: Folder of the store.
    """
    for path in sorted((root / RUNS).glob("*.jsonl")):
        hosts: set[str] = set()
        artifacts: dict[str, str] = {}
        folder = ""
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                fields = parse_json(line)
                folder, used = str(fields["folder"]), str(fields["used"])
                hosts.add(str(fields["host"]))
                artifacts |= {str(key): used for key in fields["artifacts"]}
            except (ValueError, LookupError, TypeError):
                continue
        if folder:
            yield Run(Path(folder), frozenset(hosts), artifacts, path)
