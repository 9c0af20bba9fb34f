"""Choosing r for one machine, against its floor and against the plain way.

1000 ten-second training clips, 200 + 200 clips to choose on, r in 0, 0.01, ..., 1.10. The floor is
reading and log-mels of the 1400 clips on one core, which any way needs once. The plain way computes
features and a scikit-learn mixture anew for each r; three of its 111 rounds are measured.
Recordings in one single operating state are the hard case: there are no clusters, and EM takes
longest.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from sklearn.mixture import GaussianMixture

from benchmarks.recordings import States, write_recordings
from benchmarks.timing import seconds, seconds_and_work
from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import read
from fsasd.detectors.scoring.time_weighting import twfr
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.runtime.threads import cores
from fsasd.selection.selector import Selector

TRAIN, SYNTHETIC = 1000, 200


def main() -> None:
    """Print the three times and their ratios."""
    warnings.simplefilter("ignore")
    for states in get_args(States):
        with tempfile.TemporaryDirectory() as name:
            _measure(Path(name), states)


def _measure(folder: Path, states: States) -> None:
    print(f"operating states {states}: writing recordings ...", flush=True)
    train = _clips(folder / "train", TRAIN, "normal", states)
    made = [
        *_clips(folder / "normal", SYNTHETIC, "normal", states),
        *_clips(folder / "anomaly", SYNTHETIC, "anomaly", states),
    ]
    floors, wholes = [], []
    for _ in range(3):
        floors.append(seconds_and_work(_floor, [*train, *made]))
        wholes.append(seconds_and_work(_choose, train, made))
    (floor, floor_work), (whole, work) = np.min(floors, axis=0), np.min(wholes, axis=0)
    rounds = [seconds(_plain_round, train, made, r) for r in (0.5, 0.9, 1.0)]
    plain = float(np.mean(rounds)) * len(_grid())
    print(f"  floor, reading and log-mels:  {floor:8.1f} s")
    print(f"  choosing r, everything:       {whole:8.1f} s = {whole / floor:.2f} x the floor")
    share = work / floor_work / cores()
    print(
        f"  in processor time:            {work:8.1f} s = {share:.2f} x {floor_work:.1f} s a core"
    )
    print(f"  the plain way:                {plain:8.1f} s = {plain / whole:.0f} x ours")


def _grid() -> list[float]:
    return [round(0.01 * i, 2) for i in range(111)]


def _clips(
    folder: Path, count: int, label: Literal["normal", "anomaly"], states: States
) -> list[Clip]:
    paths = write_recordings(folder, count, label, states=states)
    return [Clip(path, "fan", label=label) for path in paths]


def _floor(clips: list[Clip]) -> None:
    front_end = LogMel.twfr()
    for clip in clips:
        front_end(read(clip.path))


def _choose(train: list[Clip], made: list[Clip]) -> None:
    detector, selector = TWFRGMM(), Selector({"r": _grid()})
    scored = Clips(made)
    scores = detector.score_path(selector.settings(), Clips(train), scored)
    selector.select(selector.candidates(detector), scored.labels, scores)


def _plain_round(train: list[Clip], made: list[Clip], r: float) -> None:
    front_end = LogMel.twfr()
    fit, score = (
        np.stack([twfr(front_end(read(clip.path)), r)[0] for clip in clips])
        for clips in (train, made)
    )
    mixture = GaussianMixture(2, tol=1e-6, reg_covar=1e-6, random_state=0).fit(fit)
    mixture.score_samples(score)


if __name__ == "__main__":
    main()
