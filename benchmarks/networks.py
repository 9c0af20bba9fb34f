"""Training of networks: clips per second, and the data loader's share of the time.

1000 recordings of ten seconds, of which a few steps are made, on the GPU if there is one. Each
system has its own length of examples and its own batch.
"""

from __future__ import annotations

import argparse
import logging
import resource
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.profilers import SimpleProfiler

from benchmarks.recordings import write_recordings
from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.networks.classifier import Recordings, train
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.systems.fkie import FKIE
from fsasd.detectors.systems.mdam import MDAM
from fsasd.detectors.systems.stgram_mfn import STgramMFN
from fsasd.runtime.memory import keep_freed_memory

FILES, CLIPS = 50, 1000
LOADING, STEPPING = "[_TrainingEpochLoop].train_dataloader_next", "run_training_batch"


def main() -> None:
    """Print both for FKIE, STgram-MFN and MDAM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, help="each system's own by default")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument(
        "--give-memory-back", action="store_true", help="what is freed is not kept, as fsasd has it"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    if not args.give_memory_back:
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_recordings(folder / "wav", FILES)
        clips = [Clip(path, "fan", label="normal") for path in files] * (CLIPS // FILES)
        clips = [replace(clip, machine=f"fan{i % 20}") for i, clip in enumerate(clips)]
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        print(f"{device}, {torch.get_num_threads()} threads, {args.precision}")
        for kind in (FKIE, STgramMFN, MDAM):
            representation = kind()
            size = args.batch_size or representation.training.batch_size
            representation.set_params(training__batch_size=size, training__epochs=1)
            report(representation, Clips(clips), folder, args.steps, args.precision)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"peak memory of the process: {peak:.1f} GB")


def report(
    representation: Discriminative, clips: Clips, folder: Path, steps: int, precision: str
) -> None:
    """Train for a few steps and print what they took, the first one left out."""
    training, name = representation.training, type(representation).__name__
    examples = Recordings(clips, training.classes, training.seconds)
    model = representation.classifier(0, len(examples.classes))
    model.set_examples(examples, seed=0)
    profiler = SimpleProfiler()
    where = {
        "profiler": profiler, "limit_train_batches": steps + 1, "enable_progress_bar": False,
        "precision": precision,
    }  # fmt: skip
    train(model, folder / name, where)
    loading, stepping = (profiler.recorded_durations[n][1 : steps + 1] for n in (LOADING, STEPPING))
    seconds = sum(loading) + sum(stepping)
    drawn = steps * training.batch_size
    print(
        f"{name:>10}: {drawn / seconds:7.1f} clips/s of {training.seconds:g} s "
        f"in batches of {training.batch_size}, loading {sum(loading) / seconds:.1%} of the time",
        flush=True,
    )


if __name__ == "__main__":
    main()
