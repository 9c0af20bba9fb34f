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
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False)
    return _uuids(listed.stdout) if listed.returncode == 0 else []


@contextlib.contextmanager
def leased(devices: Sequence[str] | None = None) -> Iterator[str]:
    """Let a job compute on one GPU that no other job leases; wait until there is one.

    A worker that runs several jobs leases the same GPU for each: CUDA has started on it.

    Args:
        devices: Names as in ``CUDA_VISIBLE_DEVICES``; by default ``visible_devices()``.

    Yields:
        The name of the GPU, the only one in ``CUDA_VISIBLE_DEVICES`` from now on; empty where there
        is none.
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
    waiting = False
    while True:
        for name in names:
            # A file that stands for a lock would outlive a process that is killed.
            lock = FileLock(folder / f"{name.replace('/', '_')}.lock", fallback_to_soft=False)
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


def _uuids(listed: str) -> list[str]:
    r"""Return the devices that ``nvidia-smi -L`` lists: MIG instances instead of what they are of.

    >>> _uuids("GPU 0: A (UUID: GPU-1)\n  MIG 1g Device 0: (UUID: MIG-2)\nGPU 1: A (UUID: GPU-3)")
    ['MIG-2', 'GPU-3']
    """
    devices: list[str] = []
    for uuid in re.findall(r"UUID: ((?:GPU|MIG)-[\w/-]+)", listed):
        if uuid.startswith("MIG-") and devices and devices[-1].startswith("GPU-"):
            devices.pop()
        devices.append(uuid)
    return devices
