"""Garbage collection: the artifacts that no run uses are deleted, and leave their provenance."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from fsasd.store.listing import COLLECTED, Artifact, artifacts, entry, is_locked, lock_path
from fsasd.store.locks import file_lock
from fsasd.store.registry import Run, registered

_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Garbage:
    """What may be collected of a store.

    Attributes:
        artifacts: That no run uses.
        unknown: Run folders of other machines, of which this one cannot know whether they are
            there; what they use is not collected.
    """

    artifacts: Sequence[Artifact]
    unknown: Sequence[Run]


def garbage(root: Path, days: float = 0) -> Garbage:
    """Return the artifacts of a store that no run folder uses, itself or as an input.

    Those that are being built are left out. Unfinished and damaged ones are included.

    Args:
        root: Folder of the store.
        days: Only what was neither built nor used for so long.
    """
    runs = list(registered(root))
    there = {run.file: run.exists(root) for run in runs}
    entries = [artifact for artifact in artifacts(root) if artifact.state != "collected"]
    used = {key for run in runs if there[run.file] is not False for key in run.artifacts}
    used |= {artifact.key for artifact in entries if artifact.state == "building"}
    used = _with_inputs(used, entries)
    last_use: dict[str, str] = {}
    for run in runs:
        for key, when in run.artifacts.items():
            last_use[key] = max(when, last_use.get(key, ""))
    before = time.time() - days * _DAY
    unused = [
        artifact
        for artifact in entries
        if (artifact.key not in used or artifact.state == "replaced")
        and _last_use(artifact, last_use.get(artifact.key)) <= before
        and not is_locked(artifact.final)
    ]
    return Garbage(unused, [run for run in runs if there[run.file] is None])


def collect(artifact: Artifact) -> bool:
    """Delete an artifact; its key and provenance are left.

    Args:
        artifact: Of a store.

    Returns:
        Whether it was deleted: not if some process is building it, or has built it anew.

    Raises:
        OSError: Its files cannot be deleted.
    """
    lock = file_lock(lock_path(artifact.final), mode=0o664)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        if not artifact.path.is_dir() or entry(artifact.path).provenance != artifact.provenance:
            return False
        now = datetime.now(UTC).isoformat(timespec="seconds")
        provenance = artifact.provenance and replace(artifact.provenance, collected=now)
        left = artifact.path.with_name(artifact.key + COLLECTED)
        with contextlib.suppress(OSError):
            # On a full disk there is room only after files were deleted.
            if provenance:
                provenance.write(left)
        removed = artifact.path.with_name(f"{artifact.key}.replaced")
        if removed != artifact.path:
            shutil.rmtree(removed, ignore_errors=True)
            artifact.path.rename(removed)
        shutil.rmtree(removed)
        if provenance and not left.is_file():
            provenance.write(left)
    finally:
        lock.release()
    return True


def forget_runs(root: Path) -> list[Run]:
    """Delete what a store notes of run folders that are gone with all that they used.

    Args:
        root: Folder of the store.

    Returns:
        The runs that it no longer lists.
    """
    # When an artifact was last used counts, too, where nobody uses it any more.
    keys = {artifact.key for artifact in artifacts(root) if artifact.state != "collected"}
    gone = [
        run
        for run in registered(root)
        if not keys.intersection(run.artifacts) and run.exists(root) is False
    ]
    for run in gone:
        run.file.unlink(missing_ok=True)
    return gone


def _with_inputs(keys: set[str], entries: Sequence[Artifact]) -> set[str]:
    inputs = {
        artifact.key: artifact.description.inputs for artifact in entries if artifact.description
    }
    used, left = set(keys), list(keys)
    while left:
        for key in inputs.get(left.pop(), {}).values():
            if key not in used:
                used.add(key)
                left.append(key)
    return used


def _last_use(artifact: Artifact, used: str | None) -> float:
    """Return when an artifact was last written or used, seconds since 1970."""
    times = [artifact.path.stat().st_mtime]
    with contextlib.suppress(OSError):
        times += [path.stat().st_mtime for path in artifact.path.iterdir()]
    if used:
        with contextlib.suppress(ValueError):
            times.append(datetime.fromisoformat(used).timestamp())
    return max(times)
