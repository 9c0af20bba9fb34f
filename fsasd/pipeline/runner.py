"""Builds the stages of a run that are not in the store; a section that fails costs no other."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from fsasd.data.names import SectionId
from fsasd.pipeline.building import Builder, Built, Chain, build_chain, log_failure
from fsasd.pipeline.outcome import Failure, Outcome
from fsasd.pipeline.plan import Lookup, Step
from fsasd.pipeline.shard import Shard
from fsasd.pipeline.stage import Stage
from fsasd.runtime.errors import message
from fsasd.runtime.joint import BusyError
from fsasd.runtime.ranks import RankError, broadcast, rank, receive
from fsasd.runtime.workers import Pool, Serial, WorkerKilledError, Workers

log = logging.getLogger(__name__)

_runs = itertools.count()


class AbsentError(FileNotFoundError):
    """An artifact is not in the store, and its stage is not among those that may be built."""


class Runner:
    """Builds the stages of a run.

    The stages of one section that need not be built by all ranks together are a chain: the chains
    of different sections are built at once where ``workers`` has processes for them. What another
    job is building is left for later, and waited for when nothing else is left to build.

    Args:
        lookup: Finds what is in the store.
        wanted: Names of the stages that may be built; the artifacts of others must be there.
        after: Called with each stage and its artifact once that is there, by the first rank.
        workers: Where sections are built; by default one after the other in this process.
        shard: Which sections are built; of the others what is in the store is used.
    """

    def __init__(
        self,
        lookup: Lookup,
        wanted: Iterable[str],
        after: Callable[[Stage, Path], None] = lambda stage, path: None,
        workers: Workers | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.lookup = lookup
        self.wanted = set(wanted)
        self.after = after
        self.workers = workers or Serial()
        self.shard = shard or Shard()
        self._outcome = Outcome()
        self._failed: set[SectionId] = set()
        self._missing: set[Stage] = set()
        self._postponed: set[Stage] = set()
        self._reused: collections.Counter[str] = collections.Counter()
        self._pool: Pool | None = None
        self._ended = False
        # The n-th run of one rank is the n-th of the others.
        self._number, self._leads = next(_runs), itertools.count()

    def run(self, stages: Sequence[Stage]) -> Outcome:
        """Return the artifacts of all stages.

        Args:
            stages: Inputs before those that need them.

        Raises:
            AbsentError: An artifact is not there, and its stage is not among those wanted.
            Exception: Of a stage that all machines share, or of the first section where all of
                them failed.
        """
        self._stages = list(stages)
        self._numbers = {stage: number for number, stage in enumerate(stages)}
        self._builder = Builder(self._stages, self.lookup)
        # Those that all ranks build, as long as they are not settled.
        self._together = {stage for stage in stages if stage.together}
        if rank() > 0:
            self._follow()
            return self._outcome
        self._sections = {stage.section for stage in stages if stage.section}
        self._share = self.shard.of(self._sections)
        try:
            self._build(stages)
        except Exception as error:
            self._lead(end=f"rank 0 failed: {message(error)}")
            raise
        self._lead(end="")
        return self._sorted()

    def look_again(self) -> Outcome:
        """Return the artifacts once more after ``run``: others may have built some since.

        What depends on these and is of this shard is built, but for what all ranks build together.
        """
        self._postponed = set()
        self._build(self._outcome.postponed)
        return self._sorted()

    def _sorted(self) -> Outcome:
        """Return the outcome in the order of the stages, whichever was built first."""
        outcome = self._outcome
        outcome.artifacts = {
            s: outcome.artifacts[s] for s in self._stages if s in outcome.artifacts
        }
        order = {stage.section: number for stage, number in reversed(self._numbers.items())}
        outcome.failures.sort(key=lambda failure: order[failure.section])
        outcome.postponed = [stage for stage in self._stages if stage in self._postponed]
        if outcome.failures and self._sections == {one.section for one in outcome.failures}:
            raise outcome.failures[0].error
        return outcome

    def _build(self, stages: Sequence[Stage]) -> None:
        """Settle stages: find or build each, or know why it has no artifact."""
        self._pool, self._decided = None, False
        with contextlib.ExitStack() as self._processes:
            self._settle(stages)

    def _settle(self, rest: Sequence[Stage]) -> None:
        wait = False
        while rest:
            left = self._pass(rest, wait)
            # Where nothing else is left to build, that of another job is waited for.
            wait = len(left) == len(rest)
            if not left and self._postponed:
                # Other commands may have built meanwhile what the rest depends on.
                count = len(self._outcome.artifacts)
                left = [stage for stage in self._stages if stage in self._postponed]
                self._postponed = set()
                left = self._pass(left, wait=True)
                if len(self._outcome.artifacts) == count:
                    return
            rest = left

    def _pass(self, stages: Sequence[Stage], wait: bool) -> list[Stage]:
        """Settle what can be settled now; return the stages that are left, in their order."""
        chains: dict[SectionId | None, list[Stage]] = {}
        left: set[Stage] = set()
        # Those of all chains.
        pending: set[Stage] = set()
        for stage in stages:
            needed = {one for _, one in stage.input_stages()}
            before = needed & pending
            if _divides(stage):
                # Its section's chain builds these before it.
                before -= {*chains.get(stage.section, ())}
            if before or not needed.isdisjoint(left):
                left.add(stage)
            elif (step := self._step(stage, {*chains.get(stage.section, ())})) is None:
                self._settled(stage)
            elif _divides(stage):
                chains.setdefault(stage.section, []).append(stage)
                pending.add(stage)
            else:
                left |= self._build_chains(chains, wait)
                chains = {}
                pending.clear()
                left |= self._build_here(step, wait)
        left |= self._build_chains(chains, wait)
        self._log_reused()
        return [stage for stage in stages if stage in left]

    def _step(self, stage: Stage, pending: Collection[Stage]) -> Step | None:
        """Return what a stage has before it in the store; ``None`` where it is not to be built.

        Args:
            stage: Its inputs are settled, or among those pending.
            pending: Stages of its section that are built before it.
        """
        absent = [needed in self._missing for _, needed in stage.input_stages()]
        if stage.section in self._failed or (any(absent) and (not stage.tolerant or all(absent))):
            self._missing.add(stage)
            return None
        step = self.lookup.step(stage, self._missing)
        if step.path is not None:
            self._reuse(step)
            return None
        if stage.name not in self.wanted:
            return None
        inputs = [needed for _, needed in stage.input_stages()]
        others = stage.section is not None and stage.section not in self._share
        # The other ranks have left.
        others |= stage.together and self._ended
        if others or any(needed in self._postponed for needed in inputs):
            self._postponed.add(stage)
            return None
        for needed in inputs:
            known = needed in self._outcome.artifacts or needed in self._missing
            if not known and needed not in pending:
                raise AbsentError(
                    f"{stage}: the result of stage '{needed.name}' is not in the store "
                    f"{self.lookup.store.root}: add it to stages"
                )
        return step

    def _build_here(self, step: Step, wait: bool) -> set[Stage]:
        """Build a stage of all machines, or one that all ranks build; return what is left."""
        stage = step.stage
        if stage.together:
            self._lead(stage)
        try:
            path = self._builder.artifact(step, self._missing, wait)
        except BusyError:
            return {stage}
        except Exception as error:
            if stage.section is None:
                raise
            log_failure(stage, error)
            self._fail(stage, error)
        else:
            self._done(stage, path)
        self._settled(stage)
        return set()

    def _build_chains(
        self, chains: Mapping[SectionId | None, Sequence[Stage]], wait: bool
    ) -> set[Stage]:
        """Build the chains of sections, here or in workers; return what is left of them."""
        self._log_reused()
        tasks = {str(section): self._chain(chain, wait) for section, chain in chains.items()}
        if not self._decided and len(tasks) > 1:
            self._decided = True
            pool = self.workers.pool(len(self._share), self._builder.pickled)
            self._pool = pool and self._processes.enter_context(pool)
        left: set[Stage] = set()
        if self._pool is None or len(tasks) < 2:
            for chain in tasks.values():
                left |= self._take(chain, self._builder.chain(chain))
            return left
        log.info("%d sections are built in %d processes", len(tasks), self._pool.workers)
        with contextlib.closing(self._pool.run(build_chain, tasks)) as results:
            for name, built in results:
                left |= self._take(tasks[name], built)
        return left

    def _chain(self, stages: Sequence[Stage], wait: bool) -> Chain:
        inputs = {needed for stage in stages for _, needed in stage.input_stages()}
        return Chain(
            [self._numbers[stage] for stage in stages],
            {self._numbers[s]: p for s in inputs if (p := self.lookup.places.get(s))},
            [self._numbers[stage] for stage in inputs & self._missing],
            wait,
        )

    def _take(self, chain: Chain, built: Built | WorkerKilledError) -> set[Stage]:
        """Note what became of a chain; return what is left of it."""
        stages = [self._stages[number] for number in chain.stages]
        if isinstance(built, WorkerKilledError):
            killed, built = built, Built()
            for number, stage in zip(chain.stages, stages, strict=True):
                if (path := self.lookup.step(stage, self._missing).path) is None:
                    built.failed, built.error = number, killed
                    log_failure(stage, killed)
                    break
                built.artifacts[number] = path
        for number, path in built.artifacts.items():
            self._done(self._stages[number], path)
        rest = [stage for stage in stages if stage not in self._outcome.artifacts]
        if built.busy:
            return set(rest)
        if built.error is not None:
            assert built.failed is not None
            self._fail(self._stages[built.failed], built.error)
            self._missing |= {*rest}
        return set()

    def _fail(self, stage: Stage, error: Exception) -> None:
        assert stage.section is not None
        self._failed.add(stage.section)
        self._outcome.failures.append(Failure(stage.section, stage.name, error))
        self._missing.add(stage)

    def _done(self, stage: Stage, path: Path) -> None:
        self._outcome.artifacts[stage] = self.lookup.places[stage] = path
        self.after(stage, path)

    def _reuse(self, step: Step) -> None:
        assert step.path is not None
        many = step.stage.section is not None
        title = step.wanted.title if step.wanted else step.stage
        log.log(logging.DEBUG if many else logging.INFO, "%s: reusing %s", title, step.path)
        self._reused[step.stage.name] += many
        self._done(step.stage, step.path)

    def _log_reused(self) -> None:
        for name, count in self._reused.items():
            if count:
                log.info("%s: reusing %d section%s", name, count, "s" if count > 1 else "")
        self._reused.clear()

    def _settled(self, stage: Stage) -> None:
        """Let the other ranks go on when nothing is left that they build, too."""
        if stage in self._together and stage not in self._postponed:
            self._together.remove(stage)
            if not self._together:
                self._lead(end="")

    def _lead(self, stage: Stage | None = None, end: str | None = None) -> None:
        """Let the other ranks build a stage with this one, or end.

        Rank 0 alone knows which sections have failed, and so of which artifacts the inputs are.
        """
        if self._ended or not any(one.together for one in self._stages):
            return
        self._ended = end is not None
        needed = [one for _, one in stage.input_stages()] if stage else []
        text = {
            "end": end,
            "stage": self._numbers[stage] if stage else None,
            "places": {
                self._numbers[one]: str(path)
                for one in needed
                if (path := self.lookup.places.get(one)) and one not in self._missing
            },
            "missing": [self._numbers[one] for one in needed if one in self._missing],
        }
        broadcast(f"run {self._number}: step {next(self._leads)}", json.dumps(text))

    def _follow(self) -> None:
        """Build with rank 0 what all ranks build, in its order."""
        while self._together:
            step = json.loads(receive(f"run {self._number}: step {next(self._leads)}"))
            if step["end"]:
                raise RankError(step["end"])
            if step["stage"] is None:
                return
            stage = self._stages[step["stage"]]
            for number, path in step["places"].items():
                self.lookup.places[self._stages[int(number)]] = Path(path)
            self._missing = {self._stages[number] for number in step["missing"]}
            wanted = self.lookup.step(stage, self._missing)
            try:
                self._builder.artifact(wanted, self._missing, wait=True)
            except BusyError:
                continue
            except Exception as error:
                if stage.section is None:
                    raise
                log_failure(stage, error)


def _divides(stage: Stage) -> bool:
    """Return whether a stage may be built beside those of other sections."""
    return stage.section is not None and not stage.together
