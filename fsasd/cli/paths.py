"""Relative paths of the configuration, where jobs run in folders of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

_PATHS = frozenset({"store", "cache", "root", "ground_truth", "manifest"})
"""Settings that are paths, whether there is something or not."""


def keep_paths(cfg: DictConfig, folder: str | Path) -> None:
    """Make relative paths of the configuration absolute if the current folder is another one.

    With ``hydra.job.chdir=true`` a job runs in its output folder, and its store would be in there.
    Another text than those of ``store``, ``cache``, ``data.root``, ``ground_truth`` and
    ``manifest`` is a path if there is such a file: ``generator.checkpoint`` may be the name of a
    model, too.

    Args:
        cfg: The configuration; it is changed.
        folder: The folder that paths are relative to: that in which the command was given.
    """
    if Path.cwd() != Path(folder):
        _keep(cfg, Path(folder))


def _keep(node: Any, folder: Path, always: bool = False) -> None:
    keys: Any = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if OmegaConf.is_missing(node, key):
            continue
        wanted = always or key in _PATHS
        if OmegaConf.is_interpolation(node, key) and not wanted:
            continue
        value = node[key]
        if isinstance(value, (DictConfig, ListConfig)):
            _keep(value, folder, wanted)
        elif isinstance(value, str) and value and (wanted or _exists(folder / value)):
            node[key] = str(folder / value)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A sentence, for instance, may be too long for a name.
        return False
