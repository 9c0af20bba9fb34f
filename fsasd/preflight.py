"""What a later stage would refuse, said before the first: hours of fine-tuning may lie between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.detection import require_clips, sections
from fsasd.detectors.base import Detector
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
