"""Artifacts: where the result of a stage lives, and when it may be used again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from filelock import FileLock, Timeout
from torch.distributed.distributed_c10d import _get_default_store

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
                _tell(present and not force)
            if not present or force:
                build = build if alone else _all_or_none(build)
                self._build(path, recipe, build, anew=force)
        if not alone:
            _tell(True)
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
        _turn(path).write_text(_launch())
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
            reuse = _hear()
        else:
            # Lightning starts the other ranks from within the first rank's build. Where all are
            # started at once, the first may yet have to wait for another job.
            while not (reuse := path.is_dir() and not force) and not _is_our_turn(path):
                time.sleep(1)
        if not reuse:
            _all_or_none(build)(path.with_name(f"{path.name}.partial"))
        _hear()
        return path


def _seconds(artifact: Path) -> float:
    told = artifact / "built.json"
    return json.loads(told.read_text())["seconds"] if told.is_file() else 0.0


def rank() -> int:
    """Return this process's rank among those of one training run."""
    if dist.is_initialized():
        return dist.get_rank()
    if told := os.environ.get("RANK"):
        return int(told)
    # In an interactive SLURM job, processes that Lightning starts inherit the shell's SLURM_PROCID.
    # On nodes that are started by hand, the first process is not the first of all.
    names = ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return max(int(os.environ.get(name) or 0) for name in names)


def _launch() -> str:
    """Return what ranks have in common that are started at once, by torchrun, SLURM or hand.

    Empty for those that Lightning starts.
    """
    if os.environ.get("RANK"):
        names = ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"]
    elif rank() == int(os.environ.get("SLURM_PROCID") or -1):
        names = ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"]
    elif os.environ.get("MASTER_ADDR") and not int(os.environ.get("LOCAL_RANK") or 0):
        names = ["MASTER_ADDR", "MASTER_PORT"]
    else:
        return ""
    return " ".join(f"{name}={os.environ.get(name, '')}" for name in names)


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
    launch = _launch()
    try:
        return not launch or _turn(path).read_text() == launch
    except FileNotFoundError:
        return False


# Ranks talk through the store by which they found one another: a collective would give up when the
# first rank does something else for as long as detection may take.
_told = 0
_PATIENCE = timedelta(days=30)
_GRACE = 30.0


def _tell(value: bool) -> None:
    if dist.is_initialized():
        _get_default_store().set(_next_word(), str(int(value)))


def _hear() -> bool:
    if not dist.is_initialized():
        return False
    word = _next_word()
    _get_default_store().wait([word], _PATIENCE)
    return bool(int(_get_default_store().get(word)))


def _next_word() -> str:
    global _told
    _told += 1
    return f"fsasd/told/{_told}"


def _all_or_none(build: Callable[[Path], object]) -> Callable[[Path], None]:
    """Let a build end the process if it fails where the other ranks' builds do not.

    They would wait for it for long. Where all of them fail, a sweep goes on with its next job.
    """

    def built(folder: Path) -> None:
        try:
            build(folder)
        except Exception as error:
            if dist.is_initialized() and not _failed_everywhere(folder):
                log.error("rank %d failed, and other ranks did not: ending all. %s", rank(), error)
                os._exit(1)
            raise

    return built


def _failed_everywhere(folder: Path) -> bool:
    word, ranks = f"fsasd/failed/{folder.name}", dist.get_world_size()
    failures = _get_default_store().add(word, 1)
    # The same may have failed in an earlier job.
    all_of_them = -(-failures // ranks) * ranks
    deadline = time.monotonic() + _GRACE
    while failures < all_of_them and time.monotonic() < deadline:
        time.sleep(0.2)
        failures = _get_default_store().add(word, 0)
    return failures >= all_of_them
