"""Whether a run will have the number that is to be optimised, before any stage is built."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lightning.pytorch.callbacks import ModelCheckpoint

from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.plan import with_inputs
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.training_length import (
    first_validation,
    training_steps,
    validated_batches,
    validates_last,
)
from fsasd.selection.choice import has_both_labels
from fsasd.selection.validation import validation_clips

log = logging.getLogger(__name__)


def check_objective(name: str, run: Experiment, asked: Sequence[Stage]) -> None:
    """Check that a run will have its objective (``report.objective``).

    Args:
        name: One of ``report.objective.DIRECTIONS``.
        run: The experiment.
        asked: Its stages.

    Raises:
        ValueError: It will not; says what to set.
    """
    if problem := _problem(name, run, with_inputs(asked)):
        raise ValueError(f"objective={name}: {problem}")
    if name == "official":
        log.warning(
            "objective=official: settings are optimised on the test labels of target machines. The "
            "best score by them is no result of a first-shot method"
        )


def _problem(name: str, run: Experiment, stages: Sequence[Stage]) -> str:
    """Return why there will be no such number, and what to set; empty where there will be one."""
    if name == "val/loss":
        return _without_loss(run, stages)
    if name == "official":
        tests = [clips.where(split="test") for clips in run.sections("target").values()]
        if not any(map(has_both_labels, tests)):
            return (
                "no target machine has normal and anomalous test clips that are labelled. Set "
                "objective=synthetic/objective or validation/objective"
            )
        return "" if _planned("detect", stages) else "nothing is detected. Add detect to stages"
    if run.generator is None:
        return "there are no synthetic clips. Set a generator, e.g. generator=transforms"
    if not run.selector.grids:
        return "the detector has no settings to choose from. Set selection.grid"
    if name == "synthetic/objective":
        sections = run.sections("target")
        nothing = "no target machine has normal training clips"
    else:
        if not run.synthesis.references:
            return "nothing is synthesised for reference machines. Set synthesis.references=true"
        sections = {
            section: clips
            for section, clips in run.sections("reference").items()
            if validation_clips(clips)
        }
        nothing = (
            "no reference machine has normal training clips and test clips of both labels. Set "
            "objective=synthetic/objective"
        )
    if not any(clips.where(split="train", label="normal") for clips in sections.values()):
        return nothing
    curves = _planned("curve", stages)
    if any(stage.section in sections for stage in curves):
        return ""
    return "no setting is chosen. Add detect to stages"


def _without_loss(run: Experiment, stages: Sequence[Stage]) -> str:
    if not run.trains_generator:
        return "the generator is not fine-tuned. Set one that is, e.g. generator=audioldm_nano"
    if not _planned("finetune", stages):
        return "nothing is fine-tuned. Add finetune to stages"
    if not len(run.data.split()[1]):
        return f"data.val_share={run.data.val_share:g} keeps no clip back for validation. Raise it"
    return _without_validation(run)


def _without_validation(run: Experiment) -> str:
    trainer, data = run.trainer.settings, run.data
    if not validated_batches(trainer, data):
        return "nothing is validated. Leave limit_val_batches out"
    steps = training_steps(trainer, data)
    if first_validation(trainer, data) > steps:
        return (
            f"the training ends after step {steps}, before the first validation. Set "
            f"trainer.val_check_interval to {steps} or less"
        )
    if not _keeps_the_best(run) and not validates_last(trainer, data):
        return (
            f"the weights of the last step, {steps}, are kept, and they are not validated. Set "
            f"trainer.val_check_interval to a divisor of {steps}, or keep the best checkpoint "
            "(callbacks=default)"
        )
    return ""


def _keeps_the_best(run: Experiment) -> bool:
    """Return whether the weights that are kept are those of a validation (``fit_best``)."""
    for one in run.callbacks.values():
        if isinstance(one.kind, type) and issubclass(one.kind, ModelCheckpoint):
            return bool(one.arguments().get("monitor"))
    return False


def _planned(name: str, stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.name == name]
