"""The wheel, installed away from the checkout, composes every config and runs a tiny experiment.

What an editable install hides (a file missing from the wheel, a path that only exists in the
checkout) shows here.
"""

import shutil
import subprocess
import sys
import sysconfig
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
with initialize_config_module("fsasd.conf", version_base="1.3"):
    for group, name in choices:
        override = f"+{group}={name}" if group == "experiment" else f"{group}={name}"
        compose("config", [override.lstrip("+")])
print(f"composed {len(choices)} configs")

from fsasd.data.download.catalogue import archives, editions
assert len(editions()) >= 7 and all(archives(edition) for edition in editions())
"""

LEFT_OUT = [".*", "__pycache__", "*.egg-info", "build", "dist", "outputs"]

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


def test_a_tiny_experiment_runs_from_the_wheel(tmp_path):
    # What a build leaves in its folder would disturb tests that run beside it.
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    source = shutil.copytree(CHECKOUT, tmp_path / "source", ignore=ignored)
    build = [sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation"]
    _run([*build, "-o", tmp_path, "."], cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 12e6
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
