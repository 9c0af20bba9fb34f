"""Leave-one-machine-out validation of choices on synthetic clips, with several seeds.

Runs ``experiment=validate`` for each generator and seed (existing runs are reused), and compares
the chosen r with r=0, r=1 and the oracle: on the reference machines, whose anomalies the choice
does not use, and on the target machines. A trained generator has their anomalies in its training
clips; ``--strict`` excludes those of one reference after the other, with a training for each, and
compares on the references only.

    python -m benchmarks.validation factory --generators transforms audioldm_nano
    python -m benchmarks.validation path/to/dcase-layout --generators transforms audioldm_nano

Any setting can be added, with a ``--name`` for the results:

    python -m benchmarks.validation factory --name calibrated --set selection.calibrate=true

Means are over machines, after the mean over seeds; intervals are over machines and clips. Writes
``<out>/<data>/<name>-<generator>.csv`` with everything per machine, and ``.md`` with the table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from fsasd.report.formatting import percent, points
from fsasd.report.results import read_frame
from fsasd.selection.validation import MEAN, compare

FACTORY = [
    "data.factory.references=[fan,gearbox,valve,conveyor,slider,motor]",
    "data.factory.targets=[bearing,pump,grinder,compressor]",
    "data.factory.train_clips=100",
    "data.factory.test_clips=40",
]
TINY = [
    "data.factory.references=[fan,valve]",
    "data.factory.targets=[pump]",
    "data.factory.seconds=1.0",
    "data.factory.train_clips=12",
    "data.factory.target_domain_clips=4",
    "data.factory.test_clips=4",
    "synthesis.clips_per_label=6",
    "trainer.max_steps=2",
    "trainer.val_check_interval=1",
]


def main() -> None:
    """Run what is missing, and write the tables."""
    options = _parser().parse_args()
    name = options.data if options.data in ("factory", "tiny") else Path(options.data).name
    out = Path(options.out).resolve() / name
    for generator in options.generators:
        label = "-".join(filter(None, [options.name, "strict" * options.strict, generator]))
        runs = list(_runs(options, out / label, generator))
        scores = pd.concat([_scores(folder, seed, machine) for folder, seed, machine in runs])
        table = compare(scores, resamples=options.resamples)
        table.to_csv(out / f"{label}.csv", index=False)
        text = _markdown(table, runs)
        (out / f"{label}.md").write_text(text, encoding="utf-8")
        print(f"\n{name}, {label}, seeds {' '.join(map(str, options.seeds))}\n\n{text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", help="factory, tiny, or a folder in the layout of DCASE Task 2")
    parser.add_argument("--generators", nargs="+", default=["transforms", "audioldm_nano"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--name", default="")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", default="outputs/validation")
    parser.add_argument("--set", nargs="+", default=[], help="of fsasd's configuration")
    return parser


def _runs(
    options: argparse.Namespace, folder: Path, generator: str
) -> Iterator[tuple[Path, int, str | None]]:
    """Yield the folder and seed of each run, and its one held-out reference, if any."""
    store = Path(options.out).resolve() / "store"
    data = [f"store={store}", f"generator={generator}", *_data(options.data), *options.set]
    for seed in options.seeds:
        if not options.strict:
            yield _run(folder / f"seed{seed}", [*data, f"seed={seed}"]), seed, None
            continue
        for machine in _references(options.data):
            hidden = f"data.hold_out=[{{machine: {machine}, label: anomaly}}]"
            where = folder / f"seed{seed}-{machine}"
            yield _run(where, [*data, f"seed={seed}", hidden]), seed, machine


def _data(name: str) -> list[str]:
    if name in ("factory", "tiny"):
        return ["data=factory", *(FACTORY if name == "factory" else TINY)]
    return ["data=dcase", f"data.root={Path(name).resolve()}"]


def _references(name: str) -> list[str]:
    if name in ("factory", "tiny"):
        named = _data(name)[1].partition("=")[2]
        return named.strip("[]").split(",")
    return sorted(path.name for path in (Path(name) / "dev_data").iterdir() if path.is_dir())


def _run(folder: Path, overrides: Sequence[str]) -> Path:
    if not (folder / "report.html").is_file():
        command = [sys.executable, "-m", "fsasd.cli.main", "experiment=validate", *overrides]
        command += [f"hydra.run.dir={folder}", "trainer.enable_progress_bar=false"]
        print(f"running {folder}", flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
    return folder


def _scores(folder: Path, seed: int, machine: str | None) -> pd.DataFrame:
    """Scores of the validated references, and of the targets if their labels are known."""
    tables = [folder / "validation" / "setting_scores.csv", folder / "setting_scores.csv"]
    parts = [read_frame(path) for path in tables if path.is_file()]
    return _of(pd.concat(parts), machine).assign(run=seed)


def _of(table: pd.DataFrame, machine: str | None) -> pd.DataFrame:
    return table if machine is None else table[table["machine"] == machine]


def _markdown(table: pd.DataFrame, runs: Sequence[tuple[Path, int, str | None]]) -> str:
    lines = [
        "| r | AUC | pAUC | gain over r=1 | share of the gap to the oracle |",
        "|---|---|---|---|---|",
    ]
    for row in table[table["machine"] == MEAN].to_dict("records"):
        gain = f"{points(row['gain'])} ({points(row['gain_low'])} to {points(row['gain_high'])})"
        ends = [percent(row[f"closed_{end}"], 0) for end in ("low", "high")]
        closed = f"{percent(row['closed'], 0)} % ({ends[0]} to {ends[1]} %)"
        lines.append(
            f"| {row['setting']} | {percent(row['auc'])} | {percent(row['pauc'])} | {gain} "
            f"| {closed} |"
        )
    validations = [_of(read_frame(folder / "validation.csv"), machine)
                   for folder, _, machine in runs]  # fmt: skip
    alike = pd.concat(validations).query("machine != @MEAN")["spearman"].mean()
    machines = table.loc[table["machine"] != MEAN, ["machine", "section"]].drop_duplicates()
    lines += ["", f"{len(machines)} machines; rank correlation of the curves on references: "
                  f"{alike:+.2f}"]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
