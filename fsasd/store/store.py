"""Artifacts: where the result of a stage lives, and when it may be used again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from filelock import FileLock, Timeout

from fsasd.runtime.ranks import all_or_none, broadcast, launch, rank, receive

log = logging.getLogger(__name__)

BESIDE = ("recipe.json", "built.json")
"""What an artifact holds beside its result: what determines it, and how long it took."""


class Store:
    """A folder of artifacts, each under a key made of everything that determines it.

    An artifact is built in ``<stage>/<key>.partial`` and renamed when it is complete: what stands
    under its final name is whole. A build that was interrupted finds its partial folder again and
    may go on in it. Jobs that need an artifact which another is making wait for that one.

    With several ranks, the first decides and holds the lock; the others build beside it.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> def build(folder): _ = (folder / "answer").write_text("42")
    >>> made = store.make("compute", {"question": 1}, build)
    >>> made == store.make("compute", {"question": 1}, build), (made / "answer").read_text()
    (True, '42')
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()

    def path(self, stage: str, recipe: Mapping[str, Any]) -> Path:
        """Return where the artifact of a recipe lives, made or not."""
        text = json.dumps(recipe, sort_keys=True, default=str)
        return self.root / stage / hashlib.sha256(text.encode()).hexdigest()[:16]

    def seconds(self, stage: str, recipe: Mapping[str, Any]) -> float:
        """Return how long an artifact took to build, all attempts together but those killed."""
        return _seconds(self.path(stage, recipe))

    def make(
        self,
        stage: str,
        recipe: Mapping[str, Any],
        build: Callable[[Path], object],
        *,
        force: bool = False,
        alone: bool = False,
    ) -> Path:
        """Return the artifact of a recipe, built if it is not there.

        Args:
            stage: Name of the stage, a folder of the store.
            recipe: All that determines the result; JSON, other values by their ``str``.
            build: Fills the folder that it is given.
            force: Build anew, also when it is there.
            alone: One process builds it, whichever of the ranks asks first; otherwise all ranks
                ask together, and build together.
        """
        path = self.path(stage, recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        if rank() > 0 and not alone:
            return self._beside(path, build, force)
        with _locked(path):
            present = path.is_dir()
            if present and not force:
                log.info("%s: reusing %s", stage, path)
            if not alone:
                broadcast(present and not force)
            if not present or force:
                build = build if alone else all_or_none(build)
                self._build(path, recipe, build, anew=force)
        if not alone:
            broadcast(True)
        return path

    def _build(
        self, path: Path, recipe: Mapping[str, Any], build: Callable[[Path], object], anew: bool
    ) -> None:
        partial = path.with_name(f"{path.name}.partial")
        if anew:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        text = json.dumps(recipe, sort_keys=True, default=str, indent=2)
        (partial / "recipe.json").write_text(text + "\n")
        log.info("%s: building %s", path.parent.name, path)
        _turn(path).write_text(launch())
        before, started = _seconds(partial), time.monotonic()
        try:
            build(partial)
        finally:
            taken = round(before + time.monotonic() - started, 3)
            # Where the disk is full, its own error says so.
            with contextlib.suppress(OSError):
                (partial / "built.json").write_text(json.dumps({"seconds": taken}) + "\n")
        if path.is_dir():
            shutil.rmtree(path)
        partial.rename(path)
        _turn(path).unlink()

    def _beside(self, path: Path, build: Callable[[Path], object], force: bool) -> Path:
        if dist.is_initialized():
            reuse = receive()
        else:
            # Lightning starts the other ranks from within the first rank's build. Where all are
            # started at once, the first may yet have to wait for another job.
            while not (reuse := path.is_dir() and not force) and not _is_our_turn(path):
                time.sleep(1)
        if not reuse:
            all_or_none(build)(path.with_name(f"{path.name}.partial"))
        receive()
        return path


def _seconds(artifact: Path) -> float:
    told = artifact / "built.json"
    return json.loads(told.read_text())["seconds"] if told.is_file() else 0.0


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another job that is building %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _turn(path: Path) -> Path:
    return path.with_name(f"{path.name}.turn")


def _is_our_turn(path: Path) -> bool:
    ours = launch()
    try:
        return not ours or _turn(path).read_text() == ours
    except FileNotFoundError:
        return False
