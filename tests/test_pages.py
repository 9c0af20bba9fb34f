"""Every command of every page is marked, and composes or is parsed."""

import pytest
from page_commands import MARKS, ROOT, blocks, check, pages

PAGES = [page for page in pages() if any(blocks(page))]


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_command_is_marked(page):
    unmarked = [f"{name(page)}:{one.line}" for one in blocks(page) if one.mark not in MARKS]
    assert not unmarked, f"{unmarked}: write <!-- run -->, compose or measured on the line before"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_composes(page, tmp_path):
    for block in blocks(page):
        for command in block.commands:
            try:
                check(command, page, tmp_path)
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{name(page)}:{block.line}: {command}") from error


def test_there_are_commands_of_every_mark():
    marks = [block.mark for page in PAGES for block in blocks(page)]
    assert len(marks) > 50
    assert set(marks) == set(MARKS)


@pytest.mark.parametrize(
    "command",
    [
        "fsasd detecto=knn",
        "fsasd detector=nobody",
        "fsasd -m detector=nobody,none",
        "fsasd detector.depht=3",
        "fsasd-report --no-such-option",
        "fsasd-check data=nowhere",
        "make nothing",
        "pip install 'fsasd[nothing]'",
        "pip install -r constraints/nothing.txt",
        "python -m benchmarks.nothing",
        "python -m pytest tests/test_nothing.py",
        "python -m benchmarks.choice --no-such-option",
        "python -c 'import'",
        "curl example.org",
    ],
)
def test_a_wrong_command_fails(command, tmp_path):
    with pytest.raises((Exception, SystemExit)):
        check(command, ROOT / "README.md", tmp_path)


def test_a_command_without_a_mark_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```sh\nfsasd\n```\n\n<!-- run -->\n```sh\nfsasd a=1 \\\n  b=2\n```\n")
    first, second = blocks(page)
    assert (first.mark, first.line) == ("", 3)
    assert (second.mark, second.commands) == ("run", ("fsasd a=1 b=2",))
