"""Pre-flight checks: validate the configuration against all stages before the first one runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from sklearn.base import clone

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.draws import process_batch
from fsasd.detectors.base import Detector
from fsasd.detectors.learned import LearnedRepresentation
from fsasd.detectors.networks.shares import require_whole_shares
from fsasd.detectors.networks.training import SET_BY_DETECTORS, processes
from fsasd.pipeline.training_length import (
    accumulated,
    first_validation,
    training_steps,
    validated_batches,
)
from fsasd.selection.selector import Selector
from fsasd.selection.settings import title
from fsasd.settings.names import near
from fsasd.settings.objects import check_described, described
from fsasd.settings.parameters import check_settings, check_value

SECTIONS: dict[str, dict[str, Any]] = {
    "": {
        "stages": list[str],
        "force": list[str],
        "frozen": list[str],
        "plan": bool,
        "pipeline": Any,
        "tables": list[int],
        "seed": int,
        "shard": str | None,
        "objective": Literal["validation/objective", "synthetic/objective", "val/loss", "official"]
        | None,
        "store": str,
        "keep_checkpoints": bool,
        "continue_from": int | None,
    },
    "check": {"headers_only": bool, "json": bool},
    "decision": {"false_alarm_rate": float},
    "pretrain": {"text_steps": int, "vae_steps": int},
    "synthesis": {
        "references": bool,
        "clips_per_label": int,
        "batch_size": int,
        "max_seconds": float | None,
        "prompts": Any,
        "per_caption": Literal["proportional", "balanced"],
        "candidates": int,
        "cleaning": Any,
        "filters": Any,
        "encoders": Any,
    },
}
"""Parts of the configuration that are the arguments of no class, and their types."""


def check_config(config: Mapping[str, Any]) -> None:
    """Check every value of the configuration by what takes it.

    Args:
        config: Plain, interpolations resolved.

    Raises:
        ValueError: Names the first that is unknown or has another type or range.

    >>> check_config({"seed": "abc"})
    Traceback (most recent call last):
    ...
    ValueError: seed='abc': expected a whole number from 0 to 4294967295
    """
    for name, hint in SECTIONS[""].items():
        if name in config:
            check_value(name, config[name], hint)
    for section, hints in SECTIONS.items():
        for name, value in (config.get(section) or {}).items() if section else ():
            if name not in hints:
                raise ValueError(f"{section}.{name}: there is no such setting{near(name, hints)}")
            check_value(f"{section}.{name}", value, hints[name])
    if "pretrain" in config:
        # It makes the checkpoint that its generator begins with.
        generator = {k: v for k, v in config["generator"].items() if k != "checkpoint"}
        config = {**config, "generator": generator}
    check_settings(config)


def check_added(overrides: Iterable[str], config: Mapping[str, Any], known: Sequence[str]) -> None:
    """Check that what the command line adds to the configuration is read by something.

    Args:
        overrides: As they were typed; those that begin with ``+`` add.
        config: Plain, interpolations as they are written.
        known: Names at the top of the configuration, and config groups.

    Raises:
        ValueError: Names the first that nothing reads.

    >>> check_added(["+detecto=knn"], {"detecto": "knn"}, ["detector"])
    Traceback (most recent call last):
    ...
    ValueError: +detecto=knn: nothing is called so. Did you mean 'detector'? There are detector
    """
    for override in overrides:
        if not override.startswith("+"):
            continue
        name = override.lstrip("+").partition("=")[0].partition("@")[0]
        first, *rest = name.split(".")
        if first not in known and name not in known and not _is_interpolated(first, config):
            groups = {name for name in known if "/" not in name}
            raise ValueError(f"{override}: nothing is called so{near(first, groups)}")
        if first == "callbacks" and rest:
            callbacks = config["callbacks"]
            if "_target_" not in (callbacks.get(rest[0]) or {}):
                chosen = [name for name, c in callbacks.items() if c and "_target_" in c]
                raise ValueError(f"{override}: no callback is called so{near(rest[0], chosen)}")


def check_accelerator(trainer: Mapping[str, Any]) -> None:
    """Check that this machine has the devices that are asked for.

    Args:
        trainer: Settings of ``lightning.Trainer``.

    Raises:
        ValueError: It has not.
    """
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    wanted = len(devices) if isinstance(devices, list) else devices
    if wanted in (0, "0"):
        raise ValueError(f"trainer.devices={devices}: expected 1 or more, or -1 for all there are")
    mps = torch.backends.mps.is_available()
    if accelerator not in ("gpu", "cuda") or (accelerator == "gpu" and mps):
        return
    if not torch.cuda.is_available():
        if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            raise ValueError(
                f"trainer.accelerator={accelerator}: CUDA_VISIBLE_DEVICES hides every GPU. From "
                "jobs that ask for none, submitit and Ray hide them. Ask for one: "
                "hydra.launcher.gpus_per_node=1, +hydra.launcher.ray.remote.num_gpus=1"
            )
        raise ValueError(
            f"trainer.accelerator={accelerator}: torch {torch.__version__} finds no GPU on this "
            "machine. Use trainer=default, which computes on what there is, or install a driver "
            "and a torch that fit together"
        )
    gpus = torch.cuda.device_count()
    if isinstance(wanted, int) and wanted > gpus:
        raise ValueError(f"trainer.devices={devices}: this machine has {gpus} GPUs")


def check_grid(detector: Detector, selector: Selector) -> None:
    """Check that the detector can be fitted with every setting of the grid.

    Raises:
        ValueError: It lacks a parameter, or its networks depend on one.
    """
    selector.check(detector)
    for setting in selector.settings():
        try:
            check_described(described(clone(detector).set_params(**setting)))
        except ValueError as error:
            raise ValueError(f"selection.grid: {title(setting)}: {error}") from None
    trained = detector.network_spec()
    for setting in selector.settings() if trained else []:
        asked = clone(detector).set_params(**setting).network_spec()
        if any(asked[key] != trained[key] for key in asked.keys() & trained.keys()):
            raise ValueError(
                f"selection.grid: {title(setting)} changes what networks are trained with, and "
                "they are trained once for all settings: expected settings of the scoring. Sweep "
                "it instead (fsasd -m)"
            )


def check_networks(detector: Detector, trainer: Mapping[str, Any]) -> None:
    """Check that processes can divide the batches that a detector's networks are trained on.

    Args:
        detector: Whose networks are trained.
        trainer: Settings of ``lightning.Trainer``.

    Raises:
        ValueError: A batch cannot be divided evenly.
    """
    for part in detector.to_prepare():
        of = "representation" if isinstance(part, LearnedRepresentation) else "detector"
        for name, value in part.network_spec().items():
            if name.rpartition("__")[2] == "batch_size":
                setting = f"{of}.{name.replace('__', '.')}"
                require_whole_shares(value, processes(trainer), setting)


TRAINING_ONLY = frozenset(
    {"max_time", "limit_train_batches", "limit_val_batches", "sync_batchnorm"}
)
"""Arguments of ``lightning.Trainer`` by which networks are trained, detectors' too."""


