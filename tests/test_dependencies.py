"""Dependencies are declared, used and give a reason; the constraints and the lock are of them."""

import ast
import functools
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docgen.dependencies import PROJECT, dependencies, licence, licences, needed, page

ROOT = PROJECT.parent
OLDEST = ROOT / "constraints" / "oldest.txt"
LOCK = ROOT / "constraints" / "lock.txt"

DEPENDENCIES = dependencies()
OF_USERS = [one for one in DEPENDENCIES if one.extra not in ("docs", "test")]
OPTIONAL = {"bitsandbytes", "onnx", "onnxruntime", "optuna", "pyarrow", "ray", "sounddevice"}
"""Modules of extras that the package imports where they are needed."""


def imported(package: Path) -> set[str]:
    """Return the top-level modules that a package imports anywhere, but standard ones."""
    names = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).partition(".")[0])
    return names - {package.name} - sys.stdlib_module_names


# All that is installed is looked through.
installed = functools.cache(metadata.packages_distributions)


def distributions(module: str) -> set[str]:
    """Return the installed packages that hold a module."""
    return set(map(canonicalize_name, installed().get(module, [module])))


@pytest.fixture(scope="module")
def modules():
    """What the package imports."""
    return imported(ROOT / "fsasd")


def test_every_dependency_says_what_it_is_for():
    assert [str(one.requirement) for one in DEPENDENCIES if not one.reason] == []


def test_every_module_that_is_imported_is_declared(modules):
    always = {one.name for one in DEPENDENCIES if not one.extra}
    named = {one.name for one in OF_USERS}
    assert {m for m in modules - OPTIONAL if not distributions(m) & always} == set()
    assert {m for m in modules & OPTIONAL if not distributions(m) & named} - {"ray"} == set()


def test_every_dependency_is_imported_or_says_that_it_is_not(modules):
    used = {name for module in modules for name in distributions(module)}
    always = [one for one in DEPENDENCIES if not one.extra]
    unused = {one.name for one in always if one.name not in used}
    assert unused == {one.name for one in always if one.reason.startswith("not imported")}


def test_the_oldest_versions_are_the_bounds():
    """What users may have; tools of developers are the newest."""
    bounds = {}
    for one in OF_USERS:
        for bound in one.requirement.specifier:
            if bound.operator == ">=":
                bounds[one.name] = bound.version
    oldest = [line for line in OLDEST.read_text().splitlines() if line and line[0] != "#"]
    assert dict(line.split("==") for line in oldest) == bounds


def test_the_lock_has_hashes_and_holds_what_is_asked_for():
    locked = locked_versions(LOCK.read_text())
    missing = [
        str(one.requirement)
        for one in DEPENDENCIES
        if one.extra not in ("8bit", "device", "ray")
        and not all(map(one.requirement.specifier.contains, locked.get(one.name, {"0"})))
    ]
    assert not missing, f"{missing}: run `make lock`"


def locked_versions(text: str) -> dict[str, set[str]]:
    """Return the versions of each package of a lock, all of which have hashes."""
    versions: dict[str, set[str]] = {}
    for line in re.sub(r"\\\n", "", text).splitlines():
        if line and not line.lstrip().startswith("#"):
            assert "--hash=sha256:" in line, line
            requirement = Requirement(line.partition(" --hash")[0])
            (version,) = requirement.specifier
            assert version.operator == "=="
            versions.setdefault(canonicalize_name(requirement.name), set()).add(version.version)
    return versions


def test_a_line_without_hash_is_named():
    with pytest.raises(AssertionError, match="numpy==2"):
        locked_versions("scipy==1.17 \\\n    --hash=sha256:00\nnumpy==2.4\n")


def test_the_page_has_every_dependency_and_what_these_need():
    text = page()
    for one in DEPENDENCIES:
        assert f"| `{one.requirement}` |" in text
    table = licences()
    assert any(row.startswith("| pytorch-lightning |") for row in table)
    assert not any(row.startswith("| fsasd |") for row in table)


@pytest.mark.parametrize(
    ("name", "stated"), [("numpy", "BSD-3-Clause"), ("pyyaml", "MIT License"), ("nobody", "")]
)
def test_licences_are_those_of_the_metadata(name, stated):
    assert licence(name).startswith(stated)
    assert bool(licence(name)) == bool(stated)


def test_what_is_not_installed_needs_nothing():
    assert needed({"no-such-package"}) == set()
    assert {"soundfile", "cffi"} <= needed({"soundfile"})
