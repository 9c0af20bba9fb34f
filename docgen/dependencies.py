"""The page of the packages that fsasd needs: what each is for, and the licences of all.

    python -m docgen.dependencies    # the licences of what is installed, as a table

What a direct dependency is for is said behind it in pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

_REASON = re.compile(r'^ *"(.+)", *# (.+)$', re.MULTILINE)

_HEAD = """# Dependencies

What fsasd needs, and what an extra adds (`pip install 'fsasd[sweep]'`), with the licences that the
packages state. The libraries of NVIDIA come with the CUDA build of PyTorch, under NVIDIA's terms; a
[CPU-only install](../how-to/install.md#without-cuda) has none of them. Weights have licences of
their own: [Generators](generators.md).

`python -m docgen.dependencies` prints the licences of what is installed, `make sbom` writes it as a
bill of materials (CycloneDX).
"""


@dataclass(frozen=True)
class Dependency:
    """A package that pyproject.toml names.

    Attributes:
        requirement: Its name and versions.
        extra: That asks for it; empty where fsasd always needs it.
        reason: What it is for; empty where that is not said.
    """

    requirement: Requirement
    extra: str
    reason: str

    @property
    def name(self) -> str:
        """Its name in the form in which names are compared."""
        return canonicalize_name(self.requirement.name)


def dependencies(project: Path = PROJECT) -> list[Dependency]:
    """Return the direct dependencies, without fsasd's own extras."""
    text = project.read_text("utf-8")
    reasons = dict(_REASON.findall(text))
    about = tomllib.loads(text)["project"]
    named = {"": about["dependencies"], **about["optional-dependencies"]}
    return [
        Dependency(Requirement(one), extra, reasons.get(one, ""))
        for extra, ones in named.items()
        for one in ones
        if not one.startswith(f"{about['name']}[")
    ]


def page() -> str:
    """Return the page of the site."""
    rows = [
        f"| `{one.requirement}` | {f'`{one.extra}`' if one.extra else ''} | {one.reason} | "
        f"{licence(one.name)} |"
        for one in dependencies()
    ]
    table = ["| package | extra | what for | licence |", "|---|---|---|---|", *rows]
    return "\n".join([_HEAD, *table, "\n## All packages\n", *licences(), ""])


def licences() -> list[str]:
    """Return the lines of a table of what is installed of the dependencies, and theirs."""
    names = sorted(needed({one.name for one in dependencies()}))
    rows = [f"| {name} | {metadata.version(name)} | {licence(name)} |" for name in names]
    return ["| package | version | licence |", "|---|---|---|", *rows]


def needed(names: set[str]) -> set[str]:
    """Return those of these packages that are installed, and all packages that they need."""
    installed: set[str] = set()
    ahead = set(names)
    while ahead:
        name = ahead.pop()
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        installed.add(name)
        requirements = map(Requirement, requires)
        wanted = (r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""}))
        ahead |= {canonicalize_name(r.name) for r in wanted} - installed
    return installed


def licence(name: str) -> str:
    """Return the licence that a package's metadata state; empty where it is not installed.

    An SPDX expression before classifiers before free text, of which the first line is taken.
    """
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    classified = ", ".join(_classified(about))
    stated = about.get("License-Expression") or classified or about.get("License") or ""
    return stated.strip().partition("\n")[0] or "not stated"


def _classified(about: metadata.PackageMetadata) -> Iterator[str]:
    for line in about.get_all("Classifier") or []:
        if line.startswith("License :: ") and not line.endswith(":: OSI Approved"):
            yield line.rpartition(" :: ")[2]


if __name__ == "__main__":
    print("\n".join(licences()))
