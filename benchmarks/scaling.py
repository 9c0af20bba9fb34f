"""Time, memory and disk of every stage, by the number of clips and of machines, and fits to them.

    python -m benchmarks.scaling [--machines 10 30 90] [--clips 100 1000 10000 100000]

What commands do is measured on machines of 20 clips of one second, without their start; what works
on clips alone, on clips of a tenth of a second. Seconds are those of the processor, of all threads;
megabytes the highest that the process had until then. A fit is ``a + b n`` with the least relative
errors; the exponent is that of what comes on top of ``a``, between the two largest sizes: 1 is
proportional, 2 quadratic.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import math
import os
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from hydra import compose, initialize_config_module
from scipy.optimize import nnls

from fsasd.cli.run import run
from fsasd.data.check.inspection import inspect
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hashes
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.manifest import read_manifest
from fsasd.data.metadata import Clip
from fsasd.detectors.knn import KNN
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.pipeline.execute import METHOD
from fsasd.pipeline.experiment import Experiment, Factory, Synthesis
from fsasd.pipeline.plan import plan
from fsasd.runtime.processes import limit_messages
from fsasd.selection.selector import Selector
from fsasd.store.verifying import forget

PER_MACHINE = 20
RATE = 16_000
TABLES = (100, 400, 1600, 10_000)
"""Machines, of whose clips there is only metadata."""

SYNTHESIS = ["generator=transforms", "synthesis.clips_per_label=8"]
COMMANDS = {
    "check, all samples": ["stages=[check]"],
    "synthesise and judge, 2 x 8 clips by transforms": [*SYNTHESIS, "stages=[synthesise]"],
    "detect, with a chosen setting": [*SYNTHESIS, "stages=[detect]"],
    "report": [*SYNTHESIS, "stages=[report]"],
    "plan, all in the store": [*SYNTHESIS, "plan=true"],
    "the whole run again, all in the store": SYNTHESIS,
}
"""Run one after the other, in one store and one run folder."""


@dataclass(frozen=True)
class Measured:
    """What one call or command took.

    Attributes:
        seconds: Of the processor.
        megabytes: Peak of the process until then; NaN where it was not looked at.
        disk: Bytes that it left.
        files: Files that it left.
    """

    seconds: float
    megabytes: float = math.nan
    disk: int = 0
    files: int = 0


def main() -> None:
    """Print a table for machines, and one for clips."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--machines", type=int, nargs="*", default=[10, 30, 90])
    parser.add_argument("--clips", type=int, nargs="*", default=[100, 1000, 10_000, 100_000])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        by_tables(TABLES)
        if args.machines:
            by_machines(Path(name) / "machines", sorted(args.machines))
        if args.clips:
            by_clips(Path(name) / "clips", sorted(args.clips))


def by_machines(folder: Path, sizes: Sequence[int]) -> None:
    """Measure the commands on several numbers of machines."""
    print(f"machines of {PER_MACHINE} clips of 1 s: {', '.join(map(str, sizes))}", flush=True)
    write_machines(folder, sizes[-1], seconds=1.0)
    measured: dict[str, list[Measured]] = {name: [] for name in COMMANDS}
    for size in sizes:
        into = folder / f"run-{size}"
        common = [
            "data=manifest", f"data.manifest={manifest(folder, size)}", "runner=serial",
            f"store={folder}/store-{size}",
        ]  # fmt: skip
        before = room(folder, size)
        for name, options in COMMANDS.items():
            one = command([*common, *options], into)
            after = room(folder, size)
            one = replace(one, disk=after[0] - before[0], files=after[1] - before[1])
            measured[name].append(one)
            before = after
            print(f"  {size} machines, {name}: {one}", flush=True)
        pages = [into / "report.html", *(into / "report").glob("*.html")]
        largest = max((page.stat().st_size for page in pages if page.is_file()), default=0)
        print(f"  {size} machines: {len(pages)} pages, of {largest / 1e6:.1f} MB at most")
    print("| command | seconds, m machines | exponent | MB at most | kB, files a machine |")
    print("|---|---|---|---|---|")
    for name, several in measured.items():
        a, b = fitted(sizes, [one.seconds for one in several])
        base, grows = fitted(sizes, [one.megabytes for one in several])
        last = several[-1]
        print(
            f"| {name} | {a:.1f} + {b:.3f} m | {exponent(sizes, several, a):.2f} "
            f"| {base:.0f} + {grows:.2f} m | {last.disk / sizes[-1] / 1e3:.0f}, "
            f"{last.files / sizes[-1]:.1f} |"
        )


