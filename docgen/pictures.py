"""The pictures of a run in docs/assets: ``python -m docgen.pictures RUN``.

``RUN`` is the folder of a run of ``fsasd experiment=demo``. ``report.png`` is the first screen of
its report in headless Chromium; ``explanation.png`` is what ``fsasd-score --explain`` draws of the
vacuum's most anomalous test clip.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from fsasd.cli.score import main as score
from fsasd.report.heading import PAGE
from fsasd.report.results import Results

ASSETS = Path(__file__).parents[1] / "docs" / "assets"

MACHINE = "vacuum"
"""Its most anomalous clip has three short bursts, which can be seen."""


def main(arguments: list[str] | None = None) -> int:
    """Make both pictures."""
    parser = argparse.ArgumentParser(prog="python -m docgen.pictures", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run of the demo")
    parser.add_argument("--store", type=Path, default=Path("outputs/store"), help="its store")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        picture_report(chosen.run, Path(made))
        picture_explanation(chosen.run, chosen.store, Path(made))
    return 0


def picture_report(run: Path, folder: Path) -> None:
    """Take a picture of the first screen of a run's report."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("expected chromium or google-chrome, found neither: install one")
    taken = folder / "report.png"
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--window-size=1000,1050", f"--screenshot={taken}",
               (run / PAGE).resolve().as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    _save(taken, "report.png")


def picture_explanation(run: Path, store: Path, folder: Path) -> None:
    """Explain the most anomalous test clip of the machine."""
    results = Results(run)
    clips = results.rows("clips", MACHINE)
    name = clips.loc[clips["score"].idxmax(), "file"]
    (key,) = results.artifacts.loc[results.artifacts["stage"] == "factory", "key"]
    (recording,) = (store / "factory" / key).rglob(f"{MACHINE}/test/{name}")
    model = run / "models" / MACHINE / "section_00"
    score(["--model", str(model), "--explain", str(folder / "why"), str(recording)])
    (drawn,) = (folder / "why").rglob("*.png")
    _save(drawn, "explanation.png")


def _save(picture: Path, name: str) -> None:
    # Of 256 colours, a third of the size.
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256).save(ASSETS / name, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
