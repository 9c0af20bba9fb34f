"""Values that the configuration computes.

Launchers of sweeps pickle ``main`` by value, and read the configuration in another process before
they call it. ``main`` names this module, so that it is imported there: it must stay light.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf


def register() -> None:
    """Make the resolvers known to OmegaConf."""
    OmegaConf.register_new_resolver("fsasd.grid", grid, replace=True)
    # The jobs of a sweep get what these were when it began, wherever they run.
    for name, resolver in (
        ("fsasd.folder", folder),
        ("fsasd.command", command_folder),
        ("fsasd.started", command_started),
        ("fsasd.sweep", sweep_name),
        ("fsasd.title", overrides_title),
    ):
        OmegaConf.register_new_resolver(name, resolver, replace=True, use_cache=True)


def command_started() -> str:
    """Return when the command began, UTC in ISO 8601: the same for all its jobs and ranks."""
    return _once("FSASD_STARTED", lambda: datetime.now(UTC).isoformat())


def folder(root: str) -> str:
    """Make a folder of this command, the same for all its jobs and ranks.

    It is named by the time, and has a number behind it if another command has that name.

    Args:
        root: Where to make it.
    """
    return str(Path(root) / command_folder(root))


def command_folder(root: str) -> str:
    """Make a folder of this command (see ``folder``), and return its name.

    Args:
        root: Where to make it.
    """
    return _once("FSASD_FOLDER", lambda: _make_folder(Path(root)))


def sweep_name() -> str | None:
    """Return the name of the folder of the sweep that this is a job of."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).resolve().name


def overrides_title() -> str | None:
    """Return what the command line says, without where things are; at most 128 characters."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    named = [one for one in overrides if re.split(r"[.=]", one)[0] not in ("store", "logger")]
    return " ".join(named)[:128] or None


def grid(start: float, stop: float, step: float) -> list[float]:
    """Return numbers in equal steps, both ends included.

    >>> grid(0, 0.3, 0.1)
    [0.0, 0.1, 0.2, 0.3]
    """
    count = round((float(stop) - float(start)) / float(step)) + 1
    return [round(float(start) + i * float(step), 10) for i in range(count)]


def _once(variable: str, value: Callable[[], str]) -> str:
    """Return a value that jobs and ranks inherit, or that ranks started at once agree on."""
    if variable not in os.environ:
        # Torch is loaded where a command begins, not where its jobs do.
        from fsasd.runtime.ranks import agree, rank

        os.environ[variable] = agree(variable, value() if rank() == 0 else "")
    return os.environ[variable]


def _make_folder(root: Path) -> str:
    stem = time.strftime("%Y-%m-%d_%H-%M-%S")
    if task := os.environ.get("SLURM_ARRAY_TASK_ID"):
        stem += f"_{task}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    root.mkdir(parents=True, exist_ok=True)
    return next(name for name in names if _is_new(root / name))


def _is_new(path: Path) -> bool:
    """Make a folder, and return whether there was none."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


register()
