"""Detection in machines of DCASE's size, against what it cannot do without.

Each machine has 990 training and 200 test clips of ten seconds: noise whose spectrum and level have
operating states. Detection is the fit of TWFR-GMM at r=1, the scores of the test clips and the
threshold from five held-out folds. Cold, there are no cached features: its floor is reading all
clips and computing their log-mels. Warm, all are cached: its floor is reading these once and
fitting once. Both floors use all cores. Content hashes, which a run needs for its keys before it
detects, are computed before.

    python -m benchmarks.detection               # two machines
    python -m benchmarks.detection --machines 14  # as in DCASE: 8 GB of recordings and features
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.timing import seconds_and_work
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hashes
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.detection.section import detect
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.runtime.threads import cores, thread_pool

TRAIN, TEST, STATES = 990, 200, 4
SAMPLES = 10 * SAMPLE_RATE


def main() -> None:
    """Print seconds, processor time and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of the warm detection")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"writing recordings of {args.machines} machines ...", flush=True)
        machines = [_recordings(folder / f"machine_{i}", i) for i in range(args.machines)]
        _measure(machines, folder / "features", args.repeats)


def _measure(machines: list[list[Path]], folder: Path, repeats: int) -> None:
    paths = [path for machine in machines for path in machine]
    content_hashes(paths, folder)
    print(f"{len(paths)} clips, {cores()} cores; seconds by the clock (and of the processor)")
    caches = FeatureCache(folder)
    floor = _timed("cold floor, reading and log-mels", _log_mels, paths)
    _ratio(floor, _timed("cold", _detect, machines, caches))
    floors, detections = [], []
    for _ in range(repeats):
        floors.append(_timed("warm floor, cached features and one fit", _fit, machines, caches))
        detections.append(_timed("warm", _detect, machines, caches))
    _ratio(np.min(floors, axis=0), np.min(detections, axis=0))


def _timed(what: str, call, *args) -> tuple[float, float]:
    clock, work = seconds_and_work(call, *args)
    print(f"  {what:42}{clock:8.2f} ({work:.2f})", flush=True)
    return clock, work


def _ratio(floor: Sequence[float], whole: Sequence[float]) -> None:
    clock, work = np.divide(whole, floor)
    print(f"  = {clock:.2f} x its floor by the clock, {work:.2f} x in processor time")


def _log_mels(paths: Sequence[Path]) -> None:
    front_end = LogMel.twfr()
    with thread_pool("floor") as threads:
        for _ in threads.map(lambda path: front_end(read(path)).shape, paths):
            pass


def _fit(machines: Sequence[Sequence[Path]], cache: FeatureCache) -> None:
    for paths in machines:
        train, test = _clips(paths, cache)
        TWFRGMM().fit(train)
        for _ in test.features(LogMel.twfr()):
            pass


def _detect(machines: Sequence[Sequence[Path]], cache: FeatureCache) -> None:
    for paths in machines:
        detect(TWFRGMM(), {}, *_clips(paths, cache))


def _clips(paths: Sequence[Path], cache: FeatureCache) -> tuple[Clips, Clips]:
    clips = Clips((Clip(path, path.parent.name, section="00") for path in paths), cache)
    return clips[:TRAIN], clips[TRAIN:]


def _recordings(folder: Path, number: int) -> list[Path]:
    """Write noise of a machine's spectrum, its level and tilt by operating state; return paths."""
    folder.mkdir()
    rng = np.random.default_rng(number)
    place = np.linspace(0, 1, SAMPLES // 2 + 1)
    envelopes = []
    for _ in range(STATES):
        peaks = rng.uniform(0, 1, size=(6, 1))
        envelope = np.exp(-(((place - peaks) / rng.uniform(0.002, 0.1, size=(6, 1))) ** 2)).sum(0)
        envelopes.append(envelope + 0.05 * np.exp(-rng.uniform(1, 5) * place))
    paths = [folder / f"{i:04d}.wav" for i in range(TRAIN + TEST)]
    for i, path in enumerate(paths):
        phases = np.exp(2j * np.pi * rng.random(len(place), dtype=np.float32))
        tilt = np.exp(rng.normal(0, 0.3) * place)
        waveform = np.fft.irfft(envelopes[i % STATES] * tilt * phases)
        waveform *= 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.5, 4) * np.arange(SAMPLES) / 16_000)
        waveform *= 0.3 / np.abs(waveform).max()
        soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")
    return paths


if __name__ == "__main__":
    main()
