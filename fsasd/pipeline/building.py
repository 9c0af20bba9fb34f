"""Building the stages of one section, in the process of the command or in a worker."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from joblib.externals.loky.backend import reduction

from fsasd.pipeline.plan import Lookup, Step
from fsasd.pipeline.stage import Stage
from fsasd.runtime.errors import doing, message
from fsasd.runtime.joint import BusyError
from fsasd.runtime.memory import return_freed_memory
from fsasd.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chain:
    """Stages of one section that are built one after the other, by their numbers in a run.

    Attributes:
        stages: Their numbers; inputs before those that need them.
        places: Number to the artifact, of the inputs of other sections and of all.
        missing: Numbers of stages without an artifact, since they failed.
        wait: Wait for other jobs that are building one of them.
    """

    stages: Sequence[int]
    places: Mapping[int, Path]
    missing: Collection[int]
    wait: bool


@dataclass
class Built:
    """What became of a chain.

    Attributes:
        artifacts: Number of a stage to the folder of its artifact.
        failed: Number of the stage that failed.
        error: What it raised.
        busy: Whether another job is building the stage after the last artifact.
    """

    artifacts: dict[int, Path] = field(default_factory=dict)
    failed: int | None = None
    error: Exception | None = None
    busy: bool = False


class Builder:
    """Builds stages of a run in this process.

    Args:
        stages: All stages of the run.
        lookup: Finds what is in the store.
    """

    def __init__(self, stages: Sequence[Stage], lookup: Lookup) -> None:
        self.stages = stages
        self.lookup = lookup

    def artifact(self, step: Step, missing: Collection[Stage], wait: bool) -> Path:
        """Return the artifact of a stage, which is built if another job has not built it meanwhile.

        Args:
            step: What there was of it.
            missing: Stages without an artifact, since they failed.
            wait: Wait for another job that is building it.

        Raises:
            BusyError: Another job is building it, and is not waited for.
            Exception: What the stage raised.
        """
        stage = step.stage
        assert step.wanted is not None
        inputs = self.lookup.inputs(stage, missing)
        with doing(f"building {stage} in {self.lookup.places[stage]}"):
            path = self.lookup.store.build(
                step.wanted,
                lambda folder: stage.build(folder, inputs),
                again=step.forced,
                since=self.lookup.since,
                together=stage.together,
                wait=wait,
            )
        return_freed_memory()
        return path

    def chain(self, chain: Chain) -> Built:
        """Build the stages of a section up to the first that fails, or that is being built."""
        missing = {self.stages[number] for number in chain.missing}
        self.lookup.places |= {self.stages[n]: path for n, path in chain.places.items()}
        built = Built()
        for number in chain.stages:
            stage = self.stages[number]
            try:
                step = self.lookup.step(stage, missing)
                built.artifacts[number] = step.path or self.artifact(step, missing, chain.wait)
            except BusyError:
                built.busy = True
                break
            except Exception as error:
                log_failure(stage, error)
                built.failed, built.error = number, error
                break
        return built

    def pickled(self) -> bytes:
        """Return what another process needs to build chains of this run."""
        store = Store(self.lookup.store.root)
        one = Builder(self.stages, dataclasses.replace(self.lookup, store=store))
        # This pickles functions within functions, too, such as what makes a logger.
        return bytes(reduction.dumps(one))


def build_chain(builder: Builder, chain: Chain) -> Built:
    """Build a chain in a worker."""
    built = builder.chain(chain)
    if built.error is not None:
        built.error = _portable(built.error)
    return built


def log_failure(stage: Stage, error: Exception) -> None:
    """Log why a section has no result; with where it failed at the level ``DEBUG``."""
    whole = error if log.isEnabledFor(logging.DEBUG) else None
    log.error("%s failed: %s", stage, message(error), exc_info=whole)


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(message(error))
    return error
