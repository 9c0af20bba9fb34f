"""Completion in a shell: what is offered, by every command, without a slow import."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_command_line import COMMANDS, SLOW_IMPORTS

from fsasd.cli import commands
from fsasd.cli.completion import SHELLS, overrides

ASK = """
import sys
from fsasd.cli import commands
sys.argv = sys.argv[1:]
commands.run(sys.argv[0])
"""


def asked(tmp_path, line, *python):
    """Return what a command offers at the end of a line, as argcomplete's code asks it."""
    answer = tmp_path / "answer"
    env = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
           "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n",
           "_ARGCOMPLETE_COMP_WORDBREAKS": "", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, *python, "-c", ASK, line.split()[0]],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return answer.read_text().split("\n"), done.stderr


def test_choices_follow_a_group():
    assert overrides("generator=audioldm_n") == [
        "generator=audioldm_nano",
        "generator=audioldm_nano_fast",
    ]
    assert overrides("detector=knn,lo") == ["detector=knn,lof"]
    assert overrides("generator/tr") == ["generator/train="]
    assert overrides("generator/train=lo") == ["generator/train=lora"]


def test_keys_are_those_of_the_choice():
    assert "detector.r=" in overrides("detector.")
    assert "detector.r=" not in overrides("detector.", ["detector=knn"])
    assert "detector.metric=" in overrides("detector.", ["detector=knn"])
    assert overrides("data.fac") == [
        f"data.factory.{name}=" for name in ("references", "seconds", "seed", "target_domain_clips",
                                             "targets", "test_clips", "train_clips")
    ]  # fmt: skip
    assert overrides("data.mani", ["data=manifest"]) == ["data.manifest="]
    assert overrides("plan=") == ["plan=true", "plan=false"]


def test_every_override_that_is_offered_composes():
    from hydra import compose, initialize_config_module

    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", ["detector=knn", "generator=audioldm_s"])
    names = [name for group in ("detector.", "generator.", "synthesis.", "trainer.", "data.")
             for name in overrides(group, ["detector=knn", "generator=audioldm_s"])]  # fmt: skip
    assert len(names) > 50
    for name in names:
        node = cfg
        for part in name.rstrip("=.").split("."):
            assert part in node, name
            node = node._get_node(part)


def test_fsasd_answers(tmp_path):
    (tmp_path / "clips.csv").write_text("")
    assert asked(tmp_path, "fsasd detector=kn")[0] == ["detector=knn"]
    assert set(asked(tmp_path, "fsasd p")[0]) == {"plan", "plan=", "prompts.", "prompts="}
    assert asked(tmp_path, "fsasd data=cl")[0] == ["data=clips.csv"]
    assert asked(tmp_path, "fsasd --mu")[0] == ["--multirun"]


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_every_command_answers(command, tmp_path):
    assert "--version" in asked(tmp_path, f"{command} --")[0]


def test_nothing_slow_is_imported_for_an_answer(tmp_path):
    for command in COMMANDS:
        said = asked(tmp_path, f"{command} --", "-X", "importtime")[1]
        modules = {line.rpartition("|")[2].strip() for line in said.splitlines()}
        assert "argcomplete" in modules
        assert not modules & set(SLOW_IMPORTS), (command, modules & set(SLOW_IMPORTS))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_told_of_every_command(shell, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fsasd", "completion", shell])
    assert commands.run("fsasd") == 0
    code = capsys.readouterr().out
    assert all(command in code for command in COMMANDS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=code, text=True, check=True)


def test_bash_completes_an_override(tmp_path):
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = "fsasd detector=mahal"
    script = (
        'eval "$(fsasd completion bash)"\n'
        f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDS=({line}) COMP_CWORD=1\n'
        "_python_argcomplete fsasd\n"
        'echo "${COMPREPLY[0]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # Bash breaks words at =, and replaces what is behind it.
    assert done.stdout.strip() == "mahalanobis"
