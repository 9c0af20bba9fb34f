"""The processes (ranks) of one command: which one this is, and messages between them.

Ranks exchange short texts through a ``torch.distributed.TCPStore``, which is there before Lightning
has initialised ``torch.distributed`` and while rank 0 does something else for hours. A collective
is neither, and it cannot express that one of the ranks has failed.

Its address is known to all ranks without a message between them:

- torchrun has such a store at ``MASTER_ADDR:MASTER_PORT``, which is used;
- ranks that SLURM starts, or a user on several nodes, find rank 0 as Lightning does
  (``MASTER_ADDR``, the first node of the job), at a port 10,000 above or below that of Lightning;
- ranks that Lightning starts inherit it (``FSASD_RANKS``) from rank 0, which listens on a free port
  of the loopback interface.

Torch is imported where ranks talk to one another: a command of one process asks for its rank, too,
before it is known whether anything is to be computed.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    import torch.distributed as dist
    from lightning.pytorch.plugins.environments import ClusterEnvironment

log = logging.getLogger(__name__)

_ADDRESS = "FSASD_RANKS"
_ENDED = "ended"
_GRACE = 30.0
"""Seconds that rank 0 waits at its end for the others."""


def rank() -> int:
    """Return this process's rank among those of one command; 0 where it is the only one.

    Before ``torch.distributed`` is initialised, ranks above 0 may get another number above 0.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_initialized():
        return dist.get_rank()
    if number := os.environ.get("RANK"):
        return int(number)
    # In an interactive SLURM job, processes that Lightning starts inherit the shell's SLURM_PROCID.
    # On nodes that are started by hand, the first process is not the first of all.
    names = ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return max(int(os.environ.get(name) or 0) for name in names)


def has_other_ranks() -> bool:
    """Return whether this process is, or may be, one of several ranks of its command."""
    return rank() > 0 or (_cluster() is not None and not _is_alone())


def broadcast(name: str, text: str) -> None:
    """Answer a question of the other ranks; called by rank 0.

    Args:
        name: What is answered, the same on all ranks. A second answer replaces the first.
        text: The answer.
    """
    with _asking():
        _store().set(name, text)


def receive(name: str) -> str:
    """Wait for what rank 0 broadcasts, for however long; called by the other ranks.

    Raises:
        RankError: Rank 0 is gone, or a rank has ended without the others.
    """
    pause = 0.01
    while not _exists(name):
        if failed := failure():
            raise RankError(failed.reason)
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    with _asking():
        return _store().get(name).decode()


def agree(name: str, text: str) -> str:
    """Return what rank 0 calls this function with, on all ranks that were started at once.

    Not for processes that Lightning starts later: they inherit the environment of rank 0.

    Args:
        name: What is asked for, the same on all ranks.
        text: The answer, if this is rank 0.
    """
    if _cluster() is None or _is_alone():
        return text
    if rank() > 0:
        return receive(name)
    broadcast(name, text)
    return text


def add(name: str, number: int) -> int:
    """Add to a count that all ranks share, and return the sum; a count begins with 0."""
    with _asking():
        return _store().add(name, number)


def end_all(reason: str) -> NoReturn:
    """End this process, and let the others end for this reason (see ``failure``)."""
    log.error("rank %d: %s: ending all ranks", rank(), reason)
    with contextlib.suppress(RankError):
        _end_others(reason, code=1)
    os._exit(1)


def leave() -> None:
    """Let this process end by itself, however the other ranks end."""
    global _leaves
    _leaves = True


def leave_and_end_others(reason: str, code: int) -> None:
    """Let this process end by itself, and the other ranks for this reason (see ``failure``).

    Where all ranks leave, each of them ends by itself.

    Args:
        reason: Why.
        code: With which the others exit.
    """
    if _shared is not None and not _leaves:
        with contextlib.suppress(RankError):
            _end_others(reason, code)
    leave()


class Failure(NamedTuple):
    """Why a process cannot go on with the other ranks, and the exit code that says so."""

    reason: str
    code: int = 1


def failure() -> Failure | None:
    """Return why this process cannot go on with the other ranks; ``None`` if it can."""
    if (store := _shared) is None or _leaves:
        return None
    try:
        with _asking():
            ended = store.get(_ENDED).decode() if store.check([_ENDED]) else ""
    except RankError as error:
        return Failure(str(error))
    code, _, reason = ended.partition(" ")
    return Failure(reason, int(code)) if ended else None


class RankError(RuntimeError):
    """Another rank has failed, or is gone."""


