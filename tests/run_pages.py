"""Run the commands that pages mark with ``<!-- run -->``, on tiny data; run by ``make test``.

Each page has a folder with ``plant/``, recordings of two machines. After ``fsasd init plant`` the
rest of its table is filled in, as the reader does, and commands run in there.
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
    commands_of = {
        page: [one for block in blocks(page) if block.mark == "run" for one in block.commands]
        for page in pages()
    }
    assert any(commands_of.values()), "no command is marked"
    for page, commands in commands_of.items():
        if commands:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                run_page(commands, Path(folder))
            seconds = time.perf_counter() - started
            print(f"{page.relative_to(ROOT)}: {len(commands)} commands, {seconds:.0f} s")


def run_page(commands: list[str], folder: Path) -> None:
    """Run commands in turn, in a folder that gets recordings."""
    write_recordings(folder / "plant")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    place = folder
    for command in commands:
        if command.split()[0] == "cd":
            continue  # done after `fsasd init`
        if newest := sorted(place.glob("outputs/*/models")):
            command = command.replace("<time>", newest[-1].parent.name)
        assert not re.search(r"<\w+>", command), f"{command}: nothing to put there"
        done = subprocess.run(
            command, shell=True, cwd=place, env={**os.environ, "PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        if command.startswith("fsasd init"):
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
