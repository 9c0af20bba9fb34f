"""Pages of the repository's root, with links as the site has them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGES = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
"""Name in the root to name among the site's references."""


def page(name: str) -> str:
    """Return a page of the root."""
    text = (ROOT / name).read_text("utf-8").replace("](docs/", "](../")
    for root, site in PAGES.items():
        text = text.replace(f"]({root}", f"]({site}")
    return text
