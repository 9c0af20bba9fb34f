"""Run an experiment: plan its stages, check them, build what is not in the store, collect."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pandas as pd

from fsasd.pipeline import recordings
from fsasd.pipeline.collect import collect
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.loggers import logged
from fsasd.pipeline.outcome import Outcome
from fsasd.pipeline.plan import Lookup, Planner, chosen, plan, with_inputs
from fsasd.pipeline.presence import Presence
from fsasd.pipeline.run_folder import CAPTIONS, add_unscored
from fsasd.pipeline.runner import Runner
from fsasd.pipeline.shard import Shard
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages import detect, finetune, pretrain, synthesise, train
from fsasd.report.results import mark_submission
from fsasd.runtime.errors import doing
from fsasd.runtime.ranks import rank
from fsasd.runtime.workers import Workers
from fsasd.store.store import Store

log = logging.getLogger(__name__)

METHOD: dict[str, Planner] = {
    "pretrain": pretrain.plan,
    "finetune": finetune.plan,
    "synthesise": synthesise.plan,
    "train": train.plan,
    "detect": detect.plan,
}
"""What plans each group of stages, in the order in which they are built."""

STAGES = ("finetune", "synthesise", "train", "detect")
"""The groups of a whole run."""


def execute(
    run: Experiment,
    store: Store | str | Path,
    folder: str | Path,
    stages: Collection[str] = STAGES,
    planners: Mapping[str, Planner] = METHOD,
    runner: Workers | None = None,
    shard: str | None = None,
) -> Outcome:
    """Run an experiment, from Python: what the command ``fsasd`` does, without a configuration.

    Args:
        run: The experiment.
        store: Keeps the artifacts, and has those of earlier runs.
        folder: Gets tables, synthetic clips, models (see ``collect``).
        stages: Names of the stages, or of groups of them, that may be built; the artifacts of
            others must be in the store.
        planners: What plans each group.
        runner: Where sections are built; by default one after the other in this process.
        shard: Of several commands, which one this is, as in ``1/8``: it builds its share of the
            sections.

    Raises:
        ValueError: A stage cannot be built as it is asked for, or no recording of a target machine
            can be read.
        AbsentError: An artifact is not in the store, and its stage is not among ``stages``.
        Exception: Of a stage that all machines share, or of all sections.
    """
    folder = Path(folder)
    store = store if isinstance(store, Store) else Store(store)
    asked, unreadable = ready(run, planners, stages, folder)
    settings = {
        "seed": run.seed,
        "detector": run.detector_spec,
        "trainer": run.trainer.settings,
        "generator": run.generator.settings if run.generator else None,
    }
    with Presence(folder) as commands, logged(run, folder, store.root, settings) as results:
        outcome = build(run, asked, Lookup(store), commands, unreadable, runner, Shard.parse(shard))
        if outcome.collected:
            results(None)
        return outcome


def ready(
    run: Experiment, planners: Mapping[str, Planner], stages: Collection[str], folder: Path
) -> tuple[list[Stage], pd.DataFrame]:
    """Plan and check the stages that are asked for, and leave out recordings that cannot be read.

    Args:
        run: The experiment; its data go on without such recordings.
        planners: What plans each group of stages.
        stages: Names of stages or groups.
        folder: The run's folder; gets ``unreadable.csv``.

    Returns:
        The stages, and the recordings that cannot be read (see ``recordings.inspect``).

    Raises:
        ValueError: A stage cannot be built, or no recording of a target machine can be read.
    """
    asked = _checked(run, planners, stages)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    unreadable = recordings.inspect(run, stages, folder)
    if len(unreadable):
        asked = _checked(run, planners, stages)
    return asked, unreadable


def build(
    run: Experiment,
    asked: Sequence[Stage],
    lookup: Lookup,
    commands: Presence,
    unreadable: pd.DataFrame,
    runner: Workers | None = None,
    shard: Shard | None = None,
    collecting: AbstractContextManager[object] | None = None,
) -> Outcome:
    """Build the stages that are asked for, and collect their artifacts in the run's folder.

    Of several commands at work in one folder, the last collects.

    Args:
        run: The experiment.
        asked: As ``ready`` returned them.
        lookup: Finds what is in the store.
        commands: Those at work in the run's folder.
        unreadable: As ``ready`` returned them.
        runner: Where sections are built.
        shard: Which of them are built.
        collecting: Within it the artifacts are collected.

    Returns:
        The artifacts; ``collected`` says whether the run's folder has all results.

    Raises:
        AbsentError: An artifact is not in the store, and its stage is not among those asked for.
        Exception: Of a stage that all machines share, or of all sections.
    """
    folder, use = commands.folder, lookup.store.use

    def publish(stage: Stage, path: Path) -> None:
        with doing(f"copying {stage} to {folder}"):
            use(folder, path)
            if commands.first:
                stage.publish(path, folder)

    if rank() == 0:
        with doing(f"writing to {folder}"):
            run.data.caption_table().to_csv(folder / CAPTIONS, index=False)
        use(folder, *simulated(run, lookup.store))
    wanted = {stage.name for stage in asked}
    builder = Runner(lookup, wanted, publish, runner, shard)
    outcome = builder.run(with_inputs(asked))
    if rank() > 0:
        return outcome
    with doing(f"writing to {folder}"):
        outcome.write_failures(folder)
    last = commands.is_last()
    if last and outcome.postponed:
        # Shards that ended after this one had looked have left the tables to it.
        outcome = builder.look_again()
        with doing(f"writing to {folder}"):
            outcome.write_failures(folder)
    if outcome.postponed:
        log_postponed(outcome, shard)
    elif not last:
        log.info("other commands are at work in %s: the last of them writes the tables", folder)
    else:
        with doing(f"writing the results to {folder}"), collecting or nullcontext():
            _finish(run, outcome, commands, unreadable, lookup.store)
    return outcome


def log_postponed(outcome: Outcome, shard: Shard | None) -> None:
    """Log what other shards have yet to build, and what is to be done about it."""
    needed = [stage for stage in outcome.postponed if stage.section is None]
    others = {stage.section for stage in outcome.postponed if stage.section}
    log.info(
        "shard %s is done. %d sections are not complete yet: the last shard writes the tables, or "
        "the same command without shard", shard, len(others),
    )  # fmt: skip
    for stage in needed:
        log.info(
            "%s needs all sections: repeat the command of each shard once all have ended", stage
        )


def _finish(
    run: Experiment,
    outcome: Outcome,
    commands: Presence,
    unreadable: pd.DataFrame,
    store: Store,
) -> None:
    folder = commands.folder
    if not commands.first:
        for stage, path in outcome.artifacts.items():
            stage.publish(path, folder)
    # A report alone is made of what is there, of which that table is a part.
    if outcome.artifacts:
        outcome.write_artifacts(folder, simulated(run, store))
    if outcome.of("judge") or outcome.of("detect"):
        collect(run, outcome, folder)
        add_unscored(folder, unreadable)
        mark_submission(folder)
    outcome.collected = True


def simulated(run: Experiment, store: Store) -> list[Path]:
    """Return the artifact that a run's recordings are from, where that is a simulated factory."""
    path = run.data.clips[0].path.resolve()
    if not path.is_relative_to(store.root):
        return []
    return [store.root.joinpath(*path.relative_to(store.root).parts[:2])]


def _checked(
    run: Experiment, planners: Mapping[str, Planner], stages: Collection[str]
) -> list[Stage]:
    asked = chosen(plan(planners, run), stages)
    for stage in asked:
        stage.check()
    return asked
