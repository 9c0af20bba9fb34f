"""Names in the package say what they hold: words that leave it open are not used as names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fsasd"

NOT_YET: set[str] = set()
"""Packages that still use such names. Whoever has renamed the last one of a package takes it out
here: an expected failure that passes is an error."""

VAGUE = {
    "by_kind": "groups",
    "doubt": "abstention",
    "found": "what it is: paths, problems, message, metrics, result ...",
    "hear": "train_on, receive ...",
    "heard": "train_clips, waveforms ...",
    "leave_out": "mark_failed, exclude ...",
    "luckiest": "critical_value",
    "made": "what it is: synthetic, folder, artifact, table ...",
    "mine": "section_clips ...",
    "own": "default_setting, section_clips, rows ...",
    "play_target": "leave_one_machine_out",
    "recipe": "key, spec",
    "recipes": "keys, specs",
    "said": "message",
    "say": "log, describe ...",
    "tell": "broadcast, log ...",
    "telling": "n_independent ...",
    "that": "filter, predicate ...",
    "told": "message, known ...",
    "trial": "validation of a machine",
    "trials": "validations",
}
"""Word to what is meant by it in most places. It is looked for among the words of a name that
underscores separate: ``heard`` and ``_heard_clips``, not ``overheard``."""

PHRASES = {name for name in VAGUE if "_" in name}

PHRASES_OF_PAGES = re.compile(
    r"\b(heard|hears|told|own settings?|luckiest|recipes?(?!\.json))\b|play(s|ed|ing)? the target"
    r"|in doubt",
    re.IGNORECASE,
)


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Functions, classes, arguments, variables and attributes that a module names, with lines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


def vague_words(name: str) -> set[str]:
    """The words of ``VAGUE`` in a name."""
    plain = name.lower().strip("_")
    return set(plain.split("_")) & set(VAGUE) | {p for p in PHRASES if p in plain}


def vague_names(package: Path) -> list[str]:
    """A sentence for each name in a package that says too little."""
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line} names something '{name}': not '{word}', but "
        f"{VAGUE[word]}"
        for path in sorted(package.rglob("*.py"))
        for name, line in bound_names(ast.parse(path.read_text("utf-8")))
        for word in sorted(vague_words(name))
    ]


PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason="NOT_YET")) if name in NOT_YET else name
        for name in PACKAGES
    ],
)
def test_names_of_a_package_say_what_they_hold(name):
    problems = vague_names(PACKAGE / name)
    assert not problems, "\n".join([f"{len(problems)} names:", *problems])


def test_packages_that_are_not_clean_exist():
    assert set(PACKAGES) >= NOT_YET


def test_pages_and_configuration_use_the_same_words():
    root = PACKAGE.parent
    # The changelog names what things were called before.
    pages = [path for path in root.glob("*.md") if path.name != "CHANGELOG.md"]
    texts = [*pages, *root.glob("docs/**/*.md"), *root.glob("conf/**/*.yaml"),
             PACKAGE / "report" / "report.html"]  # fmt: skip
    vague = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if PHRASES_OF_PAGES.search(line)
    ]
    assert len(texts) > 50
    assert not vague, "\n".join(vague)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("found = 1", {"found"}),
        ("def f(*, _own_setting): pass", {"own"}),
        ("self.heard_ = 1", {"heard"}),
        ("class Trial: pass", {"trial"}),
        ("def leave_out_clips(): pass", {"leave_out"}),
        ("import pandas as told", {"told"}),
        ("for made in (): pass", {"made"}),
        ("overheard = founder = {'found': 1}; f(own=2); print(told)", set()),
    ],
)
def test_vague_words_are_found_wherever_a_name_is_bound(code, words):
    assert {w for name, _ in bound_names(ast.parse(code)) for w in vague_words(name)} == words