def by_tables(sizes: Sequence[int]) -> None:
    """Measure what needs no recordings, on the metadata of so many machines."""
    print("| machines | clips | data module | one pass over the machines, where(machine=) | kept |")
    print("|---|---|---|---|---|")
    for size in sizes:
        clips = [
            Clip(Path(f"m{number}/{i}.wav"), f"m{number}", "target", "train", label="normal")
            for number in range(size)
            for i in range(PER_MACHINE)
        ]
        made = processor_seconds(lambda c=clips: FirstShotDataModule(c))
        tracemalloc.start()
        data = FirstShotDataModule(clips)
        asked = len([data.clips.where(machine=machine) for machine in data.targets])
        kept = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        assert asked == size
        data = FirstShotDataModule(clips)
        turn = processor_seconds(
            lambda d=data: [d.clips.where(machine=machine) for machine in d.targets]
        )
        row = f"| {size:,} | {len(clips):,} | {made:.2f} s | {turn:.3f} s | {kept:.1f} MB |"
        print(row, flush=True)


def by_clips(folder: Path, sizes: Sequence[int]) -> None:
    """Measure what works on clips, in this process."""
    print(f"clips of 0.1 s: {', '.join(map(str, sizes))}", flush=True)
    write_machines(folder, math.ceil(sizes[-1] / PER_MACHINE), seconds=0.1)
    measured: dict[str, list[Measured]] = {}
    for size in sizes:
        table = manifest(folder, math.ceil(size / PER_MACHINE))
        data = FirstShotDataModule(read_manifest(table), cache=folder / f"cache-{size}")
        paths = [clip.path for clip in data.clips]
        calls: dict[str, Callable[[], object]] = {
            "reading a manifest, its data module": lambda t=table: FirstShotDataModule(
                read_manifest(t)
            ),
            "content hashes": lambda d=data, p=paths: content_hashes(p, d.cache.folder),
            "inspection, all samples": lambda d=data: inspect(d.clips),
            "planning of all stages, keys included": lambda d=data: planned(d),
            "each machine's clips in turn": lambda d=data: [
                d.machine(machine) for machine in d.targets
            ],
        }
        for name, call in calls.items():
            measured.setdefault(name, []).append(Measured(processor_seconds(call)))
            print(f"  {size} clips, {name}: {measured[name][-1].seconds:.3f} s", flush=True)
    for name, detector in {"k-NN": KNN(), "TWFR-GMM": TWFRGMM()}.items():
        few = [size for size in sizes if size <= 10_000]
        for size in few:
            rows = of_one_machine(folder, size)
            # The first fit reads the clips.
            detector.fit(rows)
            fit = processor_seconds(lambda d=detector, r=rows: d.fit(r))
            score = processor_seconds(lambda d=detector, r=rows: d.score(r))
            measured.setdefault(f"{name}: fit on n clips", []).append(Measured(fit))
            measured.setdefault(f"{name}: score n clips by n", []).append(Measured(score))
    print("| work | seconds, n clips | exponent | measured |")
    print("|---|---|---|---|")
    for name, several in measured.items():
        seconds = [one.seconds for one in several]
        a, b = fitted(sizes[: len(seconds)], seconds)
        texts = ", ".join(f"{one:.2g}" for one in seconds)
        print(
            f"| {name} | {a:.2g} + {1e3 * b:.2g} n / 1000 "
            f"| {exponent(sizes[: len(seconds)], several, a):.2f} | {texts} |"
        )


