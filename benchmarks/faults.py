"""How hard are the faults of ``generator=transforms`` to hear, and at which r are they heard best?

Per machine and fault: faults of the shipped ranges are put into real normal clips, and TWFR-GMM has
to tell them from real normal clips. It is fitted on one half of the normal training clips, and
scores the other half and what was made of it; then the halves change places. Test clips play no
part. AUC in percent: 50 is a fault that is not heard, 100 one that any setting hears, and neither
could choose a setting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.content import content_hash
from fsasd.data.metadata import Clip, read_clips
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.metrics import auc
from fsasd.generation.faults import FAULTS
from fsasd.generation.prompts import make_prompts
from fsasd.generation.transforms import FaultTransforms

R = (0.0, 0.9, 0.97, 1.0, 1.05)


def main() -> None:
    """Print a table per machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder of a data set in the DCASE layout")
    parser.add_argument("--machines", nargs="*")
    parser.add_argument("--clips", type=int, default=40, help="normal training clips per machine")
    args = parser.parse_args()
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", ["generator=transforms"])
    ranges = OmegaConf.to_container(cfg.generator.faults)
    assert isinstance(ranges, dict)
    clips = Clips(read_clips(args.root, args.machines), FeatureCache())
    for machine in sorted({clip.machine for clip in clips}):
        normal = clips.where(machine=machine, split="train", label="normal")[: args.clips]
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            faulty = {
                kind: _faulty(normal, FaultTransforms({kind: ranges[kind]}), Path(folder) / kind)
                for kind in FAULTS
            }
            spent = (time.perf_counter() - began) / len(normal) / len(FAULTS)
            print(f"\n{machine}: {len(normal)} clips, {1000 * spent:.0f} ms to make one")
            print(f"{'r':16}" + "".join(f"{r:7g}" for r in R))
            found = _areas(normal, faulty)
            for kind in FAULTS:
                print(f"{kind:16}" + "".join(f"{100 * found[kind, r]:7.1f}" for r in R))


def _faulty(normal: Clips, generator: FaultTransforms, folder: Path) -> Clips:
    folder.mkdir()
    asked = make_prompts(normal, ["normal"] * len(normal), len(normal))
    made = []
    for prompt in generator.prepare([prompt for prompt in asked if prompt.label == "anomaly"]):
        path = folder / Path(prompt.wav).name
        (waveform,) = generator.generate([prompt])
        level = waveform.numpy() / prompt.gain
        soundfile.write(path, level.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        made.append(Clip(path, prompt.machine, label="anomaly", source=prompt.source_sha256))
    return Clips(made, normal.cache)


def _areas(normal: Clips, faulty: dict[str, Clips]) -> dict[tuple[str, float], float]:
    areas: dict[tuple[str, float], list[float]] = {(kind, r): [] for kind in faulty for r in R}
    for fit, held in ((normal[::2], normal[1::2]), (normal[1::2], normal[::2])):
        known = {content_hash(clip.path) for clip in held}
        for r in R:
            detector = TWFRGMM(r=r).fit(fit)
            usual = detector.score(held)
            for kind, clips in faulty.items():
                unusual = detector.score(clips[[clip.source in known for clip in clips]])
                labels = np.repeat([0, 1], [len(usual), len(unusual)])
                areas[kind, r].append(auc(labels, np.concatenate([usual, unusual])))
    return {key: float(np.mean(values)) for key, values in areas.items()}


if __name__ == "__main__":
    main()
