"""CPU time of commands, of a run that is all in the store, of ``fsasd-score``: as ratios.

Each is measured in turn with imports of the same process start, several times over, and medians are
compared: so that a busy machine slows all of them alike. A JSON object ends the output.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NUMPY, TORCH = "import numpy", "import torch"
SCORER = "import numpy, scipy.linalg, soundfile"

COMMAND = (
    "import sys; from fsasd.cli import commands; "
    "sys.argv = sys.argv[1:]; sys.exit(commands.run(sys.argv[0]))"
)

ASKED = [
    *([command, option] for command in (
        "fsasd", "fsasd-check", "fsasd-download", "fsasd-evaluate", "fsasd-export", "fsasd-report",
        "fsasd-score", "fsasd-store",
    ) for option in ("--help", "--version")),
    ["fsasd", "plan", "--help"], ["fsasd", "--no-such-option"], ["fsasd", "detecto=knn"],
    ["fsasd-score", "--no-such-option"], ["fsasd-store", "ls"],
]  # fmt: skip


def cpu_seconds(arguments: list[str], folder: Path) -> float:
    """Return the user and system time of a Python process; its exit code may be any."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", *arguments],
        cwd=folder, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fsasd(*arguments: str) -> list[str]:
    """Return the arguments of a Python process that runs a command."""
    return [COMMAND, *arguments]


def measured(asked: dict[str, list[str]], folder: Path, repeats: int) -> dict[str, float]:
    """Return the median CPU time of each, of interleaved repeats."""
    times: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(repeats):
        for name, arguments in asked.items():
            times[name].append(cpu_seconds(arguments, folder))
    return {name: statistics.median(values) for name, values in times.items()}


def shown(title: str, times: dict[str, float], unit: str, aim: float) -> dict[str, float]:
    """Print the times as multiples of one of them, and return these."""
    ratios = {name: seconds / times[unit] for name, seconds in times.items() if name != unit}
    print(f"\n{title}: {unit} takes {times[unit]:.3f} s of CPU time; the aim is {aim:g} x")
    for name, ratio in ratios.items():
        print(f"{ratio:6.2f} x  {times[name]:.3f} s  {name}")
    return ratios


def main() -> None:
    """Measure, and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    ratios_of: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "outputs" / "store").mkdir(parents=True)
        asked = {" ".join(words): fsasd(*words) for words in ASKED}
        times = measured({NUMPY: [NUMPY], **asked}, folder, repeats)
        ratios_of["commands"] = shown("Commands", times, NUMPY, 4)
        run = ["fsasd", "experiment=tiny", "generator=transforms"]
        knn = [*run, "detector=knn"]
        for name, words in (("twfr_gmm", run), ("knn", knn)):
            cpu_seconds(fsasd(*words, f"hydra.run.dir={name}"), folder)
        asked = {"a run that is all in the store": fsasd(*run)}
        times = measured({TORCH: [TORCH], **asked}, folder, repeats)
        ratios_of["reused run"] = shown("Runs", times, TORCH, 1.5)
        wav = str(next((folder / "outputs" / "store" / "factory").rglob("*test*.wav")))
        asked = {
            f"fsasd-score, {name}": fsasd("fsasd-score", "--model", f"{name}/models/pump", wav)
            for name in ("twfr_gmm", "knn")
        }
        times = measured({SCORER: [SCORER], **asked}, folder, repeats)
        ratios_of["score"] = shown("Scoring of one recording", times, SCORER, 2)
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), "repeats": repeats, **ratios_of}))


if __name__ == "__main__":
    main()
