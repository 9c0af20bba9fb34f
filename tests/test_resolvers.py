"""Values that the configuration computes: once for a command, whatever processes it has."""

import concurrent.futures
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
import several_ranks
from omegaconf import OmegaConf

from fsasd.cli import resolvers
from fsasd.cli.paths import keep_paths


@pytest.fixture
def new_command(monkeypatch):
    """A process that has resolved nothing yet."""
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    return monkeypatch


def test_commands_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(resolvers.time, "strftime", lambda form: "2026-11-29_01-02-03")
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        names = sorted(threads.map(lambda _: resolvers._make_folder(tmp_path / "out"), range(12)))
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(
        ["2026-11-29_01-02-03", *(f"2026-11-29_01-02-03-{n}" for n in range(2, 13))]
    )


def test_a_task_of_an_array_is_named(tmp_path, new_command):
    new_command.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert resolvers._make_folder(tmp_path).endswith("_7")


def test_a_command_has_one_folder_and_one_beginning(tmp_path, new_command):
    new_command.chdir(tmp_path)
    cfg = OmegaConf.create({"run": "${fsasd.folder:outputs}", "sweep": "${fsasd.folder:outputs}"})
    assert Path(cfg.run).is_dir()
    assert cfg.run == cfg.sweep == f"outputs/{os.environ['FSASD_FOLDER']}"
    # What runs in a folder of its own makes no other one.
    new_command.chdir(cfg.run)
    assert OmegaConf.create({"run": "${fsasd.folder:outputs}"}).run == cfg.run
    assert resolvers.command_started() == resolvers.command_started()
    assert len(list(Path(tmp_path).iterdir())) == 1


def test_the_jobs_of_a_sweep_get_what_it_began_with_without_inheriting_it(tmp_path, new_command):
    """As Hydra hands it to jobs, in the cache of the configuration."""
    values = {"folder": f"${{fsasd.folder:{tmp_path}}}", "started": "${fsasd.started:}"}
    cfg = OmegaConf.create(values)
    resolved = OmegaConf.to_container(cfg, resolve=True)
    job = OmegaConf.create(values)
    OmegaConf.copy_cache(pickle.loads(pickle.dumps(cfg)), job)
    for name in ("FSASD_FOLDER", "FSASD_STARTED"):
        new_command.delenv(name)
    assert OmegaConf.to_container(job, resolve=True) == resolved


def resolve(rank, root):
    return resolvers.folder(root), resolvers.command_started()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", several_ranks.LAUNCHERS)
def test_ranks_that_are_started_at_once_agree(tmp_path, new_command, launcher):
    _, ((_, first), (_, second)) = several_ranks.run(resolve, str(tmp_path), launcher=launcher)
    assert first == second
    assert [str(path) for path in tmp_path.iterdir()] == [first[0]]


def test_main_names_the_resolvers_so_that_they_come_with_it():
    """Launchers pickle it by value, and resolve the configuration before it is called."""
    main = importlib.import_module("fsasd.cli.main").main
    assert b"fsasd.cli.resolvers" in cloudpickle.dumps(main.__wrapped__)


def test_resolvers_load_no_torch():
    code = "import sys; import fsasd.cli.resolvers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Paths.


def test_relative_paths_stay_where_they_were(tmp_path, monkeypatch):
    (tmp_path / "models" / "large").mkdir(parents=True)
    (tmp_path / "a.csv").touch()
    (tmp_path / "job").mkdir()
    cfg = OmegaConf.create(
        {
            "store": "outputs/store",
            "seed": 0,
            "data": {"root": ["a", "/data/b"], "cache": "${store}", "ground_truth": None,
                     "manifest": "???", "targets": ["fan"]},
            "generator": {"checkpoint": "models/large", "name": "nano"},
            "captions": {"text": "a sentence " * 100, "table": "a.csv"},
        }
    )  # fmt: skip
    before = cfg.copy()
    monkeypatch.chdir(tmp_path)
    keep_paths(cfg, tmp_path)
    assert cfg == before
    monkeypatch.chdir(tmp_path / "job")
    keep_paths(cfg, tmp_path)
    assert OmegaConf.to_container(cfg, resolve=True) == {
        "store": f"{tmp_path}/outputs/store",
        "seed": 0,
        "data": {
            "root": [f"{tmp_path}/a", "/data/b"],
            "cache": f"{tmp_path}/outputs/store",
            "ground_truth": None,
            "manifest": "???",
            "targets": ["fan"],
        },
        "generator": {"checkpoint": f"{tmp_path}/models/large", "name": "nano"},
        "captions": {"text": "a sentence " * 100, "table": f"{tmp_path}/a.csv"},
    }
