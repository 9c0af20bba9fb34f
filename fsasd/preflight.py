"""What a later stage would refuse, said before the first: hours of fine-tuning may lie between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.detection import require_clips, sections
from fsasd.detectors.base import Detector
from fsasd.detectors.shares import require_whole_shares
from fsasd.detectors.training import DETECTORS_OWN, processes
from fsasd.selection import Selector, title


def check_grid(detector: Detector, selector: Selector) -> None:
    """Check that the detector can be fitted with every setting of the grid.

    Raises:
        ValueError: It lacks a parameter, or its networks depend on one.
    """
    selector.check(detector)
    trained = detector.recipe()
    for setting in selector.settings() if trained else []:
        asked = clone(detector).set_params(**setting).recipe()
        if any(asked[key] != trained[key] for key in asked.keys() & trained.keys()):
            raise ValueError(
                f"selection.grid: {title(setting)} changes what networks are trained with, and "
                "they are trained once for all settings: expected settings of the back end. Sweep "
                "it instead (fsasd -m)"
            )


def check_targets(data: FirstShotDataModule) -> None:
    """Check that each section of each target machine has clips to learn from and to score.

    Raises:
        ValueError: Names the first that has not.
    """
    for machine in data.targets:
        for _, own in sections(data.machine(machine)):
            require_clips(own.where(split="train", label="normal"), own.where(split="test"))


def check_networks(detector: Detector, trainer: Mapping[str, Any]) -> None:
    """Check that processes can divide the batches that a detector's networks are trained on.

    Args:
        detector: Whose networks are trained.
        trainer: Settings of ``lightning.Trainer``.

    Raises:
        ValueError: A batch cannot be divided evenly.
    """
    for part in detector.to_prepare():
        if batch_size := part.recipe().get("batch_size"):
            require_whole_shares(batch_size, processes(trainer), "detector.batch_size")


TRAINING_ONLY = frozenset(
    {"max_time", "limit_train_batches", "limit_val_batches", "overfit_batches", "sync_batchnorm"}
)
"""Arguments of ``lightning.Trainer`` by which networks are trained, detectors' too."""


def check_heeded(overrides: Sequence[str], generator: bool, detector: bool) -> None:
    """Check that what the command line says of a training is said of one.

    Args:
        overrides: Of the command line, such as ``trainer.max_steps=9``.
        generator: One is trained.
        detector: One with networks is trained.

    Raises:
        ValueError: Names the first that no training heeds.

    >>> check_heeded(["trainer.max_steps=9"], generator=True, detector=False)
    """
    named = [override.lstrip("+~").split("=")[0].split(".") for override in overrides]
    for name in [rest[0] for group, *rest in named if group == "trainer" and rest]:
        if generator or (name not in TRAINING_ONLY and name not in DETECTORS_OWN):
            continue
        if not detector:
            raise ValueError(
                f"trainer.{name} has no effect: the generator is not one that is trained, nor has "
                "the detector networks that all machines share. Leave it out"
            )
        if name in DETECTORS_OWN:
            raise ValueError(
                f"trainer.{name} is about fine-tuning a generator, and this one is not trained. "
                "The detector's networks are trained as its own settings say (detector.epochs, "
                "detector.batch_size), or until trainer.max_time. Leave it out"
            )


def check_training(
    trainer: Mapping[str, Any], monitored: Sequence[str], data: FirstShotDataModule
) -> None:
    """Check that a generator can be trained so, and that its best checkpoint will be known.

    Args:
        trainer: Settings of ``lightning.Trainer``.
        monitored: What callbacks take the best checkpoint by.
        data: What is trained on.

    Raises:
        ValueError: Says what was expected.
    """
    precision = str(trainer["precision"])
    if precision.endswith("-true") and precision != "32-true":
        raise ValueError(
            f"trainer.precision={precision}: expected 32-true, bf16-mixed or 16-mixed, since "
            "weights that are halved themselves learn nothing from small steps"
        )
    if not monitored:
        return
    batches = trainer["max_steps"] * trainer["accumulate_grad_batches"]
    interval = trainer["val_check_interval"]
    if isinstance(interval, int) and 0 < batches < interval:
        raise ValueError(
            f"trainer.val_check_interval={interval}: expected {batches} at most, the batches that "
            f"there are, since the best checkpoint by {monitored[0]} is kept"
        )
    if monitored[0].startswith("val/") and not len(data.split()[1]):
        raise ValueError(
            f"no checkpoint can be the best by {monitored[0]}: data.val_share={data.val_share:g} "
            "keeps no clip back. Raise it, or keep the last with callbacks.checkpoint.monitor=null"
        )
