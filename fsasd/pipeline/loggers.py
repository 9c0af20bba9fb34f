"""Lightning's loggers of a run: the logs of its trainings, and its results.

Trainings log beside what they train, in the store; TensorBoard's results lie in the run's folder.
Weights & Biases has one run for all: configuration, trainings, results. What is interrupted goes on
in it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import Timeout

from fsasd.data.content import digest
from fsasd.generation.training import Training
from fsasd.pipeline.experiment import Experiment, Factory
from fsasd.report.headline import headline
from fsasd.report.objective import objective
from fsasd.report.results import Results
from fsasd.runtime.ranks import rank
from fsasd.store.locks import file_lock

log = logging.getLogger(__name__)

LOG = "log"
"""Folder of loggers in that of an artifact, and of a run."""

_NEEDED = {
    "TensorBoardLogger": ("tensorboard", "fsasd[tensorboard]"),
    "WandbLogger": ("wandb", "wandb"),
}
"""Logger to the package that it needs, and what to install."""

_TABLES = ("metrics", "selection", "validation", "costs", "failed", "synthetic/quality")


def check_loggers(run: Experiment) -> None:
    """Check that the packages of all loggers are installed.

    Raises:
        ValueError: One is not; says how to install it.
    """
    for name, factory in run.loggers.items():
        package, wanted = _NEEDED.get(_kind(factory), (None, None))
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"logger={name} needs the package {package}, which is not installed: "
                f"pip install '{wanted}'"
            )


def training_loggers(run: Experiment, folder: Path, prefix: str = "") -> list[Any] | bool:
    """Make the loggers of a training.

    Args:
        run: The experiment.
        folder: Of the training; loggers write into it that have no folder of their own.
        prefix: Of the names of metrics where all trainings share one log: Weights & Biases.

    Returns:
        For ``lightning.Trainer``.
    """
    return [_training_logger(one, folder, prefix) for one in run.loggers.values()] or False


def _training_logger(factory: Factory, folder: Path, prefix: str) -> Any:
    if not _is_wandb(factory):
        return factory(**({} if factory.settings.get("save_dir") else {"save_dir": str(folder)}))
    if rank() > 0:
        return factory()
    import wandb

    # That of the run, if the training is part of one.
    return factory(prefix=prefix, experiment=wandb.run)


@contextlib.contextmanager
def logged(
    run: Experiment, folder: Path, store: Path, config: Mapping[str, Any]
) -> Iterator[Callable[[str | None], None]]:
    """Log a run with all of its loggers, by the first rank.

    Args:
        run: The experiment.
        folder: The run's folder.
        store: Of artifacts; keeps which run of Weights & Biases an interrupted run goes on in.
        config: The whole configuration.

    Yields:
        What logs the results once they lie in the run's folder; it takes the name of the objective.

    Raises:
        ValueError: Weights & Biases refuses to begin a run.
    """
    if rank() > 0:
        yield lambda name: None
        return
    with contextlib.ExitStack() as stack:
        ours = [one for one in run.loggers.values() if _is_wandb(one)]
        loggers = [stack.enter_context(_wandb_run(one, store, config)) for one in ours]

        def results(name: str | None) -> None:
            metrics = result_metrics(folder, name)
            for one in loggers:
                _log_wandb(one, folder, metrics)
            for factory in run.loggers.values():
                # Of what CSV files could say, the run's folder has tables.
                if not _is_wandb(factory) and _kind(factory) != "CSVLogger":
                    _log_elsewhere(_training_logger(factory, folder, ""), config, metrics)

        yield results


def result_metrics(folder: Path, name: str | None = None) -> dict[str, float]:
    """Return the results of a run as numbers with names.

    Args:
        folder: The run's folder.
        name: Of its objective.

    Returns:
        ``official`` and the ends of its interval; ``objective``; ``kept/step`` and
        ``kept/val/loss`` of the fine-tuned weights; ``<machine>/<section>/<metric>``. What is not
        known is left out.
    """
    results = Results(folder)
    metrics: dict[str, Any] = {}
    if (official := headline(results)) is not None:
        metrics |= {"official": official.score, "official/low": official.low}
        metrics |= {"official/high": official.high, "official/failed": len(official.failed)}
    if name:
        metrics["objective"] = objective(name, folder)
    if (training := Training.read(folder)) is not None:
        metrics |= {"kept/step": training.step}
        metrics |= {} if training.loss is None else {"kept/val/loss": training.loss}
    table = results.metrics
    for row in table[table["section"].notna()].to_dict("records"):
        of_section = f"{row.pop('machine')}/{row.pop('section')}"
        metrics |= {f"{of_section}/{k}": v for k, v in row.items() if isinstance(v, (int, float))}
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}


def _kind(factory: Factory) -> str:
    return str(factory.settings["_target_"]).rpartition(".")[2]


def _is_wandb(factory: Factory) -> bool:
    return _kind(factory) == "WandbLogger"


@contextlib.contextmanager
def _wandb_run(factory: Factory, store: Path, config: Mapping[str, Any]) -> Iterator[Any]:
    """Begin a run of Weights & Biases, or go on with that of an interrupted run, and end it."""
    import wandb

    with _identity(store / "wandb", config) as identity:
        named = {} if factory.settings.get("id") else {"id": identity}
        try:
            logger = factory(**named)
            logger.log_hyperparams(dict(config))
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"logger=wandb: {reason}. WANDB_MODE=offline needs neither an account nor a network"
            ) from error
        try:
            yield logger
        except BaseException:
            _end_wandb_run(exit_code=1)
            raise
        _end_wandb_run(exit_code=0)


def _end_wandb_run(exit_code: int) -> None:
    """Send what is left, for as long as ``settings.finish_timeout`` allows."""
    import wandb

    kept = wandb.run and wandb.run.settings.sync_dir
    try:
        wandb.finish(exit_code)
    except TimeoutError:
        log.warning(
            "Weights & Biases did not take all of this run in time: it lies in %s, and `wandb "
            "sync` sends it", kept,
        )  # fmt: skip


@contextlib.contextmanager
def _identity(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the id of a run, which it keeps until it has come to its end.

    Of two equal commands at work at once, the second has one of its own, and so has a run whose
    store cannot be written.
    """
    apart = {"force", "plan", "logger", "overrides"}
    content = {key: value for key, value in config.items() if key not in apart}
    path = folder / f"{digest([json.dumps(content, sort_keys=True, default=str)])[:16]}.id"
    lock = file_lock(f"{path}.lock", timeout=0)
    fresh = uuid.uuid4().hex[:8]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, Timeout):
        yield fresh
        return
    try:
        if not path.is_file():
            path.write_text(fresh, encoding="utf-8")
        yield path.read_text(encoding="utf-8")
        path.unlink()
    finally:
        lock.release()


