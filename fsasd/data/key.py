"""What the key of a result holds beside the settings: code and files of others, batches."""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fsasd.data.clips import identity

_PRETRAINED = ("checkpoint", "encoder", "path", "audio_clap")
"""Settings that may name a file or folder with weights."""


def digest(parts: Iterable[str]) -> str:
    """Return the SHA-256 of texts, one a line.

    >>> digest(["a", "b"]) == digest(["b", "a"])
    False
    """
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def foreign(*settings: Any) -> dict[str, str]:
    """Return what settings refer to that no version of ours tells: code, and local weights.

    Args:
        settings: Plain ones (dicts, lists, values) with Hydra's ``_target_``.

    Returns:
        ``code``, a digest of the files of classes that are of others; ``weights``, of which
        files stand where a pretrained part is read from, and since when. Empty without any.

    >>> foreign({"_target_": "fsasd.detectors.knn.KNN", "k": 1})
    {}
    >>> list(foreign([{"_target_": "sklearn.covariance.LedoitWolf"}]))
    ['code']
    """
    names = sorted({name for name in _named("_target_", settings) if not _is_ours(name)})
    modules = [inspect.getmodule(pkgutil.resolve_name(name)) for name in names]
    code = [file for module in modules if (file := getattr(module, "__file__", None))]
    places = sorted({place for key in _PRETRAINED for place in _named(key, settings)})
    weights = [file for place in places for file in _files(Path(place))]
    found = {}
    if code:
        found["code"] = digest(Path(file).read_bytes().hex() for file in code)
    if weights:
        found["weights"] = digest(map(identity, weights))
    return found


def packages(settings: Any) -> set[str]:
    """Return the packages of the classes that settings name.

    >>> packages([{"_target_": "my_package.loudness.Loudness"}])
    {'my_package'}
    """
    return {name.partition(".")[0] for name in _named("_target_", settings)}


def examples_per_step(batch_size: int, trainer: Mapping[str, Any]) -> int | str:
    """Return how many examples a step has, on all devices together.

    Where the number of devices is that of the machine (``-1``, ``auto``), that is all that is known
    of it, and runs that differ in nothing else are taken for the same.

    Args:
        batch_size: Of a process.
        trainer: Settings of ``lightning.Trainer``.

    >>> examples_per_step(4, {"devices": 8}) == examples_per_step(32, {"devices": [3]}) == 32
    True
    >>> examples_per_step(4, {"devices": -1, "num_nodes": 2})
    '8 a device, devices=-1'
    """
    devices = trainer.get("devices") or 1
    some = batch_size * (trainer.get("num_nodes") or 1)
    some *= trainer.get("accumulate_grad_batches") or 1
    count = len(devices) if isinstance(devices, list) else devices
    if isinstance(count, str) and count.isdecimal():
        count = int(count)
    if isinstance(count, int) and count > 0:
        return some * count
    return f"{some} a device, devices={devices}"


def _is_ours(name: str) -> bool:
    # Lightning runs every training; another version of it is no reason to train again.
    return name.startswith(("fsasd.", "lightning."))


def _named(key: str, settings: Any) -> Iterator[str]:
    if isinstance(settings, Mapping):
        if isinstance(value := settings.get(key), str):
            yield value
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for value in settings:
            yield from _named(key, value)


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else []
