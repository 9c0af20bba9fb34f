r"""What a setting gains that is chosen anew on a machine's first faults, as ``fsasd-refit`` does.

Of each real machine some anomalous test clips, drawn several times, play its first faults. The
setting that they choose, with held-out training clips, is judged on the anomalies that are left and
the normal test clips, against the setting in use. Beside it: the setting that is best on the first
faults, without caution.

    python -m benchmarks.first_faults path/to/firstshot-real path/to/more-real
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.metadata import read_clips
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.resampling import resampled_areas
from fsasd.report.formatting import points
from fsasd.selection.crossfit import crossfit
from fsasd.selection.faults import BETWEEN, choose_on_faults
from fsasd.selection.selector import OBJECTIVES
from fsasd.selection.settings import Candidates, row_of
from fsasd.selection.validation import validation_clips

GRID = {"r": [round(0.01 * i, 2) for i in range(111)]}
IN_USE = (1.0, 0.93)
FAULTS = (1, 3, 5)
DRAWS = 20
FEWEST = 10
"""Normal training clips of a machine."""


class Machine:
    """Scores of a machine's clips with every setting."""

    def __init__(self, clips: Clips, test: Clips) -> None:
        detector = TWFRGMM()
        self.settings = Candidates.of(detector, [GRID]).settings
        fitted = detector.fit(clips).resolved()
        anomalous = test.where(label="anomaly")
        self.domains = clips.domains
        self.normal, self.faults = crossfit(fitted, self.settings, clips, anomalous)
        scores = detector.score_path(self.settings, clips, test.where(label="normal") + anomalous)
        labels = np.repeat([0, 1], [len(test) - len(anomalous), len(anomalous)])
        # An objective of many anomalies is the mean of those of each.
        each = np.hstack([np.ones((len(anomalous), (labels == 0).sum())), np.eye(len(anomalous))])
        self.objectives = OBJECTIVES["mean"](resampled_areas(labels, None, scores, each))

    def gains(self, in_use: float, k: int) -> np.ndarray:
        """Return (draws, 3): gain with and without caution, whether the setting was changed."""
        rng = np.random.default_rng(0)
        candidates = Candidates(self.settings, len(self.settings), {"r": in_use})
        rows = []
        for _ in range(DRAWS):
            order = rng.permutation(self.faults.shape[1])
            choice = choose_on_faults(
                candidates, self.normal, self.faults[:, order[:k]], domains=self.domains
            )
            worth = self.objectives[:, order[k:]].mean(axis=1)
            worth = worth - worth[candidates.default]
            rows.append([worth[choice.row], worth[choice.best], choice.row != candidates.default])
        return np.array(rows)

    def oracle(self, in_use: float) -> float:
        """Return the gain of the best setting on all anomalies."""
        mean = self.objectives.mean(axis=1)
        return float(mean.max() - mean[row_of({"r": in_use}, self.settings)])

    def between(self) -> tuple[float, float]:
        """Return the least and the largest deviation of r=0.93's and r=0's gains over faults."""
        gains = self.objectives - self.objectives[row_of({"r": 1.0}, self.settings)]
        deviations = gains.std(axis=1)
        return float(deviations[row_of({"r": 0.93}, self.settings)]), float(deviations[0])


def main() -> None:
    """Print a table of means over machines, and one of machines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("roots", nargs="+", type=Path, help="in the layout of DCASE Task 2")
    options = parser.parse_args()
    machines = dict(_machines(options.roots))
    print(f"{len(machines)} machines, twfr_gmm, {DRAWS} draws\n")
    print("| r in use | faults | gain | worst machine | worse by 5 points | changed "
          "| without caution | worst machine | worse by 5 points |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for in_use in IN_USE:
        for k in FAULTS:
            print(_line(in_use, k, {name: one.gains(in_use, k) for name, one in machines.items()}))
        oracle = points(float(np.mean([one.oracle(in_use) for one in machines.values()])))
        print(f"| {in_use:g} | all, in hindsight | {oracle} | | | | | | |")
    print(f"\n| machine | {' | '.join(f'{k} of r={r:g}' for r in IN_USE for k in FAULTS)} |")
    print("|---|" + "---|" * len(IN_USE) * len(FAULTS))
    for name, one in machines.items():
        cells = [points(one.gains(r, k)[:, 0].mean()) for r in IN_USE for k in FAULTS]
        print(f"| {name} | {' | '.join(cells)} |")
    near, far = np.transpose([one.between() for one in machines.values()])
    print(
        f"\nstandard deviation over faults of a gain over r=1: r=0.93 {near.min():.2f} to "
        f"{near.max():.2f}, r=0 {far.min():.2f} to {far.max():.2f} (taken: {BETWEEN})"
    )


def _machines(roots: Sequence[Path]):
    clips = Clips([clip for root in roots for clip in read_clips(root)])
    for name in sorted({clip.machine for clip in clips}):
        known = validation_clips(clips.where(machine=name))
        if known and len(known[0]) >= FEWEST:
            yield name, Machine(*known)


def _line(in_use: float, k: int, gains: Mapping[str, np.ndarray]) -> str:
    cells = [f"{in_use:g}", str(k)]
    for column in (0, 1):
        each = np.stack([rows[:, column] for rows in gains.values()])
        means = each.mean(axis=1)
        # Over machines, of which there are few, and their draws.
        rng = np.random.default_rng(0)
        drawn = [rng.choice(means, len(means)).mean() for _ in range(2000)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        cells += [
            f"{points(means.mean())} ({points(low)} to {points(high)})",
            points(means.min()),
            f"{100 * (each < -0.05).mean():.0f} %",
        ]
        if column == 0:
            changed = np.mean([rows[:, 2].mean() for rows in gains.values()])
            cells.append(f"{100 * changed:.0f} %")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
