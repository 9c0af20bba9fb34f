"""What cannot be composed is refused in one line; another Hydra, before it is imported."""

import sys

import pytest
from hydra._internal import utils
from joblib.externals.loky.process_executor import TerminatedWorkerError

import fsasd.cli.main  # noqa: F401, lets Hydra print in one line
from fsasd.cli import commands, hydra_version, sweep
from fsasd.report.runs.status import SWEEP


def typed(monkeypatch, capsys, *arguments):
    """Return what the command prints that cannot be composed."""
    monkeypatch.setattr(sys, "argv", ["fsasd", *arguments])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as ended:
        commands.run("fsasd")
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    return line


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSASD_FOLDER", str(tmp_path / "run"))
    monkeypatch.setenv("FSASD_STARTED", "2026-01-01T00:00:00+00:00")
    yield
    # Nothing has run.
    assert not [*tmp_path.rglob("run.log")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "detector=knn", "detector.kk=1,2"],
         "detector.kk: there is no such setting. Did you mean 'k'? There are density, "),
        (["-m", "detector=knn,kn"],
         "detector=kn: there is no such choice. Did you mean 'knn'? There are anopatch, "),
        (["experiment=tini"], "experiment=tini: there is no such choice. Did you mean 'tiny'?"),
        (["seed=[1"], "seed=[1: no viable alternative at input"),
        (["hydra/launcher=nope"],
         "hydra/launcher=nope: there is no such choice. There are basic, joblib, ray, "),
    ],
)  # fmt: skip
def test_what_cannot_be_composed_is_said_in_one_line(monkeypatch, capsys, arguments, said):
    assert typed(monkeypatch, capsys, *arguments).startswith(said)


@pytest.mark.parametrize("before", [None, '{"started": "of an earlier sweep"}'])
def test_a_sweep_that_is_refused_leaves_no_list_of_its_jobs(tmp_path, monkeypatch, capsys, before):
    listed = tmp_path / "run" / SWEEP
    if before:
        listed.parent.mkdir()
        listed.write_text(before)
    assert typed(monkeypatch, capsys, "-m", "detector=knn,kn").startswith("detector=kn: ")
    assert (listed.read_text() if listed.is_file() else None) == before
    # Nothing is compared when the process ends.
    assert sweep._end() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed: 1 # \u00fc".encode("latin-1"), "'utf-8' codec can't decode byte 0xfc"),
        (b"seed: 1\0", "unacceptable character #x0000"),
        (b"data:\n\troot: a\n", "line 2: found character '\\t'"),
        (b"data:\n  root: a\n   seed: 1\n", "line 3: "),
        (b"data: [a\n", "line 2: expected ',' or ']'"),
        (b"seed: 1\nseed: 2\n", "line 2: found duplicate key seed"),
        (b"- a\n", "found a list"),
        (b"5\n", "Invalid loaded object type: int"),
        (b"a: &a [*a]\n", "maximum recursion depth exceeded"),
        (b"a: " + b"[" * 2000, "maximum recursion depth exceeded"),
        (b"a: !!int ''\n", "string index out of range"),
        (b"a: !!python/object:os.system {}\n", "line 1: could not determine a constructor"),
        (b"seed: ${nope\n", "no viable alternative at input '${nope'"),
        (b"defaults: 5\n", "Invalid defaults list in 'experiment/study', defaults must be a list"),
        (b"defaults:\n- [a]\n", "Unsupported type in defaults"),
        (b"~: a\n", "Incompatible key type 'NoneType'"),
        (b"# @package\n", "Expected header format"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_the_configuration_is_named_in_one_line(
    tmp_path, monkeypatch, capsys, content, said
):
    path = tmp_path / "conf/experiment/study.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    line = typed(monkeypatch, capsys, "--config-dir", "conf", "experiment=study")
    assert line.startswith(f"{path}: expected a configuration in YAML: {said}")


def test_a_sweep_without_its_cluster_leaves_no_list_of_its_jobs(tmp_path, monkeypatch, capsys):
    def join(hydra_config):
        raise ConnectionError("there is no cluster at 10.0.0.1:6379")

    monkeypatch.setattr(sweep, "join_cluster", join)
    said = typed(monkeypatch, capsys, "-m", "detector=knn,lof")
    assert said == "there is no cluster at 10.0.0.1:6379"
    assert not (tmp_path / "run" / SWEEP).exists()


PLUGINS = [
    ("hydra/launcher=joblib", "sweep"),
    ("hydra/launcher=submitit_local", "slurm"),
    ("hydra/launcher=submitit_slurm", "slurm"),
    ("hydra/launcher=ray", "ray"),
    ("hydra/sweeper=optuna", "sweep"),
]


@pytest.fixture
def without_plugins(monkeypatch):
    """Neither launchers nor sweepers are installed."""
    from hydra.core.config_store import ConfigStore

    repository = ConfigStore.instance().repo["hydra"]
    for group in ("launcher", "sweeper"):
        nodes = {name: n for name, n in repository[group].items() if name == "basic.yaml"}
        monkeypatch.setitem(repository, group, nodes)
    monkeypatch.setattr("hydra.core.plugins.Plugins._scan_all_plugins", lambda *a, **k: ([], None))


@pytest.mark.parametrize(("override", "extra"), PLUGINS)
def test_a_plugin_that_is_not_installed_names_its_extra(
    monkeypatch, capsys, without_plugins, override, extra
):
    said = typed(monkeypatch, capsys, "-m", "detector=knn,lof", override)
    assert said == f"{override} is not installed: pip install 'fsasd[{extra}]'"


@pytest.mark.parametrize(
    ("source", "found"),
    [('__version__ = "1.1.2"\n', "version 1.1.2"), ("", "another package of that name")],
)
def test_another_hydra_is_named_before_it_is_imported(tmp_path, monkeypatch, capsys, source, found):
    package = tmp_path / "packages" / "hydra"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"{source}raise RuntimeError('imported')\n")
    spec = hydra_version.find_spec

    def of_another(name):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(package.parent)
            patch.delitem(sys.modules, name)
            return spec(name)

    monkeypatch.setattr(hydra_version, "find_spec", of_another)
    monkeypatch.setattr(sys, "argv", ["fsasd", "detector=knn"])
    assert commands.run("fsasd") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"Hydra 1.3 or newer is expected, found {found} in {package}: ")


def test_a_worker_that_is_killed_is_one_line(monkeypatch, capsys):
    def launch():
        raise TerminatedWorkerError("A worker was unexpectedly terminated.\n\nThe exit codes ...")

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["fsasd", "-m"])
    with pytest.raises(SystemExit) as ended:
        utils.run_and_report(launch)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("the launcher ended before its jobs: A worker was unexpectedly termin")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(TerminatedWorkerError):
        utils.run_and_report(launch)
