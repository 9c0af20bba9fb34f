"""Lightning's trainer, callbacks and logger of a run, and what of them determines a result."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L

from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.preflight import check_accelerator
from fsasd.runtime.progress import StepProgress

LOG = "log"
"""Folder of loggers in that of an artifact, and of a run."""

RUNTIME = frozenset(
    {
        "_target_", "accelerator", "devices", "strategy", "num_nodes", "accumulate_grad_batches",
        "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "profiler",
        "num_sanity_val_steps",
    }
)  # fmt: skip
"""Arguments of ``lightning.Trainer`` that change where, and how fast, a stage runs. A batch is that
of all devices and accumulated steps together."""


def training_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``lightning.Trainer`` that determine a result.

    >>> training_settings({"devices": 8, "max_steps": 9})
    {'max_steps': 9}
    """
    return {name: value for name, value in settings.items() if name not in RUNTIME}


def trainer(run: Experiment, folder: Path, **options: Any) -> L.Trainer:
    """Make the trainer of a stage, with a progress bar if that is asked for."""
    if run.trainer.settings.get("enable_progress_bar", True):
        options["callbacks"] = [*options.get("callbacks", ()), StepProgress()]
    return run.trainer(default_root_dir=str(folder), **options)


# A sweep makes an experiment for each job, of which none is to be kept.
@functools.lru_cache(maxsize=1)
def check_trainer(run: Experiment) -> None:
    """Check once that this machine has the devices, and that Lightning takes the settings.

    Raises:
        ValueError, MisconfigurationException: It does not.
    """
    check_accelerator(run.trainer.settings)
    nowhere = Path()
    trainer(run, nowhere, callbacks=callbacks(run), logger=False)


def fitting_trainer(run: Experiment, folder: Path) -> L.Trainer:
    """Make the trainer of a fine-tuning, with callbacks and logger."""
    options: dict[str, Any] = {"callbacks": callbacks(run), "logger": logger(run, folder)}
    interval = run.trainer.settings.get("val_check_interval")
    if isinstance(interval, int):
        # Lightning counts batches, of which a step may accumulate several.
        batches = run.trainer.settings.get("accumulate_grad_batches", 1)
        options["val_check_interval"] = interval * batches
    return trainer(run, folder, **options)


def callbacks(run: Experiment) -> list[L.Callback]:
    """Make the callbacks of a fine-tuning."""
    return [one() for one in run.callbacks.values()]


def logger(run: Experiment, folder: Path) -> Any:
    """Make Lightning's logger; without a folder of its own it writes into the stage's."""
    if run.logger is None:
        return False
    place = {} if run.logger.settings.get("save_dir") else {"save_dir": str(folder)}
    return run.logger(**place)
