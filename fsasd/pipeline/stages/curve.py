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
from fsasd.pipeline.detector_input import check_clips
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.preflight import check_grid
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages.train import prepared, trainings
from fsasd.selection.cases import MOST, first_of_each_type
from fsasd.selection.choice import has_both_labels, measure
from fsasd.selection.evidence import Evidence
from fsasd.selection.profile import Profile
from fsasd.selection.validation import validation_clips
from fsasd.settings.code import code_of

TRANSFER = "transfer"


class Curve(Stage):
    """The evidence for a section's setting: scores of all candidates (``selection.Evidence``).

    Where other sources than synthetic clips are asked, also the profile of its normal sounds, and
    in ``transfer/`` the scores of clips with transferred anomalies.

    Args:
        experiment: What is planned for.
        section: The section.
        train: Its normal training clips.
        test: Test clips to say in hindsight what the choice was worth, if their labels are known.
        inputs: ``synthesise`` and ``judge`` of the section, if clips are synthesised of it,
            ``transfer`` likewise, and the detector's trainings.
    """

    name, version = "curve", 4

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
            "profile": bool(run.selector.sources),
        }

    def check(self) -> None:
        """Check that the detector can be fitted with every setting, and that clips are for it."""
        _check_settings(self.experiment, "transfer" in self.inputs)

    def publish(self, artifact: Path, run: Path) -> None:
        """Nothing: what was tried is in the tables of all sections (``collect``)."""

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Fit and score with every setting."""
        run, detector = self.experiment, prepared(self.experiment, inputs)
        synthetic, gap = Clips([], run.data.cache), None
        if "judge" in inputs:
            kept = read_manifest(inputs["judge"], recordings=inputs["synthesise"])
            synthetic, gap = Clips(kept, run.data.cache), read_gap(inputs["judge"])
        measure(detector, run.selector, self.train, synthetic, self.test, gap).save(folder)
        if run.selector.sources:
            Profile.of(self.train).save(folder)
        if "transfer" in inputs:
            transferred = Clips(read_manifest(inputs["transfer"]), run.data.cache)
            measure(detector, run.selector, self.train, transferred).save(folder / TRANSFER)


# Once for all sections; a sweep makes an experiment for each job, of which none is to be kept.
@functools.lru_cache(maxsize=1)
def _check_settings(run: Experiment, transferred: bool) -> None:
    check_grid(run.detector, run.selector)
    check_clips(run, transferred)


def evidence_of(run: Experiment, artifact: Path) -> Evidence:
    """Read the artifact of ``Curve``."""
    return Evidence.load(artifact, run.trusted_packages())


def plan(run: Experiment, earlier: Mapping[str, Sequence[Stage]]) -> list[Curve]:
    """Plan the curves of target machines, and of reference machines to validate the choice on."""
    if not run.selector.grids or run.generator is None:
        return []
    several = bool(run.selector.sources)
    inputs: dict[SectionId, dict[str, Stage]] = {
        stage.section: {"synthesise": dict(stage.input_stages())["recordings"], "judge": stage}
        for stage in earlier.get("judge", ())
        if stage.section
    }
    clips = tried_sections(run)
    for stage in earlier.get("transfer", ()):
        if stage.section:
            inputs.setdefault(stage.section, {})["transfer"] = stage
    return [
        Curve(run, section, *clips[section], {**inputs.get(section, {}), **trainings(earlier)})
        for section in clips
        if len(clips[section][0]) and (several or section in inputs)
    ]


def tried_sections(run: Experiment) -> dict[SectionId, tuple[Clips, Clips | None]]:
    """Return the sections on which settings are tried: training clips, and labelled test clips.

    Those of targets, and of reference machines that the choice is validated on, or that sources of
    evidence and their combination learn from (``cases.MOST`` of these at most).
    """
    sections: dict[SectionId, tuple[Clips, Clips | None]] = {}
    for section, clips in run.sections("target").items():
        test = clips.where(split="test")
        train = clips.where(split="train", label="normal")
        if len(train):
            sections[section] = train, test if has_both_labels(test) else None
    references = {
        section: usable
        for section, clips in run.sections("reference").items()
        if (usable := validation_clips(clips))
    }
    if not run.synthesis.references:
        kept = MOST if run.selector.sources else 0
        order = first_of_each_type(
            [(section, run.data.types[section.machine]) for section in references]
        )
        references = {section: references[section] for section in order[:kept]}
    return {**sections, **references}
