"""The pages of the documentation, as far as they are generated; `make docs` builds the site."""

import re
from pathlib import Path

import pytest

from docgen import api, changes, commands, diagram
from docgen.doctests import fenced
from fsasd.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]


def test_the_diagram_is_up_to_date():
    assert diagram.FILE.read_text("utf-8") == diagram.diagram(), "run python -m docgen.diagram"


def test_every_command_and_those_of_the_store_have_their_help():
    text = commands.page()
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    assert {*COMMANDS, "fsasd-store ls", "fsasd-store gc"} <= set(headings)
    for command in set(COMMANDS) - {"fsasd"}:
        assert f"usage: {command} [-h] [--version]" in text


def test_every_package_has_a_page_with_all_of_its_modules():
    packages = {path.parent.name for path in (ROOT / "fsasd").glob("*/__init__.py")}
    assert set(api.PACKAGES) == packages - {"cli"}
    assert "::: fsasd.data.log_mel\n" in api.package_page("data")
    assert "::: fsasd.generation.diffusion.sampling\n" in api.package_page("generation")
    assert "(data.md#fsasd.data.clip)" in api.index()


def test_links_of_the_changelog_lead_from_its_page():
    links = re.findall(r"\]\((\.\./[^)#]*)", changes.page())
    assert links
    for link in links:
        assert (ROOT / "docs" / "reference" / link).is_file(), link


@pytest.mark.parametrize(
    ("docstring", "code"),
    [
        ("One.\n\n>>> 1\n1\n\nTwo.", "One.\n\n```pycon\n>>> 1\n1\n```\n\nTwo."),
        ("Example:\n    >>> 1\n    1", "Example:\n    ```pycon\n    >>> 1\n    1\n    ```"),
        ("It is >>> that", "It is >>> that"),
    ],
)
def test_doctests_are_code(docstring, code):
    assert fenced(docstring) == code


def test_links_between_the_pages_of_the_repository_lead_somewhere():
    """Those within docs/ are checked by `make docs`, too; the README is not on the site."""
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)\"", page.read_text("utf-8")):
            target = "".join(link)
            assert target.startswith("https://") or (ROOT / target).exists(), (page.name, target)
