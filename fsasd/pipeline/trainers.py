"""Lightning's trainer and callbacks of a run, and what of them determines a result."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L

from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.loggers import training_loggers
from fsasd.pipeline.preflight import check_accelerator
from fsasd.runtime.progress import StepProgress

RESULT = frozenset(
    {
        "precision", "max_epochs", "min_epochs", "max_steps", "min_steps", "limit_train_batches",
        "limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "gradient_clip_val",
        "gradient_clip_algorithm", "deterministic", "benchmark", "sync_batchnorm", "plugins",
    }
)  # fmt: skip
"""Arguments of ``lightning.Trainer`` that a result depends on, and its key: what is trained and how
long, by which validations the best checkpoint is known, and what the last bits depend on."""

RUNTIME = frozenset(
    {
        "_target_", "accelerator", "devices", "strategy", "num_nodes", "accumulate_grad_batches",
        "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "profiler",
        "num_sanity_val_steps", "max_time", "detect_anomaly", "inference_mode",
        "enable_autolog_hparams",
    }
)  # fmt: skip
"""Arguments of ``lightning.Trainer`` that change where, and how fast, a stage runs. A batch is that
of all devices and accumulated steps together. A training that ``max_time`` ends is not finished: it
fails, and the same command goes on from its checkpoint."""

REFUSED: Mapping[str, str] = {
    "fast_dev_run": "it writes no checkpoint, so that no model could be taken from it. Use "
    "experiment=tiny, or trainer.max_steps=1 trainer.val_check_interval=1",
    "overfit_batches": "it replaces the order of examples, by which an interrupted training goes "
    "on. Train on a few clips instead: a smaller data set, or data.batch_size of all its clips",
    "barebones": "it writes no checkpoint and logs nothing, so that no training could be resumed, "
    "and no checkpoint be the best. python -m benchmarks.gpu_audioldm measures speed",
    "enable_checkpointing": "a training is resumed from its checkpoints",
    "limit_predict_batches": "it would leave a part of the synthetic clips as if they were all. "
    "Use synthesis.clips_per_label",
    "limit_test_batches": "no stage calls Trainer.test. Data sets are limited by data",
    "reload_dataloaders_every_n_epochs": "the order of examples is a function of seed and step, "
    "and is never to be loaded again",
    "use_distributed_sampler": "the order of examples divides them among processes by itself",
    "logger": "use logger=csv, tensorboard or wandb",
    "callbacks": "use callbacks=..., or +callbacks.<name>._target_=...",
    "default_root_dir": "stages write into the store, store=...",
    "model_registry": "models are in the store, store=...",
}
"""Arguments of ``lightning.Trainer`` that may only have their default values, and why."""


def check_arguments(settings: Mapping[str, Any]) -> None:
    """Check that no argument of ``lightning.Trainer`` would leave half a result.

    Args:
        settings: Of ``lightning.Trainer``.

    Raises:
        ValueError: Names the first that is refused, and what to use instead.

    >>> check_arguments({"max_steps": 9, "fast_dev_run": False})
    """
    defaults = inspect.signature(L.Trainer).parameters
    for name, reason in REFUSED.items():
        # Where Lightning's default is None, it stands for that value.
        usual = {"enable_checkpointing": True}.get(name, defaults[name].default)
        if name in settings and settings[name] not in (usual, None):
            raise ValueError(
                f"trainer.{name}={settings[name]}: expected it to be left out: {reason}"
            )
    for name in ("max_steps", "max_epochs", "limit_train_batches"):
        if settings.get(name) == 0:
            raise ValueError(f"trainer.{name}=0: expected 1 or more, since it would train nothing")
    if isinstance(interval := settings.get("val_check_interval"), (str, Mapping)):
        raise ValueError(
            f"trainer.val_check_interval={interval}: expected a number of steps, since by a time "
            "the best checkpoint would be another one in each run"
        )


def training_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``lightning.Trainer`` that determine a result.

    >>> training_settings({"devices": 8, "max_steps": 9})
    {'max_steps': 9}
    """
    return {
        name: value
        for name, value in settings.items()
        if name not in RUNTIME and name not in REFUSED
    }


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
    check_arguments(run.trainer.settings)
    check_accelerator(run.trainer.settings)
    nowhere = Path()
    trainer(run, nowhere, callbacks=callbacks(run), logger=False)


def fitting_trainer(run: Experiment, folder: Path) -> L.Trainer:
    """Make the trainer of a fine-tuning, with callbacks and logger."""
    options: dict[str, Any] = {"callbacks": callbacks(run), "logger": training_loggers(run, folder)}
    interval = run.trainer.settings.get("val_check_interval")
    if isinstance(interval, int):
        # Lightning counts batches, of which a step may accumulate several.
        batches = run.trainer.settings.get("accumulate_grad_batches", 1)
        options["val_check_interval"] = interval * batches
    return trainer(run, folder, **options)


def callbacks(run: Experiment) -> list[L.Callback]:
    """Make the callbacks of a fine-tuning."""
    return [one() for one in run.callbacks.values()]
