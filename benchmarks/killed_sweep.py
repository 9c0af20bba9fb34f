"""A sweep that is killed at random moments ends complete, with nothing computed twice.

The same command is started again after each kill: ``fsasd -m`` over detectors and seeds, on the
tiny simulated factory, with synthetic clips by signal transforms. One of the kills is SIGTERM, the
others SIGKILL; each is of all processes of the sweep, as when a machine goes down.

    python -m benchmarks.killed_sweep joblib --kills 5
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from fsasd.store.key import KEY
from fsasd.store.provenance import PROVENANCE

DETECTORS = [
    "knn", "lof", "centres", "gmm", "ocsvm", "iforest", "twfr_gmm", "twfr_gmm_max",
]  # fmt: skip

LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    # It would start all jobs at once.
    "submitit": ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=4"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2",
            "+hydra.launcher.ray.init.include_dashboard=false"],
}  # fmt: skip

RAY = {"RAY_memory_monitor_refresh_ms": "0", "RAY_raylet_start_wait_time_s": "300"}
"""Variables for a machine that is short of memory, and busy."""

BUILDING = re.compile(r"INFO\] - .*: building (\S.*?/[0-9a-f]{16})(?: \(|$)", re.MULTILINE)
STAGES_OF_A_JOB = 4
"""At least: judge, curve, rule, detect."""


@dataclass
class Sweep:
    """The sweep's command and what its attempts leave.

    Attributes:
        folder: Gets the store and the sweep's folder.
        launcher: A key of ``LAUNCHERS``.
        detectors: To sweep over.
        seeds: Number of them.
        builds: Of each attempt, the number of builds of each artifact, from the jobs' logs.
        again: Artifacts that were whole when an attempt began and were built in it.
        popen: Starts a process, as ``subprocess.Popen`` does.
    """

    folder: Path
    launcher: str
    detectors: list[str]
    seeds: int
    builds: list[Counter[str]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen

    @property
    def jobs(self) -> int:
        """The number of jobs."""
        return len(self.detectors) * self.seeds

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command, in a session of its own."""
        command = [
            sys.executable, "-c", "from fsasd.cli.commands import fsasd; raise SystemExit(fsasd())",
            "-m", *LAUNCHERS[self.launcher], f"detector={','.join(self.detectors)}",
            f"seed={','.join(map(str, range(self.seeds)))}", "data=factory_tiny",
            "generator=transforms", "synthesis.clips_per_label=4", "stages=[synthesise,detect]",
            "trainer.enable_progress_bar=false", "hydra.sweep.dir=sweep", "store=store",
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FSASD")}
        environment |= {"OMP_NUM_THREADS": "1"} | RAY
        with (self.folder / "command.log").open("ab") as log:
            return self.popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def attempt(self, after: int, delay: float, number: signal.Signals) -> int:
        """Run the command, and kill it once so many artifacts were begun.

        Args:
            after: That many; 0 for no kill.
            delay: Seconds to wait then.
            number: The signal.

        Returns:
            The exit code.
        """
        whole, sizes = self.artifacts(), self._sizes()
        process = self.start()
        while process.poll() is None:
            if after and sum(self._begun(sizes).values()) >= after:
                time.sleep(delay)
                kill(process, number)
                break
            time.sleep(0.2)
        code = process.wait()
        begun = self._begun(sizes)
        self.builds.append(begun)
        # What was built anew has another time in its provenance.
        now = self.artifacts()
        self.again += [str(path) for path, text in whole.items() if now.get(path) != text]
        self.again += [path for path in begun if Path(path) in whole]
        return code

    def artifacts(self) -> dict[Path, bytes]:
        """Return the provenance of each complete artifact in the store, by its folder."""
        files = (self.folder / "store").glob(f"**/{PROVENANCE}")
        return {p.parent: p.read_bytes() for p in files if KEY.fullmatch(p.parent.name)}

    def _logs(self) -> list[Path]:
        return sorted((self.folder / "sweep").glob("*/run.log"))

    def _sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self._logs()}

    def _begun(self, sizes: dict[Path, int]) -> Counter[str]:
        """Return how often each artifact was begun, by what was logged beyond some sizes."""
        new = [path.read_bytes()[sizes.get(path, 0) :].decode() for path in self._logs()]
        return Counter(match[1] for text in new for match in BUILDING.finditer(text))


