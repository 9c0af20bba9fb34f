"""The reference of the Python API: a page per package, filled by mkdocstrings from docstrings.

Docstrings are read from the source; nothing is imported.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fsasd"

PACKAGES = [
    "data", "generation", "detectors", "selection", "detection", "deployment", "export",
    "evaluation", "report", "pipeline", "store", "settings", "runtime", "testing",
]  # fmt: skip
"""In the order of docs/explanation/architecture.md; ``cli`` is the commands."""


def index() -> str:
    """Return the page that lists packages and modules."""
    parts = ["# Python", "Every public name, from its docstring. Hydra is not needed to use them."]
    for package in PACKAGES:
        parts.append(f"## [fsasd.{package}]({package}.md)")
        rows = ["| module | content |", "|---|---|"]
        for path in _modules(package):
            name = _name(path)
            text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            if text:
                rows.append(f"| [{name}]({package}.md#{name}) | {_line(text)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def package_page(package: str) -> str:
    """Return the page of a package.

    Args:
        package: Name within fsasd.
    """
    modules = [f"::: {_name(path)}" for path in _modules(package)]
    return "\n\n".join([f"# fsasd.{package}", *modules]) + "\n"


def _modules(package: str) -> list[Path]:
    """Return the files of a package that hold something."""
    files = PACKAGE.joinpath(package).rglob("*.py")
    return sorted(file for file in files if file.read_text("utf-8").strip())


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _line(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")


PAGES = {
    "reference/api/index.md": index,
    **{f"reference/api/{p}.md": functools.partial(package_page, p) for p in PACKAGES},
}
"""Path of a page to what writes it."""
