"""The files of a saved detector: settings as JSON, arrays as safetensors, never a pickle.

Networks that the detectors of several sections share are saved once, in a folder ``shared/``, in
files named by the sha256 of their content, to which ``detector.json`` refers. The reference is
relative to the section's folder or to one of the two above it, so that ``models/``
(``models/shared/`` and ``models/<machine>/section_<nn>/``) can be moved as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save, save_file

from fsasd.settings.files import parse_json

FORMAT = 2
"""Version of the files; 2 refers to shared networks."""

SETTINGS = "detector.json"
ARRAYS = "detector.safetensors"

SHARED = "shared"
"""Folder of the networks that several sections share."""

_HASHED = re.compile(r"([0-9a-f]{64})\.safetensors")
_REFERENCE = re.compile(rf"{SHARED}/{_HASHED.pattern}")

_MOVED = {
    "fsasd.detectors.classifier": "fsasd.detectors.networks.classifier",
    "fsasd.detectors.near_far": "fsasd.detectors.representations",
    **{
        f"fsasd.detectors.{name}": f"fsasd.detectors.systems.{name}"
        for name in (
            "clp_scf", "fkie", "ibm_confidence", "mdam", "pretrained", "statex", "stgram_mfn",
            "thuee", "zeng",
        )
    },
}  # fmt: skip
"""Modules under whose former names files may name their classes, and where these are now."""

_FLAT = ("epochs", "batch_size", "learning_rate", "seed")
"""Arguments that were those of a detector, and are now in its ``training``."""

_ONCE_FLAT = tuple(
    f"fsasd.detectors.{name}" for name in ("autoencoder.Autoencoder", "cmae.CMAE", "flow.Flow")
)

_ABOVE = 2
"""How many folders above a section's may hold ``shared/``: its machine's and ``models/``."""


class NotAModelError(ValueError):
    """A file is not one of a saved detector, is damaged, or names a class that is not allowed.

    >>> str(NotAModelError("detector.json", "it is empty"))
    'not a model of fsasd: detector.json: it is empty'
    """

    def __init__(self, path: str | Path, why: object) -> None:
        super().__init__(f"not a model of fsasd: {path}: {why}")


@dataclass(frozen=True)
class Saved:
    """The content of the files.

    Attributes:
        settings: Class and parameters of the detector.
        detectors: Class and parameters of fitted detectors within it, by their path.
        arrays: Fitted arrays by their path: names of attributes and keys, joined by ``/``.
        networks: Paths of the networks among them that other sections may share.
    """

    settings: Mapping[str, Any]
    detectors: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, np.ndarray]
    networks: Sequence[str] = ()

    def write(self, folder: Path, shared: Sequence[Path] = ()) -> None:
        """Write the files into a folder, which is created if it does not exist.

        Args:
            folder: The section's.
            shared: Folders of networks: the first gets those that none of them holds. Without,
                ``detector.safetensors`` holds them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        arrays, networks = dict(self.arrays), {}
        for path in self.networks if shared else ():
            names = [name for name in arrays if name.startswith(f"{path}/")]
            network = {name.removeprefix(f"{path}/"): arrays.pop(name) for name in names}
            networks[path] = f"{SHARED}/{write_network(network, shared)}"
        # safetensors does not keep the order of arrays, and so not that of fitted detectors.
        about = {
            "format": FORMAT,
            **self.settings,
            "detectors": self.detectors,
            "arrays": list(self.arrays),
            "networks": networks,
        }
        (folder / SETTINGS).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        save_file(arrays, folder / ARRAYS)


def write_network(arrays: Mapping[str, np.ndarray], shared: Sequence[Path]) -> str:
    """Write a network's arrays into the first folder, unless one of them holds them.

    Returns:
        The name of the file, ``<sha256 of its content>.safetensors``.
    """
    # safetensors writes memory as it lies: of channels-last weights in the wrong order.
    content = save({key: np.asarray(array, order="C") for key, array in arrays.items()})
    name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
    if not any(_has_size(folder / name, len(content)) for folder in shared):
        _write_whole(shared[0] / name, content)
    return name


def read(folder: Path, shared: Sequence[Path] = ()) -> Saved:
    """Read what ``Saved.write`` wrote; no class that the files name is imported.

    Args:
        folder: The section's.
        shared: Further folders of networks, searched first.

    Raises:
        FileNotFoundError: There is no saved detector, or a network to which it refers is missing.
        NotAModelError: A file is damaged or of another format, or the files do not belong together.
    """
    about = _read_settings(folder)
    arrays = _read_arrays(folder / ARRAYS)
    stored = list(arrays)
    for path, reference in about["networks"].items():
        file = _find_network(folder, reference, shared)
        network = {f"{path}/{name}": array for name, array in _read_arrays(file).items()}
        stored += network
        arrays |= network
    names = about["arrays"]
    if not all(isinstance(name, str) for name in names) or sorted(names) != sorted(stored):
        raise NotAModelError(
            folder / ARRAYS,
            f"expected the arrays {_listed(names)} that {SETTINGS} names, found {_listed(stored)}",
        )
    settings = {key: about[key] for key in ("class", "params")}
    ordered = {name: arrays[name] for name in names}
    return Saved(settings, about["detectors"], ordered, list(about["networks"]))


