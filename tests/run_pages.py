"""Run the commands that pages mark with ``<!-- run -->``, on tiny data; run by ``make test``.

What two pages have in common, as README and the tutorial, runs once, in a folder with ``plant/``,
recordings of two machines. After ``fsasd init plant`` the rest of its table is filled in, as the
reader does, and commands run in there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from page_commands import ROOT, blocks, pages

RATE = 16_000


def main() -> None:
    """Run each page in an empty folder; the first command that fails ends it all."""
    pages_of: dict[tuple[str, ...], list[str]] = {}
    for page in pages():
        if commands := commands_to_run(page):
            pages_of.setdefault(commands, []).append(str(page.relative_to(ROOT)))
    assert pages_of, "no command is marked"
    for commands, names in pages_of.items():
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            run_page(commands, Path(folder))
        seconds = time.perf_counter() - started
        print(f"{', '.join(names)}: {len(commands)} commands, {seconds:.0f} s")


def commands_to_run(page: Path) -> tuple[str, ...]:
    """Return the marked commands of a page, without comments and changes of folder."""
    marked = (one for block in blocks(page) if block.mark == "run" for one in block.commands)
    stripped = (re.sub(r"\s+#.*", "", command) for command in marked)
    return tuple(command for command in stripped if command.split()[0] != "cd")


def run_page(commands: tuple[str, ...], folder: Path) -> None:
    """Run commands in turn, in a folder that gets recordings."""
    write_recordings(folder / "plant")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    place = folder
    for command in commands:
        if newest := sorted(place.glob("outputs/*/models")):
            command = command.replace("<time>", newest[-1].parent.name)
        assert not re.search(r"<\w+>", command), f"{command}: nothing to put there"
        done = subprocess.run(
            command, shell=True, cwd=place, env={**os.environ, "PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        if command.startswith("fsasd init"):
            # As the page's `cd` does.
            place = folder / "plant"
            fill_table(place / "clips.csv")


def write_recordings(folder: Path) -> None:
    """Write a hum in noise, louder noise where it is anomalous."""
    rng = np.random.default_rng(0)
    hum = 0.1 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    for machine in ("pump", "motor"):
        for kind, count in (("train/normal", 14), ("test/normal", 4), ("test/anomaly", 4)):
            for number in range(count):
                path = folder / machine / kind / f"{number}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.normal(scale=0.1 if kind.endswith("anomaly") else 0.025, size=RATE)
                soundfile.write(path, hum + noise, RATE)
    new = folder / "new" / "recording.wav"
    new.parent.mkdir()
    soundfile.write(new, hum, RATE)


def fill_table(manifest: Path) -> None:
    """Fill in machine, split and label from the paths; what is new is not in the table."""
    table = pd.read_csv(manifest, dtype=str)
    table = table[~table["path"].str.startswith("new/")].copy()
    table[["machine", "split", "label"]] = table["path"].str.split("/", expand=True)[[0, 1, 2]]
    table.to_csv(manifest, index=False)


if __name__ == "__main__":
    sys.exit(main())
