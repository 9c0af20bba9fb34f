"""Whether artifacts are what was built: each is read once in a process."""

from __future__ import annotations

from pathlib import Path

from fsasd.store.provenance import PROVENANCE, Provenance, StoreError

_verified: set[tuple[str, int, int]] = set()


def damage_of(artifact: Path) -> str | None:
    """Return what is damaged of an artifact, expected and found; None if it is whole.

    Files of up to 64 MB are read the first time that a process asks; of larger ones the size is
    compared.

    Args:
        artifact: Its folder, which is there.

    Raises:
        OSError: A file cannot be opened, which says nothing of what it holds.
    """
    try:
        identity = _identity(artifact)
        if identity in _verified:
            return None
        provenance = Provenance.read(artifact / PROVENANCE)
    except FileNotFoundError:
        return f"{PROVENANCE}: expected a file, found none"
    except StoreError as error:
        return str(error)
    if provenance.key != artifact.name:
        return f"{PROVENANCE}: expected that of {artifact.name}, found that of {provenance.key}"
    damage = provenance.damage(artifact)
    if damage is None:
        _verified.add(identity)
    return damage


def remember(artifact: Path) -> None:
    """Take an artifact for whole from now on: this process has just built it."""
    _verified.add(_identity(artifact))


def forget() -> None:
    """Read all artifacts anew, as another process would."""
    _verified.clear()


def _identity(artifact: Path) -> tuple[str, int, int]:
    status = (artifact / PROVENANCE).stat()
    return str(artifact), status.st_ino, status.st_mtime_ns