def _log_wandb(logger: Any, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log metrics, tables and the page; tables for as long as a run's end may take.

    What a table needs to know is asked of the server, again and again where it does not answer.
    """
    import wandb

    run, media = logger.experiment, _media(folder)
    run.summary.update(dict(metrics))
    if not media:
        return
    errors: list[Exception] = []

    def send() -> None:
        try:
            run.log(media)
        except wandb.errors.Error as error:
            errors.append(error)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    sending.join(run.settings.finish_timeout or None)
    if sending.is_alive() or errors:
        reason = errors[0] if errors else "it does not answer"
        log.warning("Weights & Biases has no tables of this run: %s", reason)


def _media(folder: Path) -> dict[str, Any]:
    import wandb

    media: dict[str, Any] = {}
    for name in _TABLES:
        if (path := folder / f"{name}.csv").is_file():
            table = pd.read_csv(path, dtype=object, keep_default_na=False, na_values=[""])
            cells = table.apply(pd.to_numeric, errors="coerce").astype(object)
            table = cells.where(cells.notna(), table).astype(object)
            table = table.where(table.notna(), None)
            media[f"table/{name}"] = wandb.Table(dataframe=table, allow_mixed_types=True)
    if (page := folder / "report.html").is_file():
        media["report"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
    return media


def _log_elsewhere(logger: Any, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    if _kind_of(logger) == "TensorBoardLogger":
        logger.log_hyperparams(dict(config), dict(metrics))
    else:
        logger.log_hyperparams(dict(config))
    logger.log_metrics(dict(metrics), step=0)
    logger.finalize("success")


def _kind_of(logger: Any) -> str:
    return type(logger).__name__
