"""Searches: sweeps whose sweeper chooses each job's settings by the objectives of earlier ones."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from fsasd.cli.failures import ending_the_command
from fsasd.cli.launching import is_grid
from fsasd.settings.no_result import changes_no_result

log = logging.getLogger(__name__)

_REFUSED = "the search was refused"

_SQLITE = "sqlite:///"


class Search(Callback):
    """Prepares a search before its first trial, and refuses one that cannot be.

    An objective that the trials will not have, a direction that is not the objective's, and a study
    of another command are refused. A study that was interrupted goes on: its trials count, and one
    that was not finished is the next.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a search without trials."""
        with ending_the_command(_REFUSED):
            if config.hydra.runtime.choices.get("search"):
                raise ValueError("search=optuna chooses the settings of many jobs: add -m")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the objective, and prepare the study of Optuna."""
        sweeper = config.hydra.sweeper
        if is_grid(config.hydra):
            return
        with ending_the_command(_REFUSED):
            choice = str(config.hydra.runtime.choices["hydra/sweeper"])
            objective = _objective(config.objective, choice)
            _check_first_job(config, objective)
            if "study_name" in sweeper:
                _take_direction(sweeper, objective)
                _prepare_study(config, objective)


def _objective(name: str | None, sweeper: str) -> str:
    from fsasd.report.objective import DIRECTIONS

    if name in DIRECTIONS:
        return name
    names = ", ".join(f"objective={known}" for known in DIRECTIONS)
    given = "it is null" if name is None else f"found objective={name}"
    raise ValueError(f"hydra/sweeper={sweeper} needs one number to optimise, {given}: set {names}")


def _take_direction(sweeper: DictConfig, objective: str) -> None:
    """Set the direction in which the objective is better; another one is an error."""
    from fsasd.report.objective import DIRECTIONS

    wanted, given = DIRECTIONS[objective], sweeper.direction
    given = getattr(given, "name", given)
    if given is None:
        sweeper.direction = wanted
    elif given != wanted:
        raise ValueError(
            f"hydra.sweeper.direction={given}: objective={objective} is one to {wanted}. Set "
            f"hydra.sweeper.direction={wanted}, or search=optuna, which does"
        )


def _check_first_job(config: DictConfig, objective: str) -> None:
    """Check that a trial will have the objective: one of the first values, or one of the last.

    Raises:
        ValueError: Neither will; says why not the first.
    """
    from fsasd.cli import configure
    from fsasd.detectors.networks.training import processes
    from fsasd.pipeline.objective import check_objective
    from fsasd.pipeline.plan import chosen, plan

    def check(value: Callable[[Override], str]) -> None:
        cfg = _compose(config, [value(one) for one in _overrides(config)])
        run = configure.experiment(cfg)
        if (count := processes(run.trainer.settings)) > 1:
            raise ValueError(
                f"{count} processes a trial: each would choose settings of its own. Set "
                "trainer.devices=1, and n trials side by side by a launcher (docs/how-to/search.md)"
            )
        check_objective(objective, run, chosen(plan(configure.planners(cfg), run), cfg.stages))

    try:
        check(_first)
    except Exception:
        try:
            check(_last)
        except Exception:
            pass
        else:
            return
        raise


def _compose(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra.compose_config(
        config_name=config.hydra.job.config_name,
        overrides=[*config.hydra.overrides.hydra, *overrides],
        run_mode=RunMode.RUN,
        from_shell=False,
        with_log_configuration=False,
    )


def _overrides(config: DictConfig) -> list[Override]:
    """Return what the command, and the configuration of the sweeper, set in the trials."""
    params = config.hydra.sweeper.get("params") or {}
    lines = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    return OverridesParser.create().parse_overrides(lines)


def _first(override: Override) -> str:
    return _at(override, 0)


def _last(override: Override) -> str:
    return _at(override, -1)


def _at(override: Override, place: int) -> str:
    """Return the override with one of its values."""
    if not override.is_sweep_override():
        return str(override.input_line)
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        value: Any = (swept.start, swept.end)[place]
    else:
        value = list(override.sweep_string_iterator())[place]
    return f"{override.get_key_element()}={value}"


def _prepare_study(config: DictConfig, objective: str) -> None:
    """Count the trials that a study has, and queue those that were not finished once more."""
    # Of Optuna's version about SQLAlchemy's, which is pinned.
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")
    import optuna

    sweeper, storage = config.hydra.sweeper, config.hydra.sweeper.storage
    if not str(storage).startswith(_SQLITE):
        # In memory there is nothing yet, and a database server may have other searches at work.
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = Path(str(storage).removeprefix(_SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    _lock(path)
    study = optuna.create_study(
        study_name=sweeper.study_name, storage=storage, direction=sweeper.direction,
        load_if_exists=True,
    )  # fmt: skip
    _require_same(study, _command(config, objective), sweeper.study_name)
    _queue_unfinished(study)
    repeated = study.user_attrs.get("repeated", [])
    counted = [one for one in study.trials if one.number not in repeated]
    done = sum(one.state.is_finished() for one in counted)
    if counted:
        log.info(
            "study '%s': %d of %d trials are done, %d were interrupted and are repeated",
            sweeper.study_name, done, sweeper.n_trials, len(counted) - done,
        )  # fmt: skip
    sampler = sweeper.sampler
    if "seed" in sampler:
        # With the seed of the first command, the second would draw the same random trials.
        first = config.seed if sampler.seed is None else sampler.seed
        sampler.seed = first + len(study.trials)
    sweeper["n_trials"] = max(sweeper.n_trials - done, 0)


_locks: list[Any] = []
"""Of the studies of this process, until it ends."""


def _lock(path: Path) -> None:
    import filelock

    from fsasd.store.locks import file_lock

    lock = file_lock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(
            f"{path}: another search is at work on this study. For trials side by side, use one "
            "command with a launcher and hydra.sweeper.n_jobs; for another study, set "
            "hydra.sweeper.study_name"
        ) from None
    _locks.append(lock)


def _command(config: DictConfig, objective: str) -> dict[str, Any]:
    """Return what all commands of a study have in common: what is fixed, and what is searched."""
    command: dict[str, Any] = {"objective": objective}
    for override in _overrides(config):
        name = override.get_key_element()
        if not changes_no_result(name):
            command[name] = str(override.input_line).partition("=")[2]
    return command


def _require_same(study: Any, command: dict[str, Any], name: str) -> None:
    """Note the command of a new study; compare it with that of one that goes on."""
    before = study.user_attrs.get("command")
    if before is None:
        study.set_user_attr("command", command)
        return
    for key in {**before, **command}:
        if before.get(key) != command.get(key):
            had, has = (one.get(key, "not set") for one in (before, command))
            raise ValueError(
                f"study '{name}' was begun with {key}: {had}, now it is {has}. Set "
                "hydra.sweeper.study_name to begin another study"
            )


def _queue_unfinished(study: Any) -> None:
    """Queue trials again that a command was killed in: nothing else is at work on the study."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.trial import TrialState

    unfinished = study.get_trials(states=[TrialState.RUNNING])
    repeated = [*study.user_attrs.get("repeated", []), *(one.number for one in unfinished)]
    study.set_user_attr("repeated", repeated)
    for one in unfinished:
        study.tell(one.number, state=TrialState.FAIL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.enqueue_trial(one.params)
