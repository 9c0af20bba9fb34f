"""The page of changes: CHANGELOG.md, with links as the site has them."""

from __future__ import annotations

from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def page() -> str:
    """Return the page."""
    return CHANGELOG.read_text("utf-8").replace("](docs/", "](../")
