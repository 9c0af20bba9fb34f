"""Settings as part of keys: weights by their content, plug-ins with the code of their package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fsasd.settings.code import KEPT_APART, package_code, package_of
from fsasd.settings.objects import described

_WEIGHTS = frozenset(
    {
        ".bin", ".ckpt", ".h5", ".joblib", ".msgpack", ".npy", ".npz", ".onnx", ".pickle", ".pkl",
        ".pt", ".pt2", ".pth", ".safetensors",
    }
)  # fmt: skip
_CLASS = ("_target_", "class")
"""What names a class in a configuration, and in what ``objects.described`` writes."""


def spec_of(settings: Any, content_hash: Callable[[Path], str]) -> Any:
    """Return settings as the plain JSON that a result depends on.

    A string that names a file on this machine, or a folder with weights, is replaced by its
    content, whatever the setting is called: other weights at the same place are another spec, the
    same weights elsewhere are the same one. Beside each class of another package stands the digest
    of that package's code (``code.package_code``) as ``_code_``.

    Args:
        settings: Plain ones with Hydra's ``_target_``, or what ``objects.described`` takes.
        content_hash: File to the hash of its content, such as ``data.content.content_hash``.

    Raises:
        TypeError: A value is neither JSON nor an object that can be described.

    >>> spec_of({"_target_": "fsasd.detectors.knn.KNN", "k": 1}, str)
    {'_target_': 'fsasd.detectors.knn.KNN', 'k': 1}
    >>> list(spec_of({"_target_": "sklearn.covariance.LedoitWolf"}, str))
    ['_target_', '_code_']
    """
    if isinstance(settings, (str, Path)):
        return _content(str(settings), content_hash)
    if settings is None or isinstance(settings, (bool, int, float)):
        return settings
    if isinstance(settings, (list, tuple)):
        return [spec_of(value, content_hash) for value in settings]
    if not isinstance(settings, Mapping):
        return spec_of(described(settings), content_hash)
    spec = {str(key): spec_of(value, content_hash) for key, value in settings.items()}
    for key in _CLASS:
        name = settings.get(key)
        if isinstance(name, str) and (package := package_of(name)) not in KEPT_APART:
            spec |= {"_code_": code} if (code := package_code(package)) else {}
    return spec


def weight_files(text: str) -> list[Path]:
    """Return the files that a setting names: one file, or all in a folder with weights.

    >>> weight_files("audioldm-s"), [path.name for path in weight_files(__file__)]
    ([], ['spec.py'])
    """
    path = Path(text)
    try:
        if path.is_file():
            return [path]
        # A word such as "data" or "" may be a folder, too; weights lie in it or one level below.
        inner = [*path.glob("*"), *path.glob("*/*")] if text.strip("./\\") and path.is_dir() else []
    except (OSError, ValueError):
        # No name that a file can have.
        return []
    if not any(file.suffix.lower() in _WEIGHTS for file in inner):
        return []
    return sorted(file for file in path.rglob("*") if file.is_file() and _is_visible(file, path))


def _is_visible(file: Path, folder: Path) -> bool:
    return not any(name.startswith(".") for name in file.relative_to(folder).parts)


def _content(text: str, content_hash: Callable[[Path], str]) -> str:
    files = weight_files(text)
    if not files:
        return text
    if files == [Path(text)]:
        return f"sha256:{content_hash(files[0])}"
    names = (file.relative_to(text).as_posix() for file in files)
    lines = (f"{name} {content_hash(file)}\n" for name, file in zip(names, files, strict=True))
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
