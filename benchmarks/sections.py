"""Detection of several machines: one after the other, against worker processes.

Recordings are simulated, features are computed anew each time. Each measurement is a process of its
own; they alternate, and the ratios are medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib


def detect(data: Path, workers: int) -> None:
    """Detect all machines, and print seconds by the clock and of the processors as JSON."""
    import lightning as L

    from fsasd.data.datamodule import FirstShotDataModule
    from fsasd.data.metadata import read_clips
    from fsasd.detectors.twfr_gmm import TWFRGMM
    from fsasd.generation.cleaning import Cleaning
    from fsasd.generation.filters import Filters
    from fsasd.generation.prompts import WordReplacement
    from fsasd.pipeline.execute import execute
    from fsasd.pipeline.experiment import Experiment, Factory, Synthesis
    from fsasd.runtime.workers import Joblib
    from fsasd.selection.selector import Selector

    parts = (Factory.of(kind) for kind in (WordReplacement, Cleaning, Filters))
    run = Experiment(
        FirstShotDataModule(read_clips(data)), TWFRGMM(), Selector({}),
        Factory.of(L.Trainer, accelerator="cpu"), Synthesis(*parts),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        execute(run, f"{folder}/store", f"{folder}/run", ["detect"], runner=Joblib(workers))
        clock = time.perf_counter() - started
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([clock, sum(one.ru_utime + one.ru_stime for one in used)]))


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=8)
    parser.add_argument("--clips", type=int, default=100, help="of training, for each machine")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--detect", nargs=2, metavar=("DATA", "WORKERS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.detect:
        detect(Path(args.detect[0]), int(args.detect[1]))
        return
    from fsasd.data.simulate import MACHINES, write_factory

    with tempfile.TemporaryDirectory() as folder:
        machines = [*MACHINES][: args.machines]
        data = write_factory(
            Path(folder) / "data", references=(), targets=machines, seconds=10.0,
            train_clips=args.clips, target_domain_clips=10, test_clips=args.clips // 10,
        )  # fmt: skip
        rows = []
        for _ in range(args.repeats):
            for workers in (1, args.workers):
                command = [sys.executable, "-m", "benchmarks.sections", "--detect", str(data)]
                done = subprocess.run(
                    [*command, str(workers)], capture_output=True, text=True, check=True
                )
                rows.append((workers, *json.loads(done.stdout.splitlines()[-1])))
    for name, column in (("by the clock", 1), ("of the processors", 2)):
        one, several = (
            statistics.median(row[column] for row in rows if row[0] == workers)
            for workers in (1, args.workers)
        )
        print(
            f"{args.machines} machines on {joblib.cpu_count()} cores, seconds {name}: one after "
            f"the other {one:.1f}, {args.workers} workers {several:.1f} ({several / one:.2f} x)"
        )


if __name__ == "__main__":
    main()
