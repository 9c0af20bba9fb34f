"""The command ``fsasd``: configure, plan, check, build, collect, report."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import hydra
import lightning as L
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fsasd.cli import configure, launching, resolvers
from fsasd.cli.paths import keep_paths
from fsasd.cli.plan import print_plan
from fsasd.cli.sweep import mark_failed, unmark
from fsasd.data.check import check
from fsasd.data.metadata import require_known
from fsasd.generation import checkpoint
from fsasd.pipeline.execute import build, ready
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.plan import Lookup, plan, with_inputs
from fsasd.pipeline.preflight import SECTIONS, check_added, check_config, check_heeded
from fsasd.pipeline.run_folder import UNREADABLE, unlink
from fsasd.pipeline.runner import FAILED, Outcome
from fsasd.pipeline.stage import Stage
from fsasd.report import console, paper_table, write_report, write_tables
from fsasd.report.headline import objective
from fsasd.report.results import Results
from fsasd.runtime.errors import doing, message
from fsasd.runtime.launchers import begin_job
from fsasd.runtime.memory import keep_freed_memory
from fsasd.runtime.processes import end_with_other_ranks, limit_messages
from fsasd.runtime.ranks import rank
from fsasd.settings.objects import packages
from fsasd.store.store import Store

log = logging.getLogger(__name__)

INCOMPLETE = 3
"""Exit code of a run that went on without some recordings or sections."""


@hydra.main(config_path="pkg://fsasd.conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run fsasd.

    Returns:
        The official score, for sweepers that optimise; ``None`` where labels are not known, NaN
        where a section failed.
    """
    resolvers.register()
    hydra_config = HydraConfig.get()
    begin_job(launching.parallel(hydra_config))
    limit_messages()
    keep_freed_memory()
    end_with_other_ranks()
    np.set_printoptions(precision=4)
    folder = Path(hydra_config.runtime.output_dir)
    keep_paths(cfg, hydra_config.runtime.cwd)
    if rank() == 0:
        unmark(folder)
    try:
        check_added(
            hydra_config.overrides.task,
            OmegaConf.to_container(cfg),  # type: ignore[arg-type]
            [*SECTIONS[""], *filter(None, SECTIONS), *hydra_config.runtime.choices],
        )
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        score, complete = run(cfg, folder, hydra_config.overrides.task)
        if complete:
            return score
        log.error(
            "some recordings or sections are missing from the results: see %s",
            " and ".join(str(f) for name in (UNREADABLE, FAILED) if (f := folder / name).exists()),
        )
        if hydra_config.mode != RunMode.MULTIRUN:
            sys.exit(INCOMPLETE)
        return score
    except KeyboardInterrupt:
        if rank() == 0:
            log.error("interrupted: the same command goes on from what %s holds", cfg.store)
        sys.exit(130)
    except Exception as error:
        # What a constructor says is clearer than that Hydra called it.
        if isinstance(error, InstantiationException) and error.__cause__ is not None:
            reason = str(error.__cause__)
        else:
            reason = message(error)
        if hydra_config.mode == RunMode.MULTIRUN:
            mark_failed(folder, reason)
            raise
        expected = isinstance(error, (ValueError, OSError, ImportError, InstantiationException))
        if os.environ.get("HYDRA_FULL_ERROR") or not expected:
            raise
        log.error("%s (HYDRA_FULL_ERROR=1 shows where)", reason)
        sys.exit(1)


def run(cfg: DictConfig, folder: Path, overrides: Sequence[str] = ()) -> tuple[float | None, bool]:
    """Do what the configuration asks for.

    Args:
        cfg: The configuration.
        folder: The run's folder.
        overrides: What the command line says.

    Returns:
        The official score, ``None`` on ranks above 0 and where it is not known; and whether no
        recording and no section is missing.
    """
    check_config(configure.resolved(cfg))
    experiment, planners = configure.experiment(cfg), configure.planners(cfg)
    groups, stages = plan(planners, experiment), list(cfg.stages)
    _check(cfg, experiment, groups, overrides)
    if rank() == 0 and "check" in stages:
        _check_data(cfg, experiment, folder)
    asked, unreadable = ready(experiment, planners, stages, folder)
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
            print_plan(with_inputs(asked), lookup, {stage.name for stage in asked})
        return None, True
    if rank() == 0:
        _prepare(folder, stages)
    outcome = build(experiment, asked, lookup, folder, unreadable)
    if rank() > 0:
        return None, True
    if "report" in stages:
        with doing(f"reporting in {folder}"):
            _report(cfg, experiment, outcome, folder)
    console(folder)
    return objective(folder), unreadable.empty and not outcome.failures


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
        models = [path for stage, path in outcome.artifacts.items() if stage.name == "finetune"]
        parameters = checkpoint.count_parameters(models[0] / "model") if models else None
    trusted = packages(configure.plain(cfg.detector))
    write_tables(folder, cfg.tables, parameters, trusted)
    write_report(folder, experiment.data)
    log.info("report: %s", folder / "report.html")


if __name__ == "__main__":
    main()
