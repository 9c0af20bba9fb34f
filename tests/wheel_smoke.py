"""Build the wheel, install it away from the checkout, compose every config, run a tiny experiment.

Run by ``make test``: what an editable install hides (a file missing from the wheel, a path that
only exists in the checkout) shows here.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

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


def main() -> None:
    """Do what the module says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run([sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", folder, "."])
        (wheel,) = folder.glob("*.whl")
        size = wheel.stat().st_size / 1e6
        assert size < 12, f"the wheel has {size:.1f} MB, expected less than 12"
        python = _environment_beside_this_one(folder / "env")
        _run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], cwd=folder)
        _run([python, "-c", COMPOSE], cwd=folder)
        _run(
            [python, "-m", "fsasd.cli.main", "experiment=tiny", f"hydra.run.dir={folder}/run"],
            cwd=folder,
        )
        missing = [path for path in LEFT if not (folder / "run" / path).is_file()]
        assert not missing, f"the run left no {missing}"
        print(f"wheel: {size:.1f} MB, tiny experiment ran from it")


def _environment_beside_this_one(path: Path) -> Path:
    """Make an environment that sees this one's dependencies, but not the checkout."""
    _run([sys.executable, "-m", "venv", path])
    python = path / "bin" / "python"
    site = Path(sysconfig.get_path("purelib"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A path in a .pth file is searched, but the .pth files within it, the editable install among
    # them, are not read.
    (path / "lib" / version / "site-packages" / "dependencies.pth").write_text(f"{site}\n")
    return python


def _run(command: list, cwd: Path = CHECKOUT) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


if __name__ == "__main__":
    main()
