r"""How often the threshold calls normal test recordings anomalous, by what is held out together.

The threshold is for 10 %. Recordings of one session are alike: where a fold holds out single clips,
the detector was fitted on others of their sessions, and test clips are of sessions that it was not
fitted on. Of the simulated factory sessions are known; of real recordings they are not.

    python -m benchmarks.false_alarms path/to/firstshot-real path/to/more-real
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.metadata import read_clips
from fsasd.data.simulate import MACHINES, write_factory
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.thresholds import gamma_threshold, held_out_scores
from fsasd.selection.validation import validation_clips

R = (1.0, 0.77)
FEWEST = 10
"""Normal training clips of a machine."""
PER_SESSION = 5
"""Clips of a domain that the factory records in one session, one after the other."""


def main() -> None:
    """Print a table of shares over machines, and for each machine its counts at r=1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("roots", nargs="*", type=Path, help="in the layout of DCASE Task 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machines", nargs="+", default=sorted(MACHINES))
    options = parser.parse_args()
    print("| recordings | r | held out together | source | target | anomalies found |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "factory")
        write_factory(
            root, seed=options.seed, references=options.machines, targets=(), train_clips=150
        )
        _print("factory", list(_machines([root])), sessions=True)
    if options.roots:
        _print("real", list(_machines(options.roots)), sessions=False)


def _machines(roots: list[Path]) -> Iterator[tuple[Clips, Clips]]:
    clips = Clips([clip for root in roots for clip in read_clips(root)])
    for name in sorted({clip.machine for clip in clips}):
        known = validation_clips(clips.where(machine=name))
        if known and len(known[0]) >= FEWEST:
            yield known


def _print(name: str, machines: list[tuple[Clips, Clips]], sessions: bool) -> None:
    for r in R:
        for together in ["a clip", *["a session"] * sessions]:
            rows = np.array([_counts(r, *known, together == "a session") for known in machines])
            cells = " | ".join(_share(rows[:, column]) for column in range(3))
            print(
                f"| {len(machines)} machines, {name} | {r:g} | {together} | {cells} |", flush=True
            )
            if r == 1:
                alarms = [
                    f"{test[0].machine} {row[0, 0]}/{row[0, 1]}"
                    for (_, test), row in zip(machines, rows, strict=True)
                ]
                print(f"  in the source domain: {', '.join(alarms)}", flush=True)


def _counts(r: float, train: Clips, test: Clips, sessions: bool) -> np.ndarray:
    """Return (3, 2): alarms and clips of normal source and target clips, and of anomalous ones."""
    detector = TWFRGMM(r=r).fit(train)
    groups = _sessions(train) if sessions else None
    held_out = held_out_scores(detector.resolved(), train, groups=groups)
    alarms = detector.score(test) > gamma_threshold(held_out, warn=False)
    normal = test.labels == 0
    kinds = [normal & (test.domains == "source"), normal & (test.domains == "target"), ~normal]
    return np.array([[alarms[kind].sum(), kind.sum()] for kind in kinds])


def _sessions(train: Clips) -> np.ndarray:
    """Number the factory's sessions of training clips, which are in the order of their domains."""
    numbers = np.empty(len(train), dtype=int)
    for offset, domain in enumerate(("source", "target")):
        rows = np.flatnonzero(train.domains == domain)
        numbers[rows] = offset + 2 * (np.arange(len(rows)) // PER_SESSION)
    return numbers


def _share(counts: np.ndarray) -> str:
    """Return the share of alarms in all clips, with the interval over machines."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(counts), size=(2000, len(counts)))
    alarms, clips = counts[draws].sum(axis=1).T
    low, high = np.quantile(alarms / clips, [0.025, 0.975])
    mean = counts[:, 0].sum() / counts[:, 1].sum()
    return f"{100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f}) %"


if __name__ == "__main__":
    main()
