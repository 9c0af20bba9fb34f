"""MkDocs hooks: the generated pages of the site, and a name for the theme's search."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
# MkDocs loads a hook by its path, without the package around it.
sys.path.insert(0, str(ROOT))

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

from docgen import api, commands, configuration, dependencies, root_pages  # noqa: E402

PAGES = {
    "reference/commands.md": commands.page,
    "reference/configuration.md": configuration.page,
    "reference/dependencies.md": dependencies.page,
    **api.PAGES,
    **{
        f"reference/{site}": partial(root_pages.page, name)
        for name, site in root_pages.PAGES.items()
    },
}
"""Path of a page to what writes it."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_post_page(output: str, **_: object) -> str:
    """Name the dialog that the theme leaves without a name."""
    search = 'data-md-component="search" role="dialog"'
    return output.replace(search, f'{search} aria-label="Search"')
