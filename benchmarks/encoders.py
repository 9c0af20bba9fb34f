"""Inputs of pretrained encoders: in batches where the network is, against their extractors.

Both of the same waveforms in one process, so that the ratio means something; the feature extractors
of transformers go clip by clip. Batches are computed on the GPU if there is one, else all of it is
the time of one core. The forward pass of a network, the same for both, is not measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import ASTFeatureExtractor, ClapFeatureExtractor, Wav2Vec2FeatureExtractor

from fsasd.data.encoder_inputs import encoder_inputs
from fsasd.runtime.memory import keep_freed_memory

SECONDS = 10
EXTRACTORS = {
    "AST": ASTFeatureExtractor(),
    "CLAP": ClapFeatureExtractor(truncation="rand_trunc"),
    "wav2vec 2.0": Wav2Vec2FeatureExtractor(),
}


def main() -> None:
    """Print what a clip takes both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{device}, batches of {args.batch_size} clips of {SECONDS} s")
    for name, extractor in EXTRACTORS.items():
        before, after = (
            1e3 * median(call, args.rounds) / args.batch_size
            for call in both(extractor, args.batch_size, device)
        )
        print(
            f"{name:>12}: {before:6.2f} ms a clip by its extractor, {after:6.2f} ms in batches, "
            f"{before / after:.1f} x",
            flush=True,
        )


def both(extractor, batch_size: int, device: torch.device) -> list[Callable[[], None]]:
    """Return the extractor's way and ours, of the same waveforms."""
    rate = extractor.sampling_rate
    waveforms = 0.1 * torch.randn(batch_size, SECONDS * rate)
    there = waveforms.to(device)

    def clip_by_clip() -> None:
        made = extractor(list(waveforms.numpy()), sampling_rate=rate, return_tensors="pt")
        made.to(device)

    def in_batches() -> None:
        encoder_inputs(extractor, there)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return [clip_by_clip, in_batches]


def median(call: Callable[[], None], rounds: int) -> float:
    """Return the seconds of a call: of the clock where there is a GPU, else of one core."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    call()
    took = []
    for _ in range(rounds):
        started = clock()
        call()
        took.append(clock() - started)
    return float(np.median(took))


if __name__ == "__main__":
    main()