def check_heeded(overrides: Sequence[str], generator: bool, detector: bool) -> None:
    """Check that some training takes the arguments of the trainer that the command line sets.

    Args:
        overrides: Of the command line, such as ``trainer.max_steps=9``.
        generator: Whether a generator is trained.
        detector: Whether networks of a detector are trained.

    Raises:
        ValueError: Names the first that no training takes.

    >>> check_heeded(["trainer.max_steps=9"], generator=True, detector=False)
    """
    named = [override.lstrip("+~").split("=")[0].split(".") for override in overrides]
    for name in [rest[0] for group, *rest in named if group == "trainer" and rest]:
        if generator or (name not in TRAINING_ONLY and name not in SET_BY_DETECTORS):
            continue
        if not detector:
            raise ValueError(
                f"trainer.{name} has no effect: the generator is not one that is trained, nor has "
                "the detector networks that are trained once for all machines. Leave it out"
            )
        if name in SET_BY_DETECTORS:
            raise ValueError(
                f"trainer.{name} is about fine-tuning a generator, and this one is not trained. "
                "Networks of the detector have epochs and batch_size of their own "
                "(representation.training.epochs). Leave it out"
            )


def check_training(
    trainer: Mapping[str, Any], monitored: Sequence[str], data: FirstShotDataModule
) -> None:
    """Check that a generator can be trained so, and its best checkpoint be determined.

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
    process_batch(data.batch_size, processes(trainer), accumulated(trainer))
    steps = training_steps(trainer, data)
    validated = validated_batches(trainer, data)
    if not monitored:
        return
    if (first := first_validation(trainer, data)) > steps:
        raise ValueError(
            f"trainer.val_check_interval={trainer.get('val_check_interval')}: the first validation "
            f"would be after step {first}, and training ends after {steps}: expected one before, "
            f"since the best checkpoint by {monitored[0]} is kept"
        )
    last = "or keep the last with callbacks.checkpoint.monitor=null"
    if monitored[0].startswith("val/") and not len(data.split()[1]):
        raise ValueError(
            f"no checkpoint can be the best by {monitored[0]}: data.val_share={data.val_share:g} "
            f"keeps no clip back. Raise it, {last}"
        )
    if not validated:
        raise ValueError(
            f"trainer.limit_val_batches={trainer.get('limit_val_batches')}: no checkpoint can be "
            f"the best by {monitored[0]} without validation. Leave it out, {last} "
            "'~callbacks.evaluation'"
        )


def check_continued(
    trainer: Mapping[str, Any], continue_from: int | None, keep_checkpoints: bool
) -> None:
    """Check that a fine-tuning can continue one of fewer steps.

    Args:
        trainer: Settings of ``lightning.Trainer``.
        continue_from: Steps of the training that is continued.
        keep_checkpoints: Whether its checkpoints stay.

    Raises:
        ValueError: It cannot.

    >>> settings = {"max_steps": 20_000, "val_check_interval": 500}
    >>> check_continued(settings, 10_000, keep_checkpoints=True)
    """
    steps, interval = trainer.get("max_steps") or -1, trainer.get("val_check_interval")
    if continue_from is None:
        return
    if not 0 < continue_from < steps:
        raise ValueError(
            f"continue_from={continue_from}: expected the trainer.max_steps of the training to be "
            f"continued, from 1 to {steps - 1}, which is less than trainer.max_steps={steps}"
        )
    if not isinstance(interval, int) or continue_from % interval:
        raise ValueError(
            f"continue_from={continue_from}: expected a multiple of "
            f"trainer.val_check_interval={interval}, since a training goes on from a validation"
        )
    if not keep_checkpoints:
        raise ValueError(
            f"continue_from={continue_from} needs keep_checkpoints=true: the training of so many "
            "steps is continued from its checkpoints"
        )


def _is_interpolated(name: str, config: Any) -> bool:
    """Say whether a value of the configuration is written in terms of a name at its top.

    >>> _is_interpolated("top", {"r": "${fsasd.grid:0,${top},1}"}), _is_interpolated("top", ["top"])
    (True, False)
    """
    if isinstance(config, Mapping):
        return any(_is_interpolated(name, value) for value in config.values())
    if isinstance(config, list):
        return any(_is_interpolated(name, value) for value in config)
    return bool(re.search(rf"\$\{{(.*[:,{{])?{re.escape(name)}\b", str(config)))
