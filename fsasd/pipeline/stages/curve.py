"""Score every candidate setting on a section's synthetic clips (step 5 of the method)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsasd.data.clips import Clips
from fsasd.data.description import describe_clips
from fsasd.data.names import SectionId
from fsasd.generation.gap import read_gap
from fsasd.generation.synthetic_clips import read_manifest
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.preflight import check_grid
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages.train import prepared, trainings
from fsasd.selection.choice import Evidence, has_both_labels, measure
from fsasd.selection.validation import validation_clips
from fsasd.settings.code import code_of


class Curve(Stage):
    """The evidence for a section's setting: scores of all candidates (``selection.Evidence``).

    Args:
        experiment: What is planned for.
        section: The section.
        train: Its normal training clips.
        test: Test clips to say in hindsight what the choice was worth, if their labels are known.
        inputs: ``synthesise`` and ``judge`` of the section, and the detector's trainings.
    """

    name, version = "curve", 2

    def __init__(
        self,
        experiment: Experiment,
        section: SectionId,
        train: Clips,
        test: Clips | None,
        inputs: Mapping[str, Stage],
    ) -> None:
        super().__init__(inputs, section)
        self.experiment = experiment
        self.train = train
        self.test = test

    def spec(self) -> Mapping[str, Any]:
        """The detector, the settings to try, and the clips."""
        run = self.experiment
        return {
            "detector": run.detector_spec,
            "selection": {**run.selector.measured(), "code": code_of(type(run.selector))},
            "train": describe_clips(self.train),
            "test": describe_clips(self.test, without=["label"]) if self.test else None,
        }

    def check(self) -> None:
        """Check that the detector can be fitted with every setting."""
        _check_settings(self.experiment)

    def publish(self, artifact: Path, run: Path) -> None:
        """Nothing: what was tried is in the tables of all sections (``collect``)."""

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Fit and score with every setting."""
        run = self.experiment
        synthetic = read_manifest(inputs["judge"], recordings=inputs["synthesise"])
        detector = prepared(run, inputs)
        clips = Clips(synthetic, run.data.cache)
        gap = read_gap(inputs["judge"])
        evidence = measure(detector, run.selector, self.train, clips, self.test, gap)
        evidence.save(folder)


# Once for all sections; a sweep makes an experiment for each job, of which none is to be kept.
@functools.lru_cache(maxsize=1)
def _check_settings(run: Experiment) -> None:
    check_grid(run.detector, run.selector)


def evidence_of(run: Experiment, artifact: Path) -> Evidence:
    """Read the artifact of ``Curve``."""
    return Evidence.load(artifact, run.trusted_packages())


def plan(run: Experiment, earlier: Mapping[str, Sequence[Stage]]) -> list[Curve]:
    """Plan the curves of target machines, and of reference machines to validate the choice on."""
    if not run.selector.grids:
        return []
    inputs: dict[SectionId, dict[str, Stage]] = {
        stage.section: {"synthesise": dict(stage.input_stages())["recordings"], "judge": stage}
        for stage in earlier.get("judge", ())
        if stage.section
    }
    clips: dict[SectionId, tuple[Clips, Clips | None]] = {}
    for section, some in run.sections("target").items():
        test = some.where(split="test")
        train = some.where(split="train", label="normal")
        clips[section] = train, test if has_both_labels(test) else None
    for section, some in run.sections("reference").items():
        if usable := validation_clips(some):
            clips[section] = usable
    return [
        Curve(run, section, *clips[section], {**inputs[section], **trainings(earlier)})
        for section in clips
        if section in inputs
    ]
