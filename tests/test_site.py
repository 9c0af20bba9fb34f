"""The site in headless Chromium."""

from itertools import product
from pathlib import Path

import pytest
from browser import MODES, beyond, browser, needs_chromium, shown, violations
from mkdocs.commands.build import build
from mkdocs.config import load_config

from docgen import api

ROOT = Path(__file__).parents[1]
PAGES = (
    "index.html", "tutorial/recordings.html", "how-to/deploy.html", "reference/results.html",
    "reference/api/settings.html",
)  # fmt: skip


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The site, but for the pages of most packages, which take most of the time."""
    pages = {path: page for path, page in api.PAGES.items() if Path(path).stem == "settings"}
    monkeypatch.setattr(api, "PAGES", pages)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=False)
    build(config)
    return tmp_path / "site"


@pytest.mark.nightly
@pytest.mark.slow
@needs_chromium
def test_no_rule_of_accessibility_is_broken(site):
    with browser() as chromium:
        for path, mode in product(PAGES, MODES):
            with shown(chromium, site / path, *mode) as page:
                assert violations(page) == [], (path, mode)
                assert beyond(page) == 0, (path, mode)
