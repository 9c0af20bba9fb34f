"""Fit the detector with a section's setting, score its test clips, set its threshold (step 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsasd.data.clips import Clips
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.description import describe_clips
from fsasd.data.names import SectionId
from fsasd.detection.section import MODEL, detect, load_scores, require_clips
from fsasd.detectors.saved import SHARED
from fsasd.evaluation.calibration import require_rate
from fsasd.evaluation.submission import write_decisions, write_scores
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.run_folder import link, note
from fsasd.pipeline.stage import Stage, Value
from fsasd.pipeline.stages import curve, rule
from fsasd.pipeline.stages.train import prepared, trainings
from fsasd.settings.objects import rebuilt


class Detect(Stage):
    """A section's detector, its scores and decisions (``detection.Detection``).

    Test labels are not looked at: what the scores are worth is computed when all are there.

    Args:
        experiment: What is planned for.
        section: The section.
        clips: All its real clips.
        inputs: ``setting``, where one is chosen, and the detector's trainings.
    """

    name, version = "detect", 15

    def __init__(
        self,
        experiment: Experiment,
        section: SectionId,
        clips: Clips,
        inputs: Mapping[str, Stage | Value],
    ) -> None:
        super().__init__(inputs, section)
        self.experiment = experiment
        self.train = clips.where(split="train", label="normal")
        self.test = clips.where(split="test")

    def spec(self) -> Mapping[str, Any]:
        """The detector, the false-alarm rate, and the clips; not what tests are labelled."""
        run = self.experiment
        return {
            "detector": run.detector_spec,
            "false_alarm_rate": run.false_alarm_rate,
            "train": describe_clips(self.train),
            "test": describe_clips(self.test, without=["label"]),
        }

    def check(self) -> None:
        """Check that there are clips to learn from and to score."""
        require_rate(self.experiment.false_alarm_rate)
        require_clips(self.train, self.test)

    def publish(self, artifact: Path, run: Path) -> None:
        """The saved detector and the score files; tables are of all sections (``collect``)."""
        assert self.section is not None
        name = f"models/{self.section.machine}/section_{self.section.section}"
        link(artifact / MODEL, run, name, without=[SHARED])
        if (artifact / MODEL / SHARED).is_dir():
            link(artifact / MODEL / SHARED, run, f"models/{SHARED}")
        note(run, ["scores"])
        scored = load_scores(artifact)
        write_scores(run / "scores", *scored.section, scored.files, scored.scores)
        write_decisions(run / "scores", *scored.section, scored.files, scored.decisions)

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Fit, score, calibrate."""
        run = self.experiment
        detection = detect(
            prepared(run, inputs),
            rebuilt(inputs.get("setting", {}), run.trusted_packages()),
            self.train,
            self.test,
            run.false_alarm_rate,
        )
        networks = [path / SHARED for name, path in inputs.items() if name.startswith("train ")]
        detection.save(folder, [folder / MODEL / SHARED, *networks])


def test_clips(data: FirstShotDataModule, section: SectionId) -> Clips:
    """Return the test clips of a section, in the order in which they are scored."""
    return data.clips.sections[section].where(split="test")


def plan(run: Experiment, earlier: Mapping[str, Sequence[Stage]]) -> list[Stage]:
    """Plan the curves, the choice, and the detection of each target section."""
    curves = curve.plan(run, earlier)
    rules = rule.plan(run, curves)
    chosen = {stage.section for stage in curves}
    stages: list[Stage] = [*curves, *rules]
    for section, clips in run.sections("target").items():
        inputs: dict[str, Stage | Value] = dict(trainings(earlier))
        if section in chosen:
            inputs["setting"] = Value(rules[0], rule.setting_of(section))
        stages.append(Detect(run, section, clips, inputs))
    return stages
