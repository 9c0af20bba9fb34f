"""The recordings that a run reads: inspected before the first stage, those unreadable left out."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from fsasd.data.check.findings import find_in_recordings, log_findings
from fsasd.data.check.inspection import inspect_once
from fsasd.data.clips import Clips
from fsasd.data.datamodule import is_trainable
from fsasd.pipeline.detector_input import check_recordings
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.run_folder import list_unreadable
from fsasd.runtime.ranks import rank

log = logging.getLogger(__name__)


def inspect(run: Experiment, stages: Collection[str], folder: Path) -> pd.DataFrame:
    """Read the recordings of a run once, log what is wrong with them, leave unreadable ones out.

    All ranks leave out the same clips, of which the first writes ``unreadable.csv``.

    Args:
        run: Its data go on without the clips that cannot be read.
        stages: Names of the groups of stages that the run has.
        folder: The run's folder.

    Returns:
        The recordings that cannot be read, a row each; ``problem`` says why.

    Raises:
        ValueError: No recording of a target machine can be read, or the detector reads them at a
            higher sampling rate than some have.
    """
    cache, targets = run.data.cache, set(run.data.targets)
    if rank() == 0 and "detect" in stages and not targets:
        log.warning(
            "no target machine, of %d: nothing is detected. data.targets=[%s] would make it one",
            len(run.data.references), run.data.references[0],
        )  # fmt: skip
    recordings = inspect_once(used(run, stages), cache.folder, cache.channel, again=rank() == 0)
    unreadable = recordings[recordings["problem"].notna()] if len(recordings) else recordings
    if recordings.empty:
        return unreadable
    if rank() == 0:
        log_findings(find_in_recordings(recordings), log)
        list_unreadable(folder, unreadable)
    run.data.exclude(set(unreadable["path"]))
    if lost := sorted(targets - set(run.data.targets)):
        raise ValueError(f"{', '.join(lost)}: none of its recordings can be read")
    check_recordings(run, recordings)
    return unreadable


def used(run: Experiment, stages: Collection[str]) -> Clips:
    """Return the recordings that some stage reads."""
    if not set(stages) - {"check", "report"}:
        return run.data.clips[[]]
    if run.synthesis.references:
        return run.data.clips
    generated = run.generator is not None or "pretrain" in stages
    prepared = bool(run.detector.to_prepare())
    return run.data.clips.filter(
        lambda clip: (
            clip.role == "target"
            or (generated and is_trainable(clip))
            or (prepared and clip.split == "train" and clip.label == "normal")
        )
    )
