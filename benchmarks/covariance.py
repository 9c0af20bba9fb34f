"""Full against shrunk covariances of TWFR-GMM, by the number of training clips.

    python -m benchmarks.covariance                      # simulated machines, 64 to 1280 clips
    python -m benchmarks.covariance FOLDER [FOLDER ...]  # recordings in DCASE's layout

Of each: the training clips for each mel bin in the smaller of two components; how far the median
score of held-out training clips lies above that of fitted ones; the interquartile range of held-out
scores; the share of normal test clips above their 90th percentile; AUC and pAUC.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import read_clips
from fsasd.data.simulate import write_factory
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.thresholds import held_out_scores

COUNTS = (64, 128, 256, 384, 512, 768, 1024, 1280)
R = (0.0, 1.0)


def main() -> None:
    """Print a row for each number of clips, covariance and r: medians over the machines."""
    with threadpool_limits(1):
        rows = pd.DataFrame(_measured(sys.argv[1:]))
    key = ["clips", "covariance", "r"] if len(sys.argv) == 1 else ["covariance", "r"]
    print(rows.groupby(key).median(numeric_only=True).round(3).to_string())


def _measured(folders: list[str]) -> Iterator[dict[str, float | str]]:
    for folder in folders:
        clips = Clips(read_clips(folder), FeatureCache())
        for machine in sorted({clip.machine for clip in clips}):
            yield from _rows(clips.where(machine=machine))
    if folders:
        return
    with tempfile.TemporaryDirectory() as name:
        machines = ("bearing", "fan", "pump")
        root = write_factory(
            Path(name) / "factory",
            references=(),
            targets=machines,
            seconds=2.0,
            train_clips=max(COUNTS),
            target_domain_clips=0,
            test_clips=50,
        )
        clips = Clips(read_clips(root), FeatureCache(Path(name) / "features"))
        for machine in machines:
            for count in COUNTS:
                yield from _rows(clips.where(machine=machine, domain="source"), count)
                print(machine, count, file=sys.stderr, flush=True)


def _rows(clips: Clips, count: int | None = None) -> Iterator[dict[str, float | str]]:
    train, test = clips.where(split="train", label="normal"), clips.where(split="test")
    order = np.random.default_rng(0).permutation(len(train))
    train = train[order[:count]]
    if len(train) < 5:
        return
    for covariance in ("full", "shrunk"):
        for r in R:
            yield {"clips": len(train), "covariance": covariance, "r": r} | _row(
                TWFRGMM(r=r, covariance=covariance), train, test
            )


def _row(detector: TWFRGMM, train: Clips, test: Clips) -> dict[str, float]:
    held_out = held_out_scores(detector, train)
    detector.fit(train)
    scores, labels = detector.score(test), test.labels
    low, high = np.percentile(held_out, [25, 75])
    return {
        "smaller / bins": detector.weights_.min() * len(train) / detector.means_.shape[-1],
        "held out - fitted": float(np.median(held_out) - np.median(detector.score(train))),
        "range": high - low,
        "above": float(np.mean(scores[labels == 0] > np.quantile(held_out, 0.9))),
        "auc": roc_auc_score(labels, scores),
        "pauc": roc_auc_score(labels, scores, max_fpr=0.1),
    }


if __name__ == "__main__":
    main()
