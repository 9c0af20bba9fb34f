"""GPUs leased by jobs that run side by side on one machine: each computes on one of its own.

A lease is the lock of a file in the machine's folder for temporary files, which the system releases
when the process ends, however it ends. It is taken before CUDA starts in a process, since CUDA
reads ``CUDA_VISIBLE_DEVICES`` once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
_PAUSE = 0.5
"""Seconds between two looks at devices that are all leased."""


def visible_devices() -> list[str]:
    """Return the GPUs that this process may use, without starting CUDA.

    Those of ``CUDA_VISIBLE_DEVICES`` as they are written there (numbers, UUIDs of GPUs or of MIG
    instances), up to the first that is none; otherwise the UUIDs that ``nvidia-smi`` lists.

    >>> import unittest.mock
    >>> with unittest.mock.patch.dict(os.environ, {VISIBLE: "2, MIG-41b3,-1,3"}):
    ...     visible_devices()
    ['2', 'MIG-41b3']
    """
    if (given := os.environ.get(VISIBLE)) is not None:
        names = [name.strip() for name in given.split(",")]
        usable = [bool(re.match(r"\d|GPU-|MIG-", name)) for name in names]
        return names[: [*usable, False].index(False)]
    return [device for gpu in _gpus() for device in gpu.devices]


@contextlib.contextmanager
def leased(devices: Sequence[str] | None = None) -> Iterator[str]:
    """Let a job compute on one GPU that no other job leases; wait until there is one.

    A worker that runs several jobs leases the same GPU for each: CUDA has started on it. A GPU that
    one job names by number and another by UUID is leased to one of them.

    Args:
        devices: Names as in ``CUDA_VISIBLE_DEVICES``; by default ``visible_devices()``.

    Yields:
        The name of the GPU, the only one in ``CUDA_VISIBLE_DEVICES`` from now on; empty where there
        is none.

    Raises:
        ValueError: Numbers do not say which GPUs are meant.
    """
    names = visible_devices() if devices is None else devices
    if not names:
        yield ""
        return
    name, lock = _first_free(names)
    os.environ[VISIBLE] = name
    log.info("this job computes on GPU %s", name)
    try:
        yield name
    finally:
        if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
            # What the next job on it may need.
            torch.cuda.empty_cache()
        lock.release()


def _first_free(names: Sequence[str]) -> tuple[str, FileLock]:
    folder = _folder()
    uuids = _uuids(names, _gpus())
    waiting = False
    while True:
        for name, uuid in zip(names, uuids, strict=True):
            # A file that stands for a lock would outlive a process that is killed.
            lock = FileLock(folder / f"{uuid.replace('/', '_')}.lock", fallback_to_soft=False)
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return name, lock
        if not waiting:
            log.info("waiting for one of %d GPUs, which other jobs compute on", len(names))
            waiting = True
        time.sleep(_PAUSE)


def _folder() -> Path:
    """Return the folder of the locks: of this machine and user, and of one allocation of SLURM.

    Two allocations may each call a GPU of their own by the same number.
    """
    name = "-".join(["fsasd-gpus", str(os.getuid()), *filter(None, [os.getenv("SLURM_JOB_ID")])])
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@dataclass(frozen=True)
class _Gpu:
    """A GPU; ``devices`` are its UUID, or those of its MIG instances."""

    number: str
    model: str
    uuid: str
    devices: list[str]


def _gpus() -> list[_Gpu]:
    """Return the GPUs that ``nvidia-smi`` lists; none where it does not answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False)
    return _parse(listed.stdout) if listed.returncode == 0 else []


def _parse(listed: str) -> list[_Gpu]:
    r"""Return what ``nvidia-smi -L`` lists.

    >>> listed = "GPU 0: A (UUID: GPU-1)\n  MIG 1g Device 0: (UUID: MIG-2)\nGPU 1: A (UUID: GPU-3)"
    >>> [(gpu.number, gpu.devices) for gpu in _parse(listed)]
    [('0', ['MIG-2']), ('1', ['GPU-3'])]
    """
    gpus: list[_Gpu] = []
    for block in re.split(r"^(?=GPU \d)", listed, flags=re.MULTILINE):
        first = re.match(r"GPU (\d+): (.*?) \(UUID: (GPU-[\w-]+)\)", block)
        if first is not None:
            instances = re.findall(r"UUID: (MIG-[\w/-]+)", block)
            gpus.append(_Gpu(first[1], first[2], first[3], instances or [first[3]]))
    return gpus


def _uuids(names: Sequence[str], gpus: Sequence[_Gpu]) -> list[str]:
    """Return the UUIDs of devices, however they are named.

    A GPU with MIG instances is the first of them, as for CUDA. What is not listed has its name.

    Args:
        names: Numbers, UUIDs or their beginnings.
        gpus: Those of this machine.

    Raises:
        ValueError: GPUs that differ are given by number: CUDA counts them in another order.
    """
    models = sorted({gpu.model for gpu in gpus})
    by_slot = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if len(models) > 1 and not by_slot and any(name.isdecimal() for name in names):
        raise ValueError(
            f"{VISIBLE}={','.join(names)}: expected UUIDs (nvidia-smi -L), found numbers of GPUs "
            f"that differ ({', '.join(models)}), which CUDA counts from the fastest on: name them "
            "by UUID, or count them by slot (CUDA_DEVICE_ORDER=PCI_BUS_ID)"
        )
    return [_uuid(name, gpus) for name in names]


def _uuid(name: str, gpus: Sequence[_Gpu]) -> str:
    whole = [gpu.devices[0] for gpu in gpus if name == gpu.number or gpu.uuid.startswith(name)]
    instances = [uuid for gpu in gpus for uuid in gpu.devices if uuid.startswith(name)]
    meant = whole or instances
    return meant[0] if len(meant) == 1 else name
