"""Run an experiment: plan its stages, check them, build what is not in the store, collect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fsasd.pipeline import recordings
from fsasd.pipeline.collect import collect
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.plan import Lookup, Planner, chosen, plan, with_inputs
from fsasd.pipeline.run_folder import add_unscored
from fsasd.pipeline.runner import Outcome, Runner
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages import detect, finetune, pretrain, synthesise, train
from fsasd.report.results import mark_submission
from fsasd.runtime.errors import doing
from fsasd.runtime.ranks import rank
from fsasd.store.store import Store

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
) -> Outcome:
    """Run an experiment, from Python: what the command ``fsasd`` does, without a configuration.

    Args:
        run: The experiment.
        store: Keeps the artifacts, and has those of earlier runs.
        folder: Gets tables, synthetic clips, models (see ``collect``).
        stages: Names of the stages, or of groups of them, that may be built; the artifacts of
            others must be in the store.
        planners: What plans each group.

    Raises:
        ValueError: A stage cannot be built as it is asked for, or no recording of a target machine
            can be read.
        AbsentError: An artifact is not in the store, and its stage is not among ``stages``.
        Exception: Of a stage that all machines share, or of all sections.
    """
    folder = Path(folder)
    store = store if isinstance(store, Store) else Store(store)
    asked, unreadable = ready(run, planners, stages, folder)
    return build(run, asked, Lookup(store), folder, unreadable)


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
    folder: Path,
    unreadable: pd.DataFrame,
) -> Outcome:
    """Build the stages that are asked for, and collect their artifacts in the run's folder.

    Args:
        run: The experiment.
        asked: As ``ready`` returned them.
        lookup: Finds what is in the store.
        folder: The run's folder.
        unreadable: As ``ready`` returned them.

    Raises:
        AbsentError: An artifact is not in the store, and its stage is not among those asked for.
        Exception: Of a stage that all machines share, or of all sections.
    """

    def publish(stage: Stage, path: Path) -> None:
        with doing(f"copying {stage} to {folder}"):
            lookup.store.use(folder, path)
            stage.publish(path, folder)

    if rank() == 0:
        with doing(f"writing to {folder}"):
            run.data.caption_table().to_csv(folder / "captions.csv", index=False)
        # A simulated factory lies in the store, too.
        path, root = run.data.clips[0].path.resolve(), lookup.store.root
        if path.is_relative_to(root):
            lookup.store.use(folder, root.joinpath(*path.relative_to(root).parts[:2]))
    outcome = Runner(lookup, {stage.name for stage in asked}, publish).run(with_inputs(asked))
    if rank() == 0:
        with doing(f"writing the results to {folder}"):
            outcome.write_failures(folder)
            if outcome.of("judge") or outcome.of("detect"):
                collect(run, outcome, folder)
                add_unscored(folder, unreadable)
                mark_submission(folder)
    return outcome


def _checked(
    run: Experiment, planners: Mapping[str, Planner], stages: Collection[str]
) -> list[Stage]:
    asked = chosen(plan(planners, run), stages)
    for stage in asked:
        stage.check()
    return asked
