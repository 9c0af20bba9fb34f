"""Is the simulated factory as hard as real machines, and does r matter in it as much?

Of each machine: the curve over r of TWFR-GMM's objective (mean of AUC and pAUC) on its labelled
test clips; then three figures: the best r in hindsight, the oracle's gain over r=1, and the AUC at
r=1. Of the machines of a world: the quartiles of each figure, with 95 % intervals of the bootstrap
over machines and, within them, clips. No setting is chosen here.

    python -m benchmarks.worlds --real FOLDER [FOLDER ...]
    python -m benchmarks.worlds --seeds 100 101 102             # data=factory_large
    python -m benchmarks.worlds --real FOLDER --seeds 100 101 102 --markdown

Machines with fewer than 10 normal training clips are left out. A machine of several seeds is one
machine: its seeds are drawn together.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module
from numpy.typing import NDArray
from omegaconf import OmegaConf
from threadpoolctl import threadpool_limits

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import read_clips
from fsasd.data.simulate import write_factory
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.resampling import resample, resampled_areas
from fsasd.evaluation.uncertainty import percentile_interval
from fsasd.selection.validation import validation_clips

R = (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08, 1.1)
DEFAULT = R.index(1.0)
MIN_CLIPS = 10
RESAMPLES = 1000
QUARTILES = (0.25, 0.5, 0.75)
FIGURES = {"best r": (1, 2), "oracle gain, points": (100, 1), "AUC at r=1, %": (100, 1)}
"""Figure to the factor by which it is shown, and its decimals."""


@dataclass(frozen=True, eq=False)
class Machine:
    """What r is worth on one machine.

    Attributes:
        name: Of the machine.
        train: Number of its normal training clips.
        figures: (3, 1 + RESAMPLES): best r, oracle gain, AUC at r=1; observed, then on resamples.
        curve: (len(R),) observed objective.
    """

    name: str
    train: int
    figures: NDArray[np.float64]
    curve: NDArray[np.float64]


def main() -> None:
    """Print a row per machine and the quartiles of each world."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--real", nargs="+", default=[], help="folders in DCASE's layout, as one")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="of the factory")
    parser.add_argument("--machines", nargs="+", help="of the factory, instead of the config's")
    parser.add_argument("--data", default="factory_large", help="config of the factory")
    parser.add_argument(
        "--markdown", action="store_true", help="print the table of docs/explanation/factory.md"
    )
    options = parser.parse_args()
    worlds = {}
    with threadpool_limits(1):
        if options.real:
            worlds["real"] = list(_measured(Clips(read_clips(options.real), FeatureCache())))
        if options.seeds:
            worlds["simulated"] = [
                machine
                for seed in options.seeds
                for machine in _simulated(options.data, seed, options.machines)
            ]
    summaries = {name: summary(machines) for name, machines in worlds.items()}
    print(_table(summaries, options.markdown))


def summary(machines: Sequence[Machine]) -> NDArray[np.float64]:
    """Quartiles of the three figures over machines, (3 figures, 3 quartiles, observed/low/high)."""
    rng = np.random.default_rng(0)
    types = [[i for i, one in enumerate(machines) if one.name == name]
             for name in dict.fromkeys(one.name for one in machines)]  # fmt: skip
    figures = np.stack([one.figures for one in machines])
    resampled = np.empty((RESAMPLES, *_quartiles(figures[..., 0]).shape))
    for k in range(RESAMPLES):
        drawn = [i for j in rng.integers(len(types), size=len(types)) for i in types[j]]
        resampled[k] = _quartiles(figures[drawn, :, 1 + k])
    table = np.empty((*resampled.shape[1:], 3))
    table[..., 0] = _quartiles(figures[..., 0])
    for at in np.ndindex(table.shape[:2]):
        interval = percentile_interval(resampled[:, *at])
        table[at][1:] = interval.low, interval.high
    return table


def _quartiles(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(figures, QUARTILES, axis=0).T


def _simulated(data: str, seed: int, machines: Sequence[str] | None) -> Iterator[Machine]:
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [f"data={data}", f"data.factory.seed={seed}"])
    factory: Any = OmegaConf.to_container(cfg.data.factory, resolve=True)
    if machines:
        factory |= {"references": machines, "targets": []}
    with tempfile.TemporaryDirectory() as folder:
        root = write_factory(Path(folder) / "factory", **factory)
        yield from _measured(Clips(read_clips(root), FeatureCache()))


def _measured(clips: Clips) -> Iterator[Machine]:
    for section, section_clips in clips.sections.items():
        known = validation_clips(section_clips)
        if known is None or len(known[0]) < MIN_CLIPS:
            continue
        train, test = known
        scores = TWFRGMM().score_path([{"r": r} for r in R], train, test)
        machine = _machine(section.machine, len(train), test, scores)
        best, gain, area = (machine.figures[i, 0] * f for i, (f, _) in enumerate(FIGURES.values()))
        print(f"{machine.name:16} {len(train):4} {best:5.2f} {gain:+6.1f} {area:6.1f}  "
              + " ".join(f"{100 * value:3.0f}" for value in machine.curve), flush=True)  # fmt: skip
        yield machine


def _machine(name: str, train: int, test: Clips, scores: NDArray[np.float64]) -> Machine:
    labels, domains = test.labels, test.domains
    drawn = resample(labels, domains, n=RESAMPLES, groups=test.recordings)
    areas = resampled_areas(labels, domains, scores, np.vstack([np.ones_like(labels), drawn]))
    objective = (areas.auc + areas.pauc) / 2
    # Of equal settings the one nearest the default.
    order = np.argsort(np.abs(np.array(R) - 1), kind="stable")
    best = order[objective[order].argmax(axis=0)]
    gain = objective.max(axis=0) - objective[DEFAULT]
    figures = np.stack([np.array(R)[best], gain, areas.auc[DEFAULT]])
    return Machine(name, train, figures, objective[:, 0])


def _table(summaries: dict[str, NDArray[np.float64]], markdown: bool) -> str:
    lines = [["figure", "quartile", *summaries], ["---"] * (2 + len(summaries))]
    for i, (figure, (factor, digits)) in enumerate(FIGURES.items()):
        for j, quartile in enumerate(("first", "median", "third")):
            cells = []
            for table in summaries.values():
                value, low, high = (f"{factor * x:.{digits}f}" for x in table[i, j])
                cells.append(f"{value} ({low} to {high})")
            lines.append([figure, quartile, *cells])
    if markdown:
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join("".join(f"{cell:24}" for cell in line) for line in lines)


if __name__ == "__main__":
    main()
