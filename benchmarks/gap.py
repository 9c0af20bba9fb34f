"""The gap between sixty synthetic and sixty real clips, against one pass over their log-mels.

Ten-second clips, no features cached. Simulated normal clips stand in for synthetic ones: how long
it takes does not depend on what differs. Beyond the log-mels a gap is statistics of each clip, the
held-out AUC, 499 permutations of the energy distance and of the differences by band.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.recordings import write_recordings
from benchmarks.timing import seconds_and_work
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.generation.encoder_space import ENCODER
from fsasd.generation.gap import measure_gap

CLIPS = 60


def main() -> None:
    """Print both times and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        paths = write_recordings(Path(name) / "wav", 2 * CLIPS)
        clips = [Clip(path, "fan", label="normal") for path in paths]
        floors, wholes = [], []
        for _ in range(5):
            floors.append(seconds_and_work(_floor, clips))
            wholes.append(seconds_and_work(_gap, clips))
    (floor, floor_work), (whole, work) = np.min(floors, axis=0), np.min(wholes, axis=0)
    print(
        f"reading and log-mels of {2 * CLIPS} clips: {floor:.2f} s, of the cores {floor_work:.2f} s"
    )
    print(
        f"the gap, everything: {whole:.2f} s, {whole / floor:.2f} x; of the cores {work:.2f} s, "
        f"{work / floor_work:.2f} x"
    )


def _floor(clips: list[Clip]) -> None:
    for _ in Clips(clips, FeatureCache()).features(ENCODER):
        pass


def _gap(clips: list[Clip]) -> None:
    cache = FeatureCache()
    measure_gap(Clips(clips[::2], cache), Clips(clips[1::2], cache))


if __name__ == "__main__":
    main()
