"""Scoring a ten-second clip from audio on one core: what a detector costs beyond its front end.

TWFR-GMM, and nearest neighbours among 100,000 clips. That bank is drawn at random around real
representations: what a distance costs does not depend on where the points lie.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.recordings import write_recordings
from benchmarks.timing import seconds
from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.detectors.knn import KNN
from fsasd.detectors.twfr_gmm import TWFRGMM

BANK, SCORED, ROUNDS = 100_000, 50, 5


def main() -> None:
    """Print TWFR-GMM's share, then that of k-NN, of clips together and one by one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        clips = [Clip(path, "fan") for path in write_recordings(Path(name) / "wav", SCORED)]
        _twfr_gmm(clips)
        _knn(clips)


def _twfr_gmm(clips: list[Clip]) -> None:
    detector = TWFRGMM().fit(Clips(clips))
    front_end = _from_audio(lambda scored: list(scored.features(LogMel.twfr())), clips)
    whole = _from_audio(detector.score, clips)
    print(
        f"TWFR-GMM: front end {1e3 * front_end:.2f} ms a clip, with the score "
        f"{1e3 * whole:.2f} ms: {whole / front_end:.2f} x",
        flush=True,
    )


def _knn(clips: list[Clip]) -> None:
    for setting in ({}, {"metric": "cosine"}, {"density": 4}):
        detector = KNN(**setting).fit(Clips(clips))
        _fill(detector)
        scored = Clips(clips)
        front_end = seconds(detector._points, scored) / SCORED
        # The features are in memory now.
        pooling = seconds(detector._points, scored) / SCORED
        together = seconds(detector.score, scored) / SCORED - pooling
        alone = np.median([_beyond(detector, scored[[i]]) for i in range(SCORED)])
        print(
            f"k-NN, {setting or 'euclidean'}: front end {1e3 * front_end:.1f} ms a clip; beyond it "
            f"{1e3 * together:.1f} ms of {SCORED} clips together, {1e3 * alone:.1f} ms of one",
            flush=True,
        )


def _from_audio(call, clips: list[Clip]) -> float:
    # Of the processor, a clip: others that use the machine do not count. Nothing is at hand.
    taken = []
    for _ in range(ROUNDS):
        scored, started = Clips(clips), time.process_time()
        call(scored)
        taken.append(time.process_time() - started)
    return min(taken) / len(clips)


def _fill(detector: KNN) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(detector.points_), size=BANK)
    noise = rng.normal(scale=detector.points_.std(axis=0), size=(BANK, detector.points_.shape[1]))
    detector.points_ = detector._normalised(detector.points_[drawn] + noise)
    detector.sizes_ = np.array([BANK])
    detector.density_ = rng.uniform(1, 2, BANK) if detector.density else np.ones(BANK)
    detector._restored()


def _beyond(detector: KNN, clips: Clips) -> float:
    # Each with its own time of the front end, of which threads that read are most here.
    return seconds(detector.score, clips) - seconds(detector._points, clips)


if __name__ == "__main__":
    main()
