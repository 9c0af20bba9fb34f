"""The files of a saved detector: settings as JSON, arrays as safetensors, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT = 1
"""Of the files, raised when what they hold changes."""

SETTINGS = "detector.json"
ARRAYS = "detector.safetensors"


class NotAModelError(ValueError):
    """A file is not one of a saved detector, damaged, or names what is not loaded.

    >>> str(NotAModelError("detector.json", "it is empty"))
    'not a model of fsasd: detector.json: it is empty'
    """

    def __init__(self, path: str | Path, why: object) -> None:
        super().__init__(f"not a model of fsasd: {path}: {why}")


@dataclass(frozen=True)
class Saved:
    """What the two files hold.

    Attributes:
        settings: Class and parameters of the detector.
        detectors: The same of detectors that it learnt, by their path in it.
        arrays: What was learnt, by its path: names of attributes and keys, divided by ``/``.
    """

    settings: Mapping[str, Any]
    detectors: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, np.ndarray]

    def write(self, folder: Path) -> None:
        """Write both files into a folder, made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        # The file of arrays forgets their order, and so that of the detectors which hold them.
        about = {
            "format": FORMAT,
            **self.settings,
            "detectors": self.detectors,
            "arrays": list(self.arrays),
        }
        (folder / SETTINGS).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        save_file(dict(self.arrays), folder / ARRAYS)


def read(folder: Path) -> Saved:
    """Read what ``Saved.write`` wrote; nothing is made of it yet.

    Raises:
        FileNotFoundError: There is no saved detector.
        NotAModelError: A file is damaged, of another format, or does not belong to the other.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no saved detector ({SETTINGS})")
    about = read_json(path)
    if about.get("format") != FORMAT:
        raise NotAModelError(
            path,
            f"expected format {FORMAT}, found {about.get('format', 'none')}: it was saved by "
            "another version of fsasd, or is no saved detector. Fit it anew",
        )
    named = {
        "class": str,
        "params": dict,
        "detectors": dict,
        "arrays": list,
    }
    for key, kind in named.items():
        if not isinstance(about.get(key), kind):
            said = repr(about[key])[:40] if key in about else "nothing"
            raise NotAModelError(path, f"expected {_JSON[kind]} as {key!r}, found {said}")
    inner = about["detectors"]
    for name, one in inner.items():
        if not isinstance(one, dict) or set(one) != {"class", "params"}:
            raise NotAModelError(path, f"expected class and params of the detector {name!r}")
    arrays = _read_arrays(folder / ARRAYS)
    names = about["arrays"]
    if not all(isinstance(name, str) for name in names) or sorted(names) != sorted(arrays):
        raise NotAModelError(
            folder / ARRAYS,
            f"expected the arrays {_listed(names)} that {SETTINGS} names, found {_listed(arrays)}",
        )
    settings = {key: about[key] for key in ("class", "params")}
    return Saved(settings, inner, {name: arrays[name] for name in names})


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: The file does not exist.
        NotAModelError: It holds something else.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise NotAModelError(path, f"expected JSON ({error})") from error
    if not isinstance(about, dict):
        raise NotAModelError(path, f"expected a JSON object, found {type(about).__name__}")
    return about


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise NotAModelError(path, "the file is missing")
    try:
        arrays = load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAModelError(path, f"expected safetensors ({error})") from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise NotAModelError(path, f"array {name} holds values that are no numbers (NaN)")
    return arrays


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"


_JSON = {str: "a text", dict: "an object", list: "a list"}
