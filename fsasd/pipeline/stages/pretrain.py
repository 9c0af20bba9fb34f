"""Make the nano model's components from nothing, and train it (see docs/explanation/nano.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsasd.generation.fitting import MODEL
from fsasd.pipeline.experiment import Experiment, weights_in
from fsasd.pipeline.run_folder import link
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages.finetune import Finetune
from fsasd.pipeline.trainers import fitting_trainer


class Pretrain(Finetune):
    """A nano model, in ``model/``: what ships with the package was made so.

    Attributes:
        text_steps: Steps of the text encoder's training.
        vae_steps: Steps of the autoencoder's training.
    """

    name, version = "pretrain", 4

    def spec(self) -> Mapping[str, Any]:
        """That of a fine-tuning, and the steps of the components."""
        return {**super().spec(), "pretrain": dict(self.experiment.pretrain)}

    def publish(self, artifact: Path, run: Path) -> None:
        """What fine-tuning leaves; the model as a copy, since it is what the run was for."""
        super().publish(artifact, run)
        (run / MODEL).unlink(missing_ok=True)
        link(artifact / MODEL, run, MODEL)

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Train the components, then the model, from the last checkpoint that the folder holds."""
        # A run without one of diffusers' models does not import it.
        from fsasd.generation.audioldm.pretraining import pretrain

        run = self.experiment
        assert run.generator is not None
        generator = run.generator
        pretrain(
            lambda start: generator(**weights_in(start, generator)),
            run.data,
            fitting_trainer(run, folder),
            folder,
            run.pretrain["text_steps"],
            run.pretrain["vae_steps"],
            keep_checkpoints=run.keep_checkpoints,
        )


def plan(run: Experiment, earlier: Mapping[str, Sequence[Stage]]) -> list[Stage]:
    """Plan the pre-training, if the configuration has its steps."""
    return [Pretrain(run)] if run.pretrain else []
