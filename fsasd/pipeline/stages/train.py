"""Train the networks of a detector that all machines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy

from fsasd.data.clips import Clips
from fsasd.data.content import content_hash
from fsasd.data.description import describe_clips
from fsasd.detectors.base import Detector
from fsasd.detectors.estimator import Estimator, by_network
from fsasd.detectors.networks.training import SET_BY_DETECTORS, batch_norm_groups
from fsasd.detectors.saved import SHARED
from fsasd.generation.synthetic_clips import read_manifest
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.loggers import LOG, training_loggers
from fsasd.pipeline.preflight import check_networks
from fsasd.pipeline.run_folder import link, point
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.trainers import check_trainer, training_settings
from fsasd.settings.code import code_of
from fsasd.settings.spec import spec_of


class Train(Stage):
    """What ``Estimator.prepare`` leaves of the networks of a detector or its representation.

    Args:
        experiment: What is planned for.
        part: The detector, or a detector or representation within it, whose networks are trained.
        synthetic: Synthesised and judged clips to train on beside real ones, by section.
    """

    name, version, together, tolerant = "train", 5, True, True
    trained_on = ("clips",)

    def __init__(
        self, experiment: Experiment, part: Estimator, synthetic: Mapping[str, Stage]
    ) -> None:
        super().__init__(synthetic)
        self.experiment = experiment
        self.part = part

    def spec(self) -> Mapping[str, Any]:
        """The network's own settings, those of its training, and the clips."""
        run = self.experiment
        training = training_settings(run.trainer.spec)
        return {
            "detector": spec_of(self.part.network_spec(), content_hash),
            "code": code_of(self.part),
            "trainer": {k: v for k, v in training.items() if k not in SET_BY_DETECTORS},
            "batch_norm_groups": batch_norm_groups(run.trainer.settings),
            "clips": self._clips,
        }

    @cached_property
    def _clips(self) -> Any:
        # Networks that all machines share do not know which of them are targets.
        return describe_clips(normals(self.experiment), without=["role"])

    def check(self) -> None:
        """Check that processes can divide its batches, and the devices that are asked for."""
        check_networks(self.part, self.experiment.trainer.settings)
        check_trainer(self.experiment)
        labels = self.part.synthetic_labels()
        if labels and self.experiment.generator is None:
            raise ValueError(
                f"{type(self.part).__name__} is to be trained on synthetic clips, too "
                f"({', '.join(sorted(labels))}): choose a generator"
            )

    def publish(self, artifact: Path, run: Path) -> None:
        """The networks, to which the saved detectors of all sections refer; a link to the log."""
        if (artifact / LOG).is_dir():
            point(artifact / LOG, run, f"{LOG}/{self.name}/{artifact.name}")
        if (artifact / SHARED).is_dir():
            link(artifact / SHARED, run, f"models/{SHARED}")

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Train on the normal training clips of all machines."""
        run = self.experiment
        clips = normals(run)
        if labels := self.part.synthetic_labels():
            synthetic = [
                clip
                for name, folder in inputs.items()
                if name.startswith("judge ")
                for clip in read_manifest(folder, inputs[name.replace("judge", "synthesise", 1)])
                if clip.label in labels
            ]
            clips = Clips([*clips, *synthetic], run.data.cache)
        options = {
            name: value
            for name, value in run.trainer.arguments().items()
            if name not in SET_BY_DETECTORS
        }
        if isinstance(options.get("strategy"), ModelParallelStrategy):
            # What detectors train is small enough for each device to hold all of it.
            options["strategy"] = "ddp"
        loggers = training_loggers(run, folder, prefix=type(self.part).__name__)
        self.part.prepare(clips, folder, {**options, "logger": loggers})


def normals(run: Experiment) -> Clips:
    """Return the normal training clips of all machines."""
    return run.data.clips.where(split="train", label="normal")


def plan(run: Experiment, earlier: Mapping[str, Sequence[Stage]]) -> list[Stage]:
    """Plan one training for each network, equal ones once."""
    stages: list[Stage] = []
    for part, *_ in by_network(run.detector.to_prepare()):
        synthetic = {
            f"{stage.name} {stage.section}": stage
            for name in ("synthesise", "judge")
            for stage in earlier.get(name, ())
            if part.synthetic_labels()
        }
        stages.append(Train(run, part, synthetic))
    return stages


def trainings(earlier: Mapping[str, Sequence[Stage]]) -> dict[str, Stage]:
    """Return the trainings that were planned, as inputs of a stage that needs the detector."""
    return {f"train {number}": stage for number, stage in enumerate(earlier.get("train", ()))}


def prepared(run: Experiment, inputs: Mapping[str, Any]) -> Detector:
    """Return the detector with its networks, unfitted."""
    for number, group in enumerate(by_network(run.detector.to_prepare())):
        for part in group:
            part.prepare(normals(run), inputs[f"train {number}"])
    return run.detector
