"""The folder in which an artifact is built, from its first file to its place in the store."""

from __future__ import annotations

import contextlib
import json
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fsasd.settings.files import read_json
from fsasd.store.atomic import UNFINISHED, replace_folder, write_text
from fsasd.store.key import Description
from fsasd.store.listing import COLLECTED, PARTIAL
from fsasd.store.provenance import BUILDING, PROVENANCE, Provenance, StoreError
from fsasd.store.verifying import remember


def partial_path(path: Path) -> Path:
    """Return the folder in which an artifact is built.

    Args:
        path: Of the complete artifact.
    """
    return path.with_name(f"{path.name}{PARTIAL}")


def build_in(partial: Path, wanted: Description, build: Callable[[Path], object]) -> None:
    """Build an artifact in its folder, and write its provenance.

    Args:
        partial: The folder, which may hold what an interrupted build has left.
        wanted: What determines the artifact.
        build: Fills the folder.
    """
    partial.mkdir(exist_ok=True)
    _make_writable(partial)
    started, before = _begin(partial, wanted)
    begun = time.monotonic()
    try:
        build(partial)
    finally:
        seconds = before + time.monotonic() - begun
        # Where the disk is full, its own error says so.
        with contextlib.suppress(OSError):
            _note(partial, wanted, started, seconds)
    Provenance.of(wanted, partial, started, seconds).write(partial / PROVENANCE)


def is_built(partial: Path, wanted: Description) -> bool:
    """Return whether a build was killed between its end and the renaming of its folder.

    A provenance of files that are damaged is deleted: the build is to go on.

    Args:
        partial: The folder, there or not.
        wanted: What determines the artifact.
    """
    provenance = partial / PROVENANCE
    with contextlib.suppress(StoreError):
        if not provenance.is_file():
            return False
        written = Provenance.read(provenance)
        if written.key == wanted.key and written.damage(partial) is None:
            return True
    provenance.unlink()
    return False


def publish(partial: Path, path: Path) -> None:
    """Give an artifact that is built its place in the store, with files that are read-only.

    Args:
        partial: Its folder.
        path: Its place. An artifact that is there is replaced.
    """
    for file in partial.rglob("*"):
        if not file.is_file() or file.is_symlink():
            continue
        if file.name == BUILDING or file.name.endswith(UNFINISHED):
            file.unlink()
        else:
            # That of another user, who began the build, is as that user left it.
            with contextlib.suppress(PermissionError):
                file.chmod(0o444)
    replace_folder(partial, path)
    path.with_name(path.name + COLLECTED).unlink(missing_ok=True)
    remember(path)


def _make_writable(partial: Path) -> None:
    """Let a build replace what an earlier one was about to publish."""
    for file in partial.rglob("*"):
        if file.is_file() and not file.stat().st_mode & stat.S_IWUSR:
            with contextlib.suppress(PermissionError):
                file.chmod(file.stat().st_mode | stat.S_IWUSR)


def _begin(partial: Path, wanted: Description) -> tuple[str, float]:
    """Note that a build begins; return when the first one did, and what all took so far."""
    started, seconds = datetime.now(UTC).isoformat(timespec="microseconds"), 0.0
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, OverflowError):
        noted = read_json(partial / BUILDING)
        started, seconds = str(noted["started"]), float(noted["seconds"])
        if since := noted["since"]:
            # It was killed: its last file tells until when it went on at least.
            last = max(path.stat().st_mtime for path in partial.rglob("*"))
            seconds += max(last - since, 0.0)
    _note(partial, wanted, started, seconds, time.time())
    return started, seconds


def _note(
    partial: Path, wanted: Description, started: str, seconds: float, since: float | None = None
) -> None:
    fields = {**wanted.to_json(), "started": started, "seconds": seconds, "since": since}
    write_text(partial / BUILDING, json.dumps(fields, indent=1) + "\n")
