"""The wheel, installed away from the checkout, composes every config and runs a tiny experiment.

What an editable install hides (a file missing from the wheel, a path that only exists in the
checkout) shows here. It is built from the sdist, as those who build it from there do.
"""

import email
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]

COMPOSE = """
from pathlib import Path
import fsasd, fsasd.conf
from hydra import compose, initialize_config_module
import fsasd.cli.main  # registers the resolvers

root = Path(fsasd.conf.__file__).parent
assert root.parent == Path(fsasd.__file__).parent, f"conf is not part of the package: {root}"
choices = sorted(
    (path.parent.name, path.stem) for path in root.glob("*/*.yaml")
)
assert len(choices) > 15, choices
# One of each group: test_main.py composes them all.
with initialize_config_module("fsasd.conf", version_base="1.3"):
    for group, name in dict(choices).items():
        compose("config", [f"{group}={name}"])

from fsasd.data.download.catalogue import archives, editions
assert len(editions()) >= 7 and all(archives(edition) for edition in editions())
"""

LEFT_OUT = [".*", "__pycache__", "*.egg-info", "build", "dist", "outputs", "multirun", "wandb"]
"""Of the checkout: all that git ignores or is for others than those who build it."""

LEFT = [
    ".hydra/config.yaml",
    "run.log",
    "captions.csv",
    "synthetic/manifest.csv",
    "selection.csv",
    "scores/anomaly_score_pump_section_00_test.csv",
    "scores/decision_result_pump_section_00_test.csv",
    "metrics.csv",
    "models/pump/section_00/detector.json",
    "report.html",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    # What a build leaves in its folder would disturb tests that run beside it.
    folder = tmp_path_factory.mktemp("source") / "fsasd"
    return shutil.copytree(CHECKOUT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))


@pytest.fixture(scope="module")
def tracked(source):
    """The files of the checkout, before anything is built in it."""
    return {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(source, tracked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "-q", "--no-isolation", "-o", folder, "."], cwd=source)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_the_configuration_alone(wheel, tracked):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        about = email.message_from_bytes(archive.read(metadata))
    package = {name for name in tracked if name.startswith("fsasd/")}
    package |= {f"fsasd/{name}" for name in tracked if name.startswith("conf/")}
    assert names == package
    assert wheel.stat().st_size < 12e6
    assert about["Description-Content-Type"] == "text/markdown"
    assert about["License-Expression"] == "MIT"


def test_the_sdist_holds_all_that_tests_and_pages_need(built, tracked):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = [member.name for member in archive if member.isfile()]
    names = {name.partition("/")[2] for name in files}
    written = {"PKG-INFO", "setup.cfg"}
    assert {name for name in names if ".egg-info/" not in name} - written == tracked


@pytest.mark.nightly
def test_a_tiny_experiment_runs_from_the_wheel(wheel, tmp_path):
    python = _environment_beside_this_one(tmp_path / "env")
    _run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], cwd=tmp_path)
    _run([python, "-c", COMPOSE], cwd=tmp_path)
    run = tmp_path / "run"
    _run([python, "-m", "fsasd.cli.main", "experiment=tiny", f"hydra.run.dir={run}"], cwd=tmp_path)
    assert [path for path in LEFT if not (run / path).is_file()] == []


def _environment_beside_this_one(path: Path) -> Path:
    """Make an environment that sees this one's dependencies, but not the checkout."""
    _run([sys.executable, "-m", "venv", path], cwd=path.parent)
    python = path / "bin" / "python"
    site = Path(sysconfig.get_path("purelib"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A path in a .pth file is searched, but the .pth files within it, the editable install among
    # them, are not read.
    (path / "lib" / version / "site-packages" / "dependencies.pth").write_text(f"{site}\n")
    return python


def _run(command: list, cwd: Path) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)