def export_section(
    folder: str | Path, target: str | Path, *, shared: Sequence[Path] = (), alone: bool = True
) -> None:
    """Copy a section's saved detector, with the networks that it shares with other sections.

    Args:
        folder: The section's.
        target: Gets the copy: a folder that is empty or does not exist.
        shared: Further folders of networks, searched first.
        alone: Whether the copy holds its networks itself (``<target>/shared/``) and can be moved
            alone; otherwise they go into ``models/shared/`` of a target
            ``models/<machine>/section_<nn>/``, once for all sections.

    Raises:
        FileExistsError: The target holds files.
        FileNotFoundError: There is no saved detector, or a network to which it refers is missing.
        NotAModelError: A file is damaged or of another format.
    """
    folder, target = Path(folder), Path(target)
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target}: expected an empty folder or none, found files in it")
    networks = _read_settings(folder)["networks"].values()
    files = {_find_network(folder, reference, shared) for reference in networks}
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    into = (target if alone else _absolute(target).parents[_ABOVE - 1]) / SHARED
    for file in files:
        if not _has_size(into / file.name, file.stat().st_size):
            _write_whole(into / file.name, _read_checked(file))


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no saved detector ({SETTINGS})")
    about = read_json(path, FORMAT, again="Fit it anew")
    types = {"class": str, "params": dict, "detectors": dict, "arrays": list, "networks": dict}
    for key, kind in types.items():
        if not isinstance(about.get(key), kind):
            value = repr(about[key])[:40] if key in about else "nothing"
            raise NotAModelError(path, f"expected {_JSON[kind]} as {key!r}, found {value}")
    for name, one in about["detectors"].items():
        if not isinstance(one, dict) or set(one) != {"class", "params"}:
            raise NotAModelError(path, f"expected class and params of the detector {name!r}")
    for name, reference in about["networks"].items():
        if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
            raise NotAModelError(
                path,
                f"expected {SHARED}/<sha256>.safetensors as the network {name!r}, found "
                f"{reference!r}: not followed",
            )
    return about


def _as_now(about: dict[str, Any]) -> dict[str, Any]:
    """Give a class its name of today, and its arguments their places, where JSON names one."""
    name, params = about.get("class"), about.get("params")
    if not isinstance(name, str) or not isinstance(params, dict):
        return about
    module, _, kind = name.rpartition(".")
    about["class"] = f"{_MOVED.get(module, module)}.{kind}"
    if about["class"] in _ONCE_FLAT and "training" not in params:
        flat = {name: params.pop(name) for name in _FLAT if name in params}
        training = "fsasd.detectors.networks.training.NetworkTraining"
        params |= {"training": {"class": training, "params": flat}} if flat else {}
    return about


def _find_network(folder: Path, reference: str, shared: Sequence[Path]) -> Path:
    name = reference.removeprefix(f"{SHARED}/")
    section = _absolute(folder)
    places = [*shared, *(p / SHARED for p in [section, *section.parents[:_ABOVE]])]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(
        f"{folder / SETTINGS} refers to the network {reference}, which sections share, and none of "
        f"{', '.join(map(str, dict.fromkeys(places)))} holds it. Was the section copied alone? "
        f"Copy models/ as a whole, or make the section stand alone (fsasd-store export)"
    )


def read_json(path: Path, version: int, again: str) -> dict[str, Any]:
    """Read a JSON object whose ``format`` is the version of its file.

    Args:
        path: Of the file.
        version: That is expected.
        again: What to do about a file of another one, in a sentence.

    Raises:
        FileNotFoundError: The file does not exist.
        NotAModelError: It holds something else, or is of another version.
    """
    try:
        about = parse_json(path.read_bytes(), _as_now)
    except ValueError as error:
        raise NotAModelError(path, error) from error
    if not isinstance(about, dict):
        raise NotAModelError(path, f"expected a JSON object, found {type(about).__name__}")
    if about.get("format") != version:
        raise NotAModelError(
            path,
            f"expected format {version}, found {about.get('format', 'none')}: it was written by "
            f"another version of fsasd, or is no file of a saved detector. {again}",
        )
    return about


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _read_checked(path: Path) -> bytes:
    """Return the content of a file; that of a network has the hash of its name."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotAModelError(path, "the file is missing") from None
    if match := _HASHED.fullmatch(path.name):
        digest = hashlib.sha256(content).hexdigest()
        if digest != match[1]:
            raise NotAModelError(
                path, f"expected content with the sha256 of its name, found {digest}"
            )
    return content


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    content = _read_checked(path)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAModelError(path, f"expected safetensors ({error})") from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise NotAModelError(path, f"array {name} holds NaN")
    return arrays


def _absolute(path: Path) -> Path:
    # Links are not followed: a run's folder may consist of links into the store.
    return Path(os.path.normpath(path.absolute()))


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"


_JSON = {str: "a text", dict: "an object", list: "a list"}
