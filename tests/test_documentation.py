"""The pages of the documentation, as far as they are generated; `make docs` builds the site."""

import re
import tomllib
from pathlib import Path

import pytest

from docgen import api, commands, configuration, diagram, root_pages, settings
from docgen.doctests import fenced
from fsasd.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
KNN = "fsasd.detectors.knn.KNN"


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


@pytest.mark.parametrize("name", root_pages.PAGES)
def test_links_of_pages_of_the_root_lead_from_their_pages_of_the_site(name):
    links = re.findall(r"\]\(([^)#:]*)[)#]", root_pages.page(name))
    assert len(links) > 3
    of_site = {*root_pages.PAGES.values()}
    for link in links:
        assert link in of_site or (ROOT / "docs" / "reference" / link).is_file(), link


def test_the_changelog_begins_with_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## \[(.*?)\] - \d{4}-\d\d-\d\d$", root_pages.page("CHANGELOG.md"), re.M)
    assert newest
    assert newest[1] == version


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
    for page in ROOT.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)\"", page.read_text("utf-8")):
            target = "".join(link)
            assert target.startswith("https://") or (ROOT / target).exists(), (page.name, target)


# The reference of the configuration


def test_every_key_of_the_configuration_has_a_meaning():
    missing = configuration.undocumented()
    assert not missing, "\n".join(missing)


def write(conf, files):
    for name, text in files.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(text)
    return conf


def test_a_key_without_a_meaning_is_named_with_its_file(tmp_path):
    knn = f"# @package _global_\ndetector:\n  _target_: {KNN}\n  k: 1\n"
    conf = write(tmp_path, {
        "config.yaml": "# Of all.\nseed: 0\nnew_key: 1\nsection:\n  inner: 2  # Said behind it.\n",
        "detector/knn.yaml": knn + "  depht: 3\n",
        "experiment/tiny.yaml": "# @package _global_\nseed: 1\nof_nobody: true\n",
    })  # fmt: skip
    named = [line.split(": write")[0] for line in configuration.undocumented(conf)]
    assert named == [
        "conf/config.yaml: new_key",
        "conf/detector/knn.yaml: detector.depht",
        "conf/experiment/tiny.yaml: of_nobody",
    ]


def test_a_key_has_type_range_default_and_meaning_of_its_constructor():
    text = configuration.page()
    row = next(line for line in text.splitlines() if line.startswith("| `k` | int"))
    assert row == (
        "| `k` | int, whole, 1 and more | `1` | The neighbour whose distance is the score. |"
    )
    assert "| `metric` | `euclidean`, `cosine` | `cosine`; `euclidean` (knn) |" in text
    # Of a base class, of another package, of no constructor.
    assert "| `accumulate_grad_batches` | int |" in text
    assert re.search(r"\| `keep_checkpoints` \| bool \| `false` \| Checkpoints of", text)
    assert re.search(r"\| `root` \| .* \| required \| A folder, or a list", text)


def test_every_group_lists_its_choices():
    text = configuration.page()
    for folder in {path.parent for path in settings.CONF.rglob("*.yaml")}:
        group = folder.relative_to(settings.CONF).as_posix()
        if group != "." and not group.startswith("hydra"):
            section = text.split(f"## `{group}`\n")[1].split("\n## ")[0]
            for path in folder.glob("*.yaml"):
                assert f"| `{path.stem}` |" in section


def test_included_files_and_comments_are_read(tmp_path):
    conf = write(tmp_path, {
        "data/base.yaml": f"# What it is.\n_target_: {KNN}\n# Two\n# lines.\nk: 1\n",
        "data/more.yaml": "defaults:\n  - base\n  - _self_\nk: 2\n",
    })  # fmt: skip
    (key,) = [key for key in settings.keys(conf) if key.choice == "more"]
    assert (key.path, key.owner) == ("data.k", KNN)
    assert (key.node.value, key.node.comment) == ("2", "Two lines.")
    assert settings.head(conf / "data" / "base.yaml") == "What it is."
