"""Ten-second recordings to measure on: simulated ones, each a little different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from fsasd.data.simulate import simulate

POINT = {"spd": "1500", "load": "1", "mic": "1"}


def write_recordings(
    folder: Path, count: int, label: str = "normal", seconds: float = 10.0
) -> list[Path]:
    """Write recordings of a fan in one operating state; return their paths."""
    folder.mkdir(parents=True)
    paths = [folder / f"{label}_{i:04d}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        rng = np.random.default_rng([i, len(label)])
        waveform = simulate("fan", POINT, label, rng, seconds)  # type: ignore[arg-type]
        soundfile.write(path, waveform, 16_000, subtype="PCM_16")
    return paths
