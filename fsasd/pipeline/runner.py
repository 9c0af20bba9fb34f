"""Builds the stages of a run that are not in the store; a section that fails costs no other."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fsasd.data.names import SectionId
from fsasd.pipeline.plan import Lookup, Step
from fsasd.pipeline.stage import Stage
from fsasd.report.results import FAILED
from fsasd.runtime.errors import doing, message
from fsasd.runtime.memory import return_freed_memory
from fsasd.runtime.ranks import broadcast, rank, receive

log = logging.getLogger(__name__)

_runs = itertools.count()


class AbsentError(FileNotFoundError):
    """An artifact is not in the store, and its stage is not among those that may be built."""


@dataclass(frozen=True)
class Failure:
    """A section that has no result.

    Attributes:
        section: Machine and section.
        stage: Name of the stage that failed.
        error: What it raised.
    """

    section: SectionId
    stage: str
    error: Exception

    @property
    def reason(self) -> str:
        """The error in one line."""
        return " ".join(str(self.error).split()) or type(self.error).__name__


@dataclass
class Outcome:
    """What a run has built or found.

    Attributes:
        artifacts: Stage to the folder of its artifact.
        failures: One for each section that failed.
    """

    artifacts: dict[Stage, Path] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def of(self, name: str) -> dict[SectionId, Path]:
        """Return the artifacts of a stage, by section."""
        return {
            stage.section: path
            for stage, path in self.artifacts.items()
            if stage.name == name and stage.section is not None
        }

    def write_failures(self, folder: Path) -> None:
        """Write ``failed.csv``, or take away that of an earlier run in this folder."""
        path = folder / FAILED
        path.unlink(missing_ok=True)
        if self.failures:
            rows = [(*f.section, f.stage, f.reason) for f in self.failures]
            columns = ["machine", "section", "stage", "reason"]
            pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


class Runner:
    """Builds stages one after the other, in this process and those of its ranks.

    Args:
        lookup: Finds what is in the store.
        wanted: Names of the stages that may be built; the artifacts of others must be there.
        after: Called with each stage and its artifact once that is there, by the first rank.
    """

    def __init__(
        self,
        lookup: Lookup,
        wanted: Iterable[str],
        after: Callable[[Stage, Path], None] = lambda stage, path: None,
    ) -> None:
        self.lookup = lookup
        self.wanted = set(wanted)
        self.after = after
        # The n-th run of one rank is the n-th of the others.
        self._number = next(_runs)

    def run(self, stages: Sequence[Stage]) -> Outcome:
        """Return the artifacts of all stages.

        Args:
            stages: Inputs before those that need them.

        Raises:
            AbsentError: An artifact is not there, and its stage is not among those wanted.
            Exception: Of a stage that all machines share, or of the first section where all of
                them failed.
        """
        outcome = Outcome()
        missing: set[Stage] = set()
        for stage in stages:
            failed = {failure.section for failure in outcome.failures}
            absent = [needed in missing for _, needed in stage.input_stages()]
            unbuildable = any(absent) and (not stage.tolerant or all(absent))
            skipped = stage.section in failed or unbuildable
            if stage.together:
                skipped = self._agreed(stage, skipped, missing)
            if skipped:
                missing.add(stage)
                continue
            try:
                path = self._artifact(stage, missing, outcome)
            except Exception as error:
                if stage.section is None or isinstance(error, AbsentError):
                    raise
                log.exception("%s failed: %s", stage, message(error), exc_info=log.isEnabledFor(10))
                outcome.failures.append(Failure(stage.section, stage.name, error))
                missing.add(stage)
                continue
            if path is None:
                continue
            outcome.artifacts[stage] = path
            if rank() == 0:
                self.after(stage, path)
        sections = {stage.section for stage in stages if stage.section}
        if outcome.failures and sections == {failure.section for failure in outcome.failures}:
            raise outcome.failures[0].error
        return outcome

    def _agreed(self, stage: Stage, skipped: bool, missing: set[Stage]) -> bool:
        """Return whether a stage that all ranks build together is skipped: rank 0 decides.

        It alone knows which sections have failed, and so of which artifacts its inputs are.
        """
        name = f"run {self._number}: before {stage}"
        needed = dict(stage.input_stages())
        if rank() == 0:
            places = {
                key: None if one in missing else str(self.lookup.places[one])
                for key, one in needed.items()
                if one in missing or one in self.lookup.places
            }
            broadcast(name, json.dumps([skipped, places]))
            return skipped
        skipped, places = json.loads(receive(name))
        for key, place in places.items():
            if place is None:
                missing.add(needed[key])
            else:
                missing.discard(needed[key])
                self.lookup.places[needed[key]] = Path(place)
        return skipped

    def _artifact(self, stage: Stage, missing: set[Stage], outcome: Outcome) -> Path | None:
        """Return an artifact; ``None`` where it is absent and no stage that is wanted needs it."""
        step = self.lookup.step(stage, missing)
        if stage.name not in self.wanted and not self.lookup.is_frozen(stage):
            return step.path
        # Of what rank 0 builds alone, the others need not know.
        if step.path is None and (rank() == 0 or stage.together):
            self._require_inputs(stage, missing, outcome)
        if step.wanted is None or (step.path is not None and not stage.together):
            if step.path is not None:
                log.info("%s: reusing %s", step.wanted.title if step.wanted else stage, step.path)
            return step.path
        if rank() > 0 and not stage.together:
            # Rank 0 builds it, and says before the next stage that they share if that failed.
            return self.lookup.places[stage]
        return self._built(stage, step, missing)

    def _require_inputs(self, stage: Stage, missing: set[Stage], outcome: Outcome) -> None:
        for _, needed in stage.input_stages():
            place = self.lookup.places.get(needed)
            # Of what rank 0 has built alone, the others may only know the place.
            known = needed in outcome.artifacts or (rank() > 0 and place and place.is_dir())
            if needed not in missing and not known:
                raise AbsentError(
                    f"{stage}: the result of stage '{needed.name}' is not in the store "
                    f"{self.lookup.store.root}: add it to stages"
                )

    def _built(self, stage: Stage, step: Step, missing: set[Stage]) -> Path:
        assert step.wanted is not None
        inputs = self.lookup.inputs(stage, missing)
        with end_of_logging(), doing(f"building {stage} in {self.lookup.places[stage]}"):
            path = self.lookup.store.build(
                step.wanted,
                lambda folder: stage.build(folder, inputs),
                again=step.forced,
                since=self.lookup.since,
                together=stage.together,
            )
        return_freed_memory()
        return path


@contextlib.contextmanager
def end_of_logging() -> Iterator[None]:
    """End the run of Weights & Biases that a stage has begun: the next stage has one of its own."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if (wandb := sys.modules.get("wandb")) and wandb.run:
            wandb.finish(exit_code=int(failed))
