"""Pages in headless Chromium: what they log, and which rules of accessibility they break."""

import contextlib
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

PHONE, DESKTOP = 390, 1280
MODES = (("light", DESKTOP), ("dark", PHONE))
"""Colour scheme, and width of the window in pixels."""

_RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    # Styles of other hosts; there are none.
    "preload": False,
}
# A drawing is one picture with a name; to look at its hundreds of texts takes minutes.
_LOOKED_AT = {"exclude": [["[role=img] svg"]]}


@contextlib.contextmanager
def browser():
    """Start Chromium until the end of the block."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM)


@contextlib.contextmanager
def shown(chromium, path, scheme, width):
    """Show a file until the end of the block, all details open.

    Args:
        chromium: What ``browser`` gives.
        path: Of the page.
        scheme: ``light`` or ``dark``.
        width: In pixels.

    Raises:
        AssertionError: The page logged an error or a warning.
    """
    page = chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(path.as_uri())
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    yield page
    page.close()
    assert faults == [], faults


def violations(page):
    """Return which rules a page breaks, and where."""
    found = Axe().run(page, context=_LOOKED_AT, options=_RULES).response["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]


def beyond(page):
    """Return how many pixels a page is wider than the window."""
    root = "document.documentElement"
    return page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
