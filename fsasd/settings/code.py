"""Code of plug-ins as part of keys: a class of another package depends on all of it."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsasd.settings.objects import components

KEPT_APART = frozenset(
    {
        "diffusers", "fsasd", "lightning", "numpy", "scipy", "torch", "torchaudio", "transformers",
        *sys.stdlib_module_names,
    }
)  # fmt: skip
"""Packages whose code is in no key: stages of fsasd have versions, and a release of what networks
and arrays are computed with is no reason to train again."""


def package_of(name: str) -> str:
    """Return the top-level package of a dotted name.

    >>> package_of("my_package.loudness.Loudness")
    'my_package'
    """
    return name.partition(".")[0]


@functools.cache
def package_code(package: str) -> str:
    """Return a digest of a package's source: all of its .py files, as they lie on the disk.

    Of a module that is no package these are its file and the modules beside it that it imports.
    It is computed once per process, as code is imported once.

    Args:
        package: Name of a top-level package or module.

    Returns:
        16 hexadecimal digits; ``""`` if there is no such package, or no source of it.

    >>> package_code("sklearn") == package_code("sklearn"), package_code("no_such_package")
    (True, '')
    """
    sources = sorted(_sources(package).items())
    if not sources:
        return ""
    digest = hashlib.sha256()
    for name, path in sources:
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def code_of(value: Any) -> dict[str, str]:
    """Return the digests of the packages that an object and its components are defined in.

    Args:
        value: An object, a class or a function; its components are those of ``objects.components``.

    Returns:
        Package to ``package_code``, without those of ``KEPT_APART``.

    >>> from sklearn.covariance import LedoitWolf
    >>> list(code_of({"covariance": LedoitWolf(), "k": 1}))
    ['sklearn']
    """
    names = set(_packages(value)) - KEPT_APART
    return {name: code for name in sorted(names) if (code := package_code(name))}


_PLAIN = (type(None), bool, int, float, str)
"""Types of most values: they have no components, and no code that is in a key."""


def _packages(value: Any) -> Iterator[str]:
    if type(value) in _PLAIN:
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _packages(item)
        return
    module = getattr(value, "__module__", None) or type(value).__module__
    yield package_of(module)
    for part in components(value).values():
        yield from _packages(part)


def _sources(package: str) -> dict[str, Path]:
    """Return the .py files of a package by their names relative to it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        # Of a program that is run as a file there is none.
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if folders:
        return {
            f"{path.relative_to(folder).as_posix()}": path
            for folder in map(Path, folders)
            for path in _python_files(folder)
        }
    file = spec.origin if spec else getattr(sys.modules.get(package), "__file__", None)
    return _with_neighbours(Path(file)) if file and file.endswith(".py") else {}


def _python_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*.py"):
        inner = path.relative_to(folder).parts
        if "site-packages" not in inner and not any(name.startswith(".") for name in inner):
            yield path


def _with_neighbours(file: Path) -> dict[str, Path]:
    """Return a module, and the modules and packages beside it that it imports, indirectly too."""
    if "site-packages" in file.parts:
        return {file.name: file}
    files: dict[str, Path] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(file.parent).as_posix()
        if name in files or not path.is_file():
            continue
        files[name] = path
        for imported in _imported(path):
            neighbour = file.parent / imported
            waiting.append(neighbour.with_suffix(".py"))
            if (neighbour / "__init__.py").is_file():
                waiting += _python_files(neighbour)
    return files


def _imported(path: Path) -> set[str]:
    """Return the top-level names that a module imports, wherever in it."""
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        # Of a module that cannot be imported either.
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {package_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(package_of(node.module))
    return names
