"""Ten-second recordings to measure on: simulated ones, each a little different."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from fsasd.data.simulate import MACHINES, simulate

States = Literal["as in DCASE", "one"]


def write_recordings(
    folder: Path,
    count: int,
    label: Literal["normal", "anomaly"] = "normal",
    seconds: float = 10.0,
    states: States = "as in DCASE",
) -> list[Path]:
    """Write recordings of a fan; return their paths.

    ``as in DCASE``: all operating states of the source domain, and in one of a hundred recordings
    the target domain's. ``one``: every recording in the same state.
    """
    folder.mkdir(parents=True)
    paths = [folder / f"{label}_{i:04d}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        rng = np.random.default_rng([i, len(label)])
        domain: Literal["source", "target"] = "target" if i % 100 == 99 else "source"
        if states == "one":
            domain = "source"
        point = MACHINES["fan"].operating_point(domain, 0 if states == "one" else i)
        waveform = simulate("fan", point, label, rng, seconds, domain=domain)
        soundfile.write(path, waveform, 16_000, subtype="PCM_16")
    return paths