def kill(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all that it has started, and wait until they are gone.

    Those that are left after SIGTERM are killed: a scheduler does so, too.
    """
    others: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        others = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    for other in others:
        with contextlib.suppress(psutil.NoSuchProcess):
            other.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    for left in psutil.wait_procs(others, timeout=10)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    process.kill()


def run(sweep: Sweep, kills: int, draw: random.Random) -> list[str]:
    """Kill a sweep several times, let it end, and run it once more.

    Args:
        sweep: In an empty folder.
        kills: How many; one is SIGTERM.
        draw: The moments.

    Returns:
        What is not as it must be, in sentences; empty if all is well.
    """
    share = max(2, 3 * sweep.jobs * STAGES_OF_A_JOB // (2 * (kills + 1)))
    gentle = draw.randrange(kills) if kills else None
    for number in range(kills):
        how = signal.SIGTERM if number == gentle else signal.SIGKILL
        after = draw.randrange(1, share)
        code = sweep.attempt(after, draw.uniform(0, 1), how)
        print(f"{how.name} after {after} builds had begun: exit code {code}, "
              f"{len(sweep.artifacts())} artifacts are whole", flush=True)  # fmt: skip
    problems = []
    if code := sweep.attempt(0, 0, signal.SIGKILL):
        problems.append(f"the last attempt ended with exit code {code}")
    print(f"complete: {len(sweep.artifacts())} artifacts; builds of each attempt: "
          f"{[sum(begun.values()) for begun in sweep.builds]}", flush=True)  # fmt: skip
    table = _table(sweep.folder)
    if len(table) != sweep.jobs or table["reason"].notna().any() or table["official"].isna().any():
        problems.append(f"sweep.csv has no result of each of {sweep.jobs} jobs:\n{table}")
    if sweep.attempt(0, 0, signal.SIGKILL) or sweep.builds[-1]:
        problems.append(f"the same command once more built {dict(sweep.builds[-1])}")
    if not table.equals(_table(sweep.folder)):
        problems.append("the same command once more has other results")
    problems += [f"{path}: it was whole, and built again" for path in sorted({*sweep.again})]
    for number, begun in enumerate(sweep.builds):
        twice = {path: count for path, count in begun.items() if count > 1}
        problems += [f"attempt {number}: built twice: {twice}"] if twice else []
    left = [str(path) for path in (sweep.folder / "store").rglob("*.partial")]
    return problems + ([f"unfinished: {left}"] if left else [])


def _table(folder: Path) -> pd.DataFrame:
    columns = ["job", "overrides", "official", "auc_source", "auc_target", "pauc", "reason"]
    return pd.read_csv(folder / "sweep" / "sweep.csv")[columns]


def main() -> None:
    """Run the sweep under one launcher, or several, and exit with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("launchers", nargs="+", choices=LAUNCHERS)
    parser.add_argument("--detectors", type=int, default=len(DETECTORS), help="how many (8)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--draw", type=int, default=0, help="seed of the moments")
    parser.add_argument("--folder", type=Path, default=Path("outputs/killed_sweep"))
    options = parser.parse_args()
    wrong = False
    for launcher in options.launchers:
        folder = options.folder.absolute() / launcher
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sweep = Sweep(folder, launcher, DETECTORS[: options.detectors], options.seeds)
        print(f"{launcher}: {sweep.jobs} jobs", flush=True)
        problems = run(sweep, options.kills, random.Random(options.draw))
        print(*(problems or ["nothing was computed twice"]), sep="\n", flush=True)
        wrong |= bool(problems)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
