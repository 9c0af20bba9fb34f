"""Which of several processes this is, and what they tell one another."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

log = logging.getLogger(__name__)


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


def launch() -> str:
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


# Ranks talk through the store by which they found one another: a collective would give up when the
# first rank does something else for as long as detection may take.
_told = 0
_PATIENCE = timedelta(days=30)
_GRACE = 30.0


def broadcast(value: bool) -> None:
    if dist.is_initialized():
        _get_default_store().set(_next_word(), str(int(value)))


def receive() -> bool:
    if not dist.is_initialized():
        return False
    word = _next_word()
    _get_default_store().wait([word], _PATIENCE)
    return bool(int(_get_default_store().get(word)))


def _next_word() -> str:
    global _told
    _told += 1
    return f"fsasd/told/{_told}"


def all_or_none(build: Callable[[Path], object]) -> Callable[[Path], None]:
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