def planned(data: FirstShotDataModule) -> int:
    """Plan a run with every stage but the fine-tuning, as the command does, and make all keys."""
    run = Experiment(
        data, KNN(), Selector({"k": [1, 2]}), Factory({"_target_": "lightning.Trainer"}),
        Synthesis(
            Factory({"_target_": "fsasd.generation.prompts.WordReplacement"}),
            Factory({"_target_": "fsasd.generation.cleaning.Cleaning"}),
            Factory({"_target_": "fsasd.generation.filters.Filters"}),
        ),
        Factory({"_target_": "fsasd.generation.transforms.FaultTransforms",
                 "faults": {"leak": {"strength": [0.2, 0.5], "above": [2e3, 4e3]}}}),
    )  # fmt: skip
    stages = [stage for group in plan(METHOD, run).values() for stage in group]
    return len([stage.spec() for stage in stages])


def of_one_machine(folder: Path, size: int) -> Clips:
    """Return clips of many machines as if they were of one."""
    table = manifest(folder, math.ceil(size / PER_MACHINE))
    clips = [
        type(clip)(clip.path, "one", split="train", label="normal")
        for clip in read_manifest(table)[:size]
    ]
    return Clips(clips, FeatureCache())


def write_machines(folder: Path, machines: int, seconds: float) -> None:
    """Write noise of so many machines; anomalies click."""
    samples = round(seconds * RATE)
    for machine in range(machines):
        own = folder / "wav" / f"m{machine:05d}"
        own.mkdir(parents=True)
        noise = np.random.default_rng(machine).normal(0, 0.05, (PER_MACHINE, samples))
        noise[-4:, ::160] += 0.5
        for clip, waveform in enumerate(noise):
            soundfile.write(own / f"{clip:02d}.wav", waveform, RATE, subtype="PCM_16")


def manifest(folder: Path, machines: int) -> Path:
    """Write the table of the first machines, every tenth of them a reference machine's."""
    path = folder / f"clips-{machines}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "machine", "role", "split", "label", "speed"])
        for machine in range(machines):
            role = "reference" if machine % 10 == 9 else "target"
            for clip in range(PER_MACHINE):
                split = "train" if clip < 12 else "test"
                label = "anomaly" if clip >= PER_MACHINE - 4 else "normal"
                name = f"m{machine:05d}"
                row = [f"wav/{name}/{clip:02d}.wav", name, role, split, label, 800 + 100 * clip % 3]
                writer.writerow(row)
    return path


def command(overrides: Sequence[str], folder: Path) -> Measured:
    """Measure what a command does once it has started, in this process and those it starts."""
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [*overrides, "trainer.enable_progress_bar=false", "detector=knn"])
    limit_messages()
    # As another process would: what is in the store is read anew.
    forget()
    folder.mkdir(exist_ok=True)
    before = sum(os.times()[:4])
    with contextlib.redirect_stdout(io.StringIO()):
        run(cfg, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but bytes on macOS.
    megabytes = peak / (1e6 if sys.platform == "darwin" else 1e3)
    return Measured(sum(os.times()[:4]) - before, megabytes)


def room(folder: Path, size: int) -> tuple[int, int]:
    """Return the bytes and the number of files of a store and a run folder."""
    sizes = [
        path.stat().st_size
        for name in (f"store-{size}", f"run-{size}")
        for path in (folder / name).rglob("*")
        if path.is_file()
    ]
    return sum(sizes), len(sizes)


def fitted(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Return a and b, both at least 0, of the a + b n that has the least relative errors.

    >>> [round(number, 6) for number in fitted([1, 2, 4], [3.0, 5.0, 9.0])]
    [1.0, 2.0]
    """
    weights = 1 / np.array(values)
    design = np.stack([weights, weights * np.array(sizes)], axis=1)
    (a, b), _ = nnls(design, np.ones(len(values)))
    return float(a), float(b)


def exponent(sizes: Sequence[int], measured: Sequence[Measured], a: float) -> float:
    """Return the power of n by which what is above a grows, between the two largest sizes."""
    if len(sizes) < 2:
        return math.nan
    rest = [max(one.seconds - a, 1e-6) for one in measured[-2:]]
    return math.log(rest[1] / rest[0]) / math.log(sizes[-1] / sizes[-2])


def processor_seconds(call: Callable[[], object]) -> float:
    """Return the seconds of the processor of one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
