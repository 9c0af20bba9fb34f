"""The shell commands of the pages, how they are marked, and what is checked of them.

A block of commands follows a comment, which readers do not see: ``<!-- run -->`` (run_pages.py runs
it on tiny data), ``<!-- compose -->`` (it needs GPUs, SLURM, data sets or much time) or
``<!-- measured -->`` (its numbers are on the page). All are composed or parsed.
"""

import contextlib
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from docgen.commands import parser_of
from docgen.settings import CONF
from fsasd.cli import commands, init

ROOT = Path(__file__).parents[1]
MARKS = ("run", "compose", "measured")
_OF_SHELL = (
    "cd", "rm", "find", "arecord", "ffmpeg", "sbatch", "for", "do", "done", "first=$(sbatch",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Commands of a page, a line each, and their mark."""

    page: Path
    line: int
    mark: str
    commands: tuple[str, ...]


def pages():
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    """Return the blocks of commands of a page; one without a mark has an empty one."""
    text = page.read_text("utf-8")
    fences = re.finditer(r"(?:^<!-- (\w+) -->\n)?^```(sh|bash|shell|console)\n(.*?)^```", text,
                         re.MULTILINE | re.DOTALL)  # fmt: skip
    for fence in fences:
        lines = re.sub(r"\\\n\s*", "", fence[3]).splitlines()
        said = tuple(line for line in lines if line.strip() and not line.startswith("#"))
        yield Block(page, text[: fence.start()].count("\n") + 1, fence[1] or "", said)


def words(command):
    """Return the words of a command, with a value in place of each placeholder."""
    command = re.sub(r"\[(--[\w-]+)\]", r"\1", re.sub(r"<[^>]*>", "x", command))
    command = command.replace("$SLURM_ARRAY_TASK_ID", "1")
    split = shlex.split(command, comments=True)
    if ">" in split:
        split = split[: split.index(">")]
    while split and re.fullmatch(r"[A-Z_]+=.*", split[0]):
        split = split[1:]
    return split


def check(command, page, folder):
    """Raise where a command names what there is not.

    Args:
        command: As the page has it, on one line.
        page: Whose files, those that begin with their name, the command may use.
        folder: Gets them.
    """
    program, *arguments = words(command)
    program = program.removeprefix(".venv/bin/")
    if "|" in arguments:
        place = arguments.index("|")
        check(shlex.join([program, *arguments[:place]]), page, folder)
        check(shlex.join(arguments[place + 1 :]), page, folder)
        return
    if "fsasd" in arguments:  # behind srun, say
        program, arguments = "fsasd", arguments[arguments.index("fsasd") + 1 :]
    if program == "sbatch" and arguments[0] == "--wrap":
        check(arguments[1], page, folder)
    elif program == "fsasd":
        _compose(arguments, page, folder)
    elif program == "fsasd-check":
        _, overrides = parser_of(program).parse_known_args(arguments)
        _compose(overrides, page, folder)
    elif program in commands.COMMANDS:
        parser_of(program).parse_args(arguments)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets, arguments
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for one in arguments[1:]:
            if match := re.fullmatch(r"(?:fsasd|\.)\[(.*)\]", one):
                assert set(match[1].split(",")) <= set(extras["optional-dependencies"])
            else:
                assert one[0] == "-" or (ROOT / one).exists(), one
    elif program == "python" and arguments[:2] == ["-m", "pytest"]:
        missing = [one for one in arguments[2:] if one[0] != "-" and not (ROOT / one).exists()]
        assert not missing, missing
    elif program == "python" and arguments[0] == "-m":
        source = (ROOT / f"{arguments[1].replace('.', '/')}.py").read_text("utf-8")
        for option in (word for word in arguments if word.startswith("--")):
            assert f'"{option}"' in source, option
    elif program == "python":
        compile(arguments[1], str(page), "exec")
    else:
        assert program in _OF_SHELL, f"{program}: not a command that the pages use"


def _compose(arguments, page, folder):
    if arguments[:1] == ["init"]:
        return
    arguments = [word for word in arguments if word not in ("...", "x", "-m")]
    further = []
    if "--config-dir" in arguments:
        at = arguments.index("--config-dir")
        _, name = arguments[at : at + 2]
        del arguments[at : at + 2]
        if name == "conf":
            with contextlib.suppress(FileExistsError):
                init.write_study(folder)
        else:
            _write_files(page, folder)
        further = [f"hydra.searchpath=[file://{folder / name}]"]
    else:
        assert commands.unknown_override(arguments) is None
    # Its plug-in is an extra of its own.
    overrides = [one for one in commands.as_overrides(arguments) if one != "hydra/launcher=ray"]
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        compose("config", [_single(one) for one in overrides] + further, return_hydra_config=True)


def _single(override):
    """Return the first job's part of an override; all choices of a group have to be there."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return override
    name, value = parsed.get_key_element(), parsed.value()
    if isinstance(value, IntervalSweep):
        return f"{name}={value.start}"
    values = list(parsed.sweep_string_iterator())
    if (CONF / name).is_dir() and not any(
        (CONF / name / f"{one}.yaml").is_file() for one in values
    ):
        raise AssertionError(f"{override}: conf/{name} lacks one of these")
    return f"{name}={values[0]}"


def _write_files(page, folder):
    text = page.read_text("utf-8")
    for name, content in re.findall(r"```(?:python|yaml)\n# (my_\S+)\n(.*?)```", text, re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