def _end_others(reason: str, code: int) -> None:
    broadcast(_ENDED, f"{code} rank {rank()}: {reason}")


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    import torch.distributed as dist

    try:
        yield
    except dist.DistError as error:
        raise RankError(f"rank 0 is gone ({str(error).partition(chr(10))[0]})") from error


def _exists(name: str) -> bool:
    with _asking():
        return _store().check([name])


def _cluster() -> ClusterEnvironment | None:
    """Return what started all ranks at once; None where rank 0 is to start the others."""
    by_hand = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys()
    if not by_hand and os.environ.keys().isdisjoint({"TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"}):
        return None
    from lightning.pytorch.plugins.environments import (
        LightningEnvironment,
        SLURMEnvironment,
        TorchElasticEnvironment,
    )

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    # Only srun starts steps; in a batch script there is one process of however many tasks.
    if "SLURM_STEP_ID" in os.environ and SLURMEnvironment.detect():
        return SLURMEnvironment()
    return LightningEnvironment() if by_hand else None


def _is_alone() -> bool:
    cluster = _cluster()
    # Lightning's environment does not know how many there are.
    if cluster is None or _started_by(cluster) == "LightningEnvironment":
        return False
    return cluster.world_size() == 1


def _started_by(cluster: ClusterEnvironment | None) -> str:
    return type(cluster).__name__


_shared: dist.Store | None = None
_leaves = False


def _store() -> dist.Store:
    global _shared
    if _shared is None:
        _shared = _connect()
    return _shared


def _connect() -> dist.Store:
    """Return what all ranks share, or what a process has that is the only one."""
    import torch.distributed as dist

    cluster = _cluster()
    if _is_alone():
        return dist.HashStore()
    if _started_by(cluster) == "TorchElasticEnvironment" and _torchrun_has_a_store():
        assert cluster is not None
        store = dist.TCPStore(cluster.main_address, cluster.main_port, wait_for_workers=False)
        # After a restart it is still the same one.
        return dist.PrefixStore(f"fsasd {os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store)
    host, port = _address(cluster)
    if rank() > 0:
        store = dist.TCPStore(host, port, wait_for_workers=False)
        store.add("came", 1)
        atexit.register(_leave, store)
        return store
    try:
        listening = socket.create_server(("" if cluster else host, port))
    except OSError as error:
        raise OSError(
            f"rank 0 cannot listen at port {port} for the other ranks ({error}): set MASTER_PORT "
            "to another value"
        ) from error
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        host, port, is_master=True, master_listen_fd=listening.detach(), wait_for_workers=False
    )
    os.environ[_ADDRESS] = f"{host}:{port}"
    # Of those that are started by hand, Lightning's environment does not know the number.
    by_hand = int(os.environ.get("WORLD_SIZE") or 2)
    number = max(by_hand, cluster.world_size()) if cluster else 1
    atexit.register(_wait_for_others, store, number - 1)
    return store


def _torchrun_has_a_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _address(cluster: ClusterEnvironment | None) -> tuple[str, int]:
    """Return where rank 0 listens: host and port, 0 for any that is free."""
    # Those that Lightning starts have a local rank; others may inherit the address of another run.
    of_lightning = rank() > 0 and os.environ.get("LOCAL_RANK") and os.environ.get(_ADDRESS)
    at_once = ("TorchElasticEnvironment", "SLURMEnvironment")
    if of_lightning and _started_by(cluster) not in at_once:
        host, _, number = os.environ[_ADDRESS].rpartition(":")
        return host, int(number)
    if cluster is None:
        if rank() > 0:
            raise RankError(
                f"rank {rank()}: expected the address of rank 0 in {_ADDRESS}, or in MASTER_ADDR "
                "and MASTER_PORT, and found neither"
            )
        return "127.0.0.1", 0
    port = cluster.main_port
    return cluster.main_address, port + 10_000 if port < 55_536 else port - 10_000


def _leave(store: dist.Store) -> None:
    global _shared
    # From now on rank 0 may go.
    _shared = None
    import torch.distributed as dist

    with contextlib.suppress(dist.DistError):
        store.add("left", 1)


def _wait_for_others(store: dist.Store, others: int) -> None:
    """Keep the store for those that have yet to read from it."""
    deadline = time.monotonic() + _GRACE
    while store.add("left", 0) < max(others, store.add("came", 0)):
        if time.monotonic() > deadline or store.check([_ENDED]):
            break
        time.sleep(0.05)
