"""What the command ``fsasd`` does once it is configured: plan, check, build, collect, report.

Its imports take seconds, those of torch for the most part.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fsasd.cli import configure, resolvers
from fsasd.cli.plain import plain, resolved
from fsasd.cli.plan import print_plan
from fsasd.data.check.report import check
from fsasd.data.metadata import require_known
from fsasd.pipeline.execute import build, ready, simulated
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.loggers import check_loggers, logged
from fsasd.pipeline.memo import Memo
from fsasd.pipeline.objective import check_objective
from fsasd.pipeline.outcome import Outcome
from fsasd.pipeline.plan import Lookup, plan, with_inputs
from fsasd.pipeline.preflight import SECTIONS, check_added, check_config, check_heeded
from fsasd.pipeline.presence import Presence
from fsasd.pipeline.run_folder import UNREADABLE, remove_unused, unlink
from fsasd.pipeline.shard import Shard
from fsasd.pipeline.stage import Stage
from fsasd.report.console import console
from fsasd.report.objective import objective
from fsasd.report.page import write_report
from fsasd.report.results import FAILED, Results
from fsasd.report.tables import paper_table, write_tables
from fsasd.runtime.errors import doing
from fsasd.runtime.memory import keep_freed_memory
from fsasd.runtime.processes import end_with_other_ranks, limit_messages
from fsasd.runtime.ranks import rank
from fsasd.settings.objects import packages
from fsasd.store.store import Store

log = logging.getLogger(__name__)


def run_command(cfg: DictConfig, folder: Path, memo: Memo | None) -> tuple[float | None, bool]:
    """Prepare this process, check what the command line adds to the configuration, and run.

    What is missing from the results is logged as an error.

    Args:
        cfg: The configuration, within a job of Hydra's.
        folder: The run's folder.
        memo: Remembers what the run leaves, if that is complete.

    Returns:
        What ``run`` does.
    """
    limit_messages()
    keep_freed_memory()
    end_with_other_ranks()
    np.set_printoptions(precision=4)
    hydra_config = HydraConfig.get()
    check_added(
        hydra_config.overrides.task,
        OmegaConf.to_container(cfg),  # type: ignore[arg-type]
        [*SECTIONS[""], *filter(None, SECTIONS), *hydra_config.runtime.choices],
    )
    # Trainers switch these on, and none switches them off for a sweep's next job.
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    score, complete = run(cfg, folder, hydra_config.overrides.task, memo)
    if not complete:
        log.error(
            "some recordings or sections are missing from the results: see %s",
            " and ".join(str(f) for name in (UNREADABLE, FAILED) if (f := folder / name).exists()),
        )
    return score, complete


def run(
    cfg: DictConfig, folder: Path, overrides: Sequence[str] = (), memo: Memo | None = None
) -> tuple[float | None, bool]:
    """Do what the configuration asks for.

    Args:
        cfg: The configuration.
        folder: The run's folder.
        overrides: What the command line says.
        memo: Remembers what the run leaves, if that is complete.

    Returns:
        What ``objective`` names, ``None`` on ranks above 0, where another command has yet to build
        the rest, and where it names nothing; and whether no recording and no section is missing.
    """
    noting = memo.warnings if memo else contextlib.nullcontext
    with noting():
        check_config(resolved(cfg))
        runner, shard = configure.runner(cfg), Shard.parse(cfg.shard)
        experiment, planners = configure.experiment(cfg), configure.planners(cfg)
        if memo:
            memo.watch(clip.path for clip in experiment.data.clips)
        groups, stages = plan(planners, experiment), list(cfg.stages)
        _check(cfg, experiment, groups, overrides)
        if rank() == 0 and "check" in stages:
            _check_data(cfg, experiment, folder)
        asked, unreadable = ready(experiment, planners, stages, folder)
        if cfg.objective:
            check_objective(cfg.objective, experiment, asked)
    if stages == ["check"]:
        return None, True
    lookup = Lookup(
        Store(cfg.store),
        again=cfg.force,
        frozen=cfg.frozen,
        groups={stage.name: name for name, planned in groups.items() for stage in planned},
        since=resolvers.command_started(),
    )
    if cfg.plan:
        if rank() == 0:
            print_plan(with_inputs(asked), lookup, {stage.name for stage in asked}, folder)
            remove_unused(folder)
        return None, True
    config = {**resolved(cfg), "overrides": list(overrides)}
    log_results = logged(experiment, folder, lookup.store.root, config)
    with Presence(folder) as commands, log_results as results:
        if commands.first:
            _prepare(folder, stages)
        outcome = build(experiment, asked, lookup, commands, unreadable, runner, shard, noting())
        complete = rank() > 0 or (unreadable.empty and not outcome.failures)
        if not outcome.collected:
            # Rank 0 does it, or another command.
            return None, complete
        if "report" in stages:
            with doing(f"reporting in {folder}"), noting():
                _report(cfg, experiment, outcome, folder)
        if memo and complete:
            memo.remember([*outcome.artifacts.values(), *simulated(experiment, lookup.store)])
        console(folder)
        with doing("logging the results"):
            results(cfg.objective)
        value = objective(cfg.objective, folder) if cfg.objective else None
        return value, complete


def _check(
    cfg: DictConfig,
    experiment: Experiment,
    groups: Mapping[str, Sequence[Stage]],
    overrides: Sequence[str],
) -> None:
    """Check what no single stage does: names, tables, and settings that nothing takes."""
    names = ["check", *groups, "report", *(s.name for stages in groups.values() for s in stages)]
    for setting in ("stages", "force", "frozen"):
        require_known(cfg[setting], names, setting)
    for number in cfg.tables:
        paper_table(number)
    networks = experiment.detector.to_prepare()
    trains_networks = any(not part.trained_by_fit for part in networks)
    check_loggers(experiment)
    check_heeded(overrides, experiment.trains_generator, trains_networks)


def _check_data(cfg: DictConfig, experiment: Experiment, folder: Path) -> None:
    """Report what the data set holds and what is wrong with it (``check.json``).

    Raises:
        ValueError: There are errors in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = check(experiment.data, cfg.check.headers_only)
    written = folder / "check.json"
    written.write_text(report.to_json(), encoding="utf-8")
    if cfg.check.json:
        print(report.to_json())
    else:
        report.print()
    if report.errors:
        raise ValueError(f"the data have errors: see {written}")


def _prepare(folder: Path, stages: Sequence[str]) -> None:
    """Make the run's folder ready for what is to be left there."""
    if stages == ["report"] and not Results(folder).machines:
        raise FileNotFoundError(
            f"{folder}: expected what synthesis or detection left there, found nothing to "
            "report: say hydra.run.dir=<folder of the run>, or add these to stages"
        )
    if {"synthesise", "judge", "curve", "rule", "detect"} & set(stages):
        unlink(folder)


def _report(cfg: DictConfig, experiment: Experiment, outcome: Outcome, folder: Path) -> None:
    """Write the paper's tables and the page."""
    parameters: int | None = 0
    if experiment.trains_generator:
        from fsasd.generation.pipelines.folder import count_parameters

        models = [path for stage, path in outcome.artifacts.items() if stage.name == "finetune"]
        parameters = count_parameters(models[0] / "model") if models else None
    trusted = packages(plain(cfg.detector))
    write_tables(folder, cfg.tables, parameters, trusted)
    write_report(folder, experiment.data)
    log.info("report: %s", folder / "report.html")
