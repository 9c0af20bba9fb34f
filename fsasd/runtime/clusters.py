"""Clusters of Ray: one that runs is joined, or one is started on this machine."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsasd.runtime.signals import ENDING

_LEAST_MEMORY = 75 * 2**20
"""Bytes of a new cluster's object store, the fewest that Ray allows: what jobs and sections share
are files."""


def start_ray(**settings: Any) -> None:
    """Join a cluster, or start one, and leave this process the handlers of signals that it has.

    Ray would handle SIGTERM itself, and end the process within three seconds by SIGABRT. Workers
    of a cluster that is joined work in the folder of this process, with its variables ``FSASD_*``,
    as those of one that is started do.

    Args:
        **settings: Of ``ray.init``; without an ``address`` there or in ``RAY_ADDRESS``, a cluster
            is started.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: There is no cluster at the address.
    """
    ray = importlib.import_module("ray")
    ours: dict[str, Any] = {"object_store_memory": _LEAST_MEMORY}
    if (settings.get("address") or os.environ.get("RAY_ADDRESS") or "local") != "local":
        # Ray refuses to join a cluster with such a setting, and starts its workers elsewhere.
        ours = {"runtime_env": {"worker_process_setup_hook": _surroundings()}}
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        ray.init(**(ours | settings))
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def leave_cluster() -> None:
    """Leave the cluster that this process has joined, if any, and end one that it has started."""
    if ray := sys.modules.get("ray"):
        ray.shutdown()


def _surroundings() -> Callable[[], None]:
    """Return a function that makes a worker's folder and variables those of this process."""
    folder = Path.cwd()
    variables = {name: value for name, value in os.environ.items() if name.startswith("FSASD_")}

    def surround() -> None:
        os.chdir(folder)
        os.environ.update(variables)

    return surround
