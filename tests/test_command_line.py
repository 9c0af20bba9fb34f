"""The commands as they are typed: help, version, where what is written."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
import types
from importlib import metadata, resources
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

import fsasd.cli.main  # noqa: F401, registers the resolvers of the configuration
from fsasd.cli import commands

COMMANDS = [
    "fsasd",
    "fsasd-check",
    "fsasd-download",
    "fsasd-evaluate",
    "fsasd-export",
    "fsasd-push",
    "fsasd-refit",
    "fsasd-report",
    "fsasd-score",
    "fsasd-store",
    "fsasd-submit",
]


def groups():
    conf = resources.files("fsasd.conf")
    others = ("paper", "hydra", "__pycache__")
    return sorted(g.name for g in conf.iterdir() if g.is_dir() and g.name not in others)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_its_version(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--version"])
    assert commands.run(command) == 0
    assert capsys.readouterr().out == f"{command} {metadata.version('fsasd')}\n"


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_every_command_says_its_version_among_other_options(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--version", "--help"])
    with pytest.raises(SystemExit) as ended:
        commands.run(command)
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{command} {metadata.version('fsasd')}\n"


def test_the_scripts_are_these_commands():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    scripts = tomllib.loads(text)["project"]["scripts"]
    assert sorted(scripts) == sorted(COMMANDS)
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


SLOW_IMPORTS = ["torch", "sklearn", "scipy.stats", "pandas", "matplotlib", "transformers"]
"""Each takes longer than ``import numpy`` several times over (docs/explanation/speed.md)."""

IN_ONE_PROCESS = f"""
import sys
from fsasd.cli import commands
for command, *arguments in {{asked}}:
    sys.argv = [command, *arguments]
    try:
        commands.run(command)
    except SystemExit:
        pass
    loaded = [name for name in {SLOW_IMPORTS} if name in sys.modules]
    assert not loaded, (command, arguments, loaded)
"""


def in_one_process(asked):
    """Give one process several commands in turn, none of which may import what is slow."""
    code = IN_ONE_PROCESS.format(asked=asked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_help_and_version_import_nothing_slow():
    asked = [[command, option] for command in COMMANDS for option in ("--version", "--help")]
    done = in_one_process([*asked, ["fsasd", "plan", "-h"], ["fsasd", "seed=1", "--help"]])
    assert done.stderr == ""
    assert done.stdout.count("fsasd: first-shot anomalous sound detection") == 3


def test_what_is_wrong_with_a_command_is_said_before_anything_slow_is_imported(tmp_path):
    wrong = [[command, "--no-such-option"] for command in COMMANDS]
    others = [["fsasd", "detecto=knn"], ["fsasd-download", "dcase2023"]]
    done = in_one_process([*wrong, *others, ["fsasd-store", "ls", "--store", str(tmp_path)]])
    assert done.stderr.count(": error: ") == len(COMMANDS) + 1
    assert "Did you mean 'detector'?" in done.stderr
    assert "expected an EDITION and --root DIR" in done.stderr


def test_the_page_names_every_group_and_only_choices_that_there_are():
    page = commands.help_page()
    conf = resources.files("fsasd.conf")
    for group in groups():
        assert re.search(rf"^ +{group} ", page, re.MULTILINE), group
    for group, choice in re.findall(r"\b([\w/]+)=([a-z]\w*)", page):
        if (conf / group).is_dir() and choice != "x":
            assert (conf / group / f"{choice}.yaml").is_file(), (group, choice)
    assert max(map(len, page.splitlines())) <= 100


def test_the_page_is_also_hydras():
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", return_hydra_config=True)
    assert cfg.hydra.help.template == commands.help_page()


def test_standard_output_is_the_results():
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", return_hydra_config=True)
    for logs in (cfg.hydra.job_logging, cfg.hydra.hydra_logging):
        assert logs.handlers.console.stream == "ext://sys.stderr"


@pytest.mark.parametrize("arguments", [["plan", "seed=1"], ["seed=1", "--plan"]])
def test_a_plan_is_an_override(arguments, monkeypatch):
    called = []
    application = types.SimpleNamespace(main=lambda: called.append(sys.argv[1:]))
    monkeypatch.setitem(sys.modules, "fsasd.cli.main", application)
    monkeypatch.setattr(sys, "argv", ["fsasd", *arguments])
    assert commands.run("fsasd") is None
    assert called == [["seed=1", "plan=true"]]


@pytest.mark.parametrize("override", ["detecto=knn", "detecto.k=1", "dat.root=x", "sed=1"])
def test_a_misspelt_name_comes_with_a_suggestion(override, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fsasd", "experiment=tiny", override])
    assert commands.run("fsasd") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(
        rf"{override}: there is no such setting\. Did you mean '(detector|data|seed)'", err
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "detector=knn,lof", "generator/train=lora", "seed=0,1"],
        ["experiment=table4", "highest_r=1.0"],
        ["pretrain.text_steps=2", "hydra.run.dir=x", "hydra/launcher=joblib"],
        ["+mine=1", "~callbacks.evaluation", "--cfg", "job"],
        ["--config-dir", "my_conf", "mine=1"],
        ["data.hold_out=[{machine: fan}]", "representation@detector.representation=twfr"],
    ],
)
def test_names_that_there_are_are_left_to_hydra(arguments):
    assert commands.unknown_override(arguments) is None


@pytest.mark.parametrize("asked", [["fsasd", "--help"], ["fsasd-download", "--list"]])
def test_whoever_reads_the_output_may_have_read_enough(asked):
    code = f"import sys; sys.argv = {asked}; from fsasd.cli import commands\n"
    code += "sys.exit(commands.run(sys.argv[0]))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
