"""Which stages a run has, what of them is in the store, and why the rest has to be built."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.stage import Estimate, Stage, Value
from fsasd.store.key import Description
from fsasd.store.provenance import PROVENANCE, Provenance
from fsasd.store.store import Store

Planner = Callable[[Experiment, Mapping[str, Sequence[Stage]]], Sequence[Stage]]
"""(experiment, stages planned before, by their name) -> further stages, inputs before those that
need them."""


def plan(planners: Mapping[str, Planner], experiment: Experiment) -> dict[str, list[Stage]]:
    """Plan the stages of a run, in the order in which they are built.

    Args:
        planners: Name of a group of stages to what plans it.
        experiment: What is planned for.

    Returns:
        Group to its stages.
    """
    by_name: dict[str, list[Stage]] = {}
    groups: dict[str, list[Stage]] = {}
    for group, planner in planners.items():
        groups[group] = list(planner(experiment, by_name))
        for stage in groups[group]:
            by_name.setdefault(stage.name, []).append(stage)
    return groups


def chosen(groups: Mapping[str, Sequence[Stage]], names: Collection[str]) -> list[Stage]:
    """Return the stages that are named, by their own names or those of their groups.

    Args:
        groups: What ``plan`` returns.
        names: Of groups or stages.
    """
    return [
        stage
        for group, stages in groups.items()
        for stage in stages
        if group in names or stage.name in names
    ]


def with_inputs(stages: Sequence[Stage]) -> list[Stage]:
    """Return stages and everything that they depend on, inputs before those that need them."""
    ordered: dict[Stage, None] = {}

    def add(stage: Stage) -> None:
        if stage in ordered:
            return
        for _, needed in stage.input_stages():
            add(needed)
        ordered[stage] = None

    for stage in stages:
        add(stage)
    return list(ordered)


@dataclass(frozen=True)
class Step:
    """What a stage has before it in the store.

    Attributes:
        stage: The stage.
        wanted: What determines its artifact; ``None`` while an input's value is not known.
        path: The artifact, where it is there and is to be used.
        why: Why it is to be built; empty where ``path`` is there, or where nothing like it is.
        forced: Whether it is built again though it is there, or begun.
    """

    stage: Stage
    wanted: Description | None
    path: Path | None
    why: Sequence[str] = ()
    forced: bool = False

    @property
    def action(self) -> str:
        """``reuse``, ``build``, or ``wait`` for the value of an input that is yet to be built."""
        if self.path is not None:
            return "reuse"
        return "build" if self.wanted else "wait"


@dataclass
class Lookup:
    """Finds the artifacts of stages, from the first inputs on.

    Args:
        store: Where artifacts are kept.
        again: Names of stages, or of groups of them, that are built though they are there.
        frozen: Names of stages, or of groups of them, whose newest artifact is used, whatever it
            was trained on.
        groups: Name of a stage to that of its group.
        since: When the command began that says ``again``, UTC in ISO 8601: what was built later, by
            another job of a sweep, is not built again.
        places: Where the artifacts are of stages that were asked for, built or not.
    """

    store: Store
    again: Collection[str] = ()
    frozen: Collection[str] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    places: dict[Stage, Path] = field(default_factory=dict, init=False)
    _newest: dict[str, Provenance | None] = field(default_factory=dict, init=False, repr=False)

    def step(self, stage: Stage, missing: Collection[Stage] = ()) -> Step:
        """Return what is there of a stage.

        Args:
            stage: Its inputs were asked for before.
            missing: Stages without an artifact, since they failed.

        Raises:
            FileNotFoundError: It is frozen, and no artifact of it fits.
        """
        if self.is_frozen(stage):
            self.places[stage] = self._frozen(stage)
            return Step(stage, None, self.places[stage])
        wanted = self.describe(stage, missing)
        if wanted is None:
            return Step(stage, None, None)
        self.places[stage] = self.store.path(wanted)
        path = self.store.find(wanted)
        forced = self._is_named(stage, self.again)
        if path is not None and not (forced and self.store.is_older(path, self.since)):
            return Step(stage, wanted, path)
        return Step(stage, wanted, None, ["forced"] if forced else self.store.why(wanted), forced)

    def describe(self, stage: Stage, missing: Collection[Stage] = ()) -> Description | None:
        """Return what determines a stage's artifact; ``None`` while a value is not known."""
        spec = dict(stage.spec())
        keys: dict[str, str] = {}
        for name, source in stage.inputs.items():
            needed = source.stage if isinstance(source, Value) else source
            if needed in missing:
                continue
            if needed not in self.places:
                return None
            if isinstance(source, Value):
                if not self.places[needed].is_dir():
                    return None
                spec[name] = source.read(self.places[needed])
            else:
                keys[name] = self.places[needed].name
        section = str(stage.section or "")
        return Description(stage.name, stage.version, spec, keys, section)

    def inputs(self, stage: Stage, missing: Collection[Stage] = ()) -> dict[str, Any]:
        """Return the folders and values that a stage is built of."""
        inputs: dict[str, Any] = {}
        for name, source in stage.inputs.items():
            needed = source.stage if isinstance(source, Value) else source
            if needed not in missing:
                path = self.places[needed]
                inputs[name] = source.read(path) if isinstance(source, Value) else path
        return inputs

    def estimate(self, step: Step) -> Estimate | None:
        """Return what building a stage will take: by its own model, else by what is in the store.

        What is in the store is of other settings: it says no more than an order of magnitude.
        """
        if (known := step.stage.estimate()) is not None:
            return known
        name = step.stage.name
        if name not in self._newest:
            # Once for all sections, and one provenance of them is read.
            last = max(self.store.artifacts(name), key=_completed, default=None)
            self._newest[name] = self.store.provenance(last) if last else None
        if (newest := self._newest[name]) is None:
            return None
        return Estimate(newest.seconds / 3600, newest.bytes / 1e9)

    def is_frozen(self, stage: Stage) -> bool:
        """Return whether the newest artifact of a stage is used, whatever it was trained on."""
        return self._is_named(stage, self.frozen)

    def _is_named(self, stage: Stage, names: Collection[str]) -> bool:
        return not {stage.name, self.groups.get(stage.name)}.isdisjoint(names)

    def _frozen(self, stage: Stage) -> Path:
        spec, section = dict(stage.spec()), str(stage.section or "")
        # Values of inputs are entries of the spec, too.
        values = [name for name, source in stage.inputs.items() if isinstance(source, Value)]
        ignoring = [*stage.trained_on, *values]
        path = self.store.newest(stage.name, stage.version, spec, ignoring, section)
        if path is None:
            wanted = Description(stage.name, stage.version, spec, section=section)
            differences = "; ".join(self.store.why(wanted, ignoring))
            nearest = f" The nearest differs: {differences}." if differences else ""
            raise FileNotFoundError(
                f"frozen: the store has no artifact of {stage} with these settings.{nearest} Build "
                f"it once without frozen=[{stage.name}]"
            )
        return path


def _completed(artifact: Path) -> int:
    return (artifact / PROVENANCE).stat().st_mtime_ns
