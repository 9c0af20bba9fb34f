r"""What choices of a setting are worth on real machines, by the evidence that they are made on.

Each machine plays the target: its setting is chosen without its anomalies, on its synthetic clips,
and on the other machines, those of its type left out (and those of its site). Its real anomalies
then say what the choice gained over the default setting. Intervals are over types of machines, and
clips within them.

    python -m benchmarks.choice path/to/firstshot-real path/to/more-real \
        --types NoisyValve=valve NoisyPump=pump NoisySlider=slider \
        --sites NoisyValve=a NoisyPump=a NoisySlider=a valve=b pump=b slider=b fan=b

    python -m benchmarks.choice --factory --seeds 0 1 2

Machines with fewer than ``--fewest`` normal training clips are left out.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.stages import build_stages
from fsasd.data.metadata import read_clips
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.stages.rule import cases
from fsasd.report.formatting import points
from fsasd.selection.cases import choose_all
from fsasd.selection.choice import real_curve
from fsasd.selection.combination import Combination
from fsasd.selection.selection import Expectation, Selection
from fsasd.selection.selector import Selector
from fsasd.selection.settings import row_of, title
from fsasd.selection.sources.base import Case
from fsasd.selection.validation import over_types, validation_clips

ALL = "[synthetic,references,transfer,normals,prior]"

FIRST_FACTORY = 300
"""Seed of the factory of the first seed."""

DEFAULT = "synthetic, references, prior: the default"


@dataclass(frozen=True)
class Rule:
    """How a setting is chosen.

    Attributes:
        sources: Of ``ALL``; none for synthetic clips alone, by the rule of ``selection=synthetic``.
        settings: Of the selector.
        sure: Of the combination.
    """

    sources: Sequence[str] = ()
    settings: Mapping[str, object] | None = None
    sure: bool = False


RULES = {
    "synthetic clips, where their gain is significant": Rule(),
    "synthetic clips, the paper's rule": Rule(
        settings={"abstain": False, "max_gap": None, "ladder": False}
    ),
    "synthetic alone": Rule(["synthetic"]),
    "references alone": Rule(["references"]),
    "transfer alone": Rule(["transfer"]),
    "normals alone": Rule(["normals"]),
    "references, prior": Rule(["references", "prior"]),
    DEFAULT: Rule(["synthetic", "references", "prior"], sure=True),
    "all sources": Rule(["synthetic", "references", "transfer", "normals", "prior"]),
}


def main() -> None:
    """Print a table of the rules, and what the default chose for each machine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("roots", nargs="*", type=Path, help="in the layout of DCASE Task 2")
    parser.add_argument("--factory", action="store_true", help="data=factory_large instead")
    parser.add_argument("--types", nargs="*", default=[], help="MACHINE=TYPE")
    parser.add_argument("--sites", nargs="*", default=[], help="MACHINE=SITE")
    parser.add_argument("--fewest", type=int, default=10)
    parser.add_argument("--detector", default="twfr_gmm")
    parser.add_argument("--generator", default="transforms")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/choice"))
    parser.add_argument("--set", nargs="*", default=[], help="of fsasd's configuration")
    options = parser.parse_args()
    if options.factory == bool(options.roots):
        parser.error("expected folders of recordings, or --factory")
    logging.disable(logging.INFO)
    worlds = [evidence(options, seed) for seed in options.seeds]
    print(f"{len(worlds[0].known)} machines, detector={options.detector}, "
          f"generator={options.generator}, seeds {', '.join(map(str, options.seeds))}")  # fmt: skip
    sites = any(case.site for world in worlds for case in world.known)
    chosen: dict[tuple[str, bool], list[list[Choice]]] = {}
    for without_site in (True, False) if sites else (True,):
        print(f"\nleft out: {'type and site' if sites and without_site else 'type'}\n")
        print("| setting | gain over the default, points | better, worse | worst | sure, worst |")
        print("|---|---|---|---|---|")
        for row, baseline in enumerate(worlds[0].selector.baselines):
            print(line(title(baseline), worlds, [world.baseline(row) for world in worlds]))
        for name, rule in RULES.items():
            chosen[name, without_site] = [world.choices(rule, without_site) for world in worlds]
            print(line(name, worlds, chosen[name, without_site]), flush=True)
        print(line("oracle", worlds, [world.oracle() for world in worlds]))
    print("\n| seed | machine | chosen | expected | gain | best | its gain |")
    print("|---|---|---|---|---|---|---|")
    for seed, world, choices in zip(options.seeds, worlds, chosen[DEFAULT, True], strict=True):
        for case, choice in zip(world.known, choices, strict=True):
            best, settings = case.real.best, case.real.settings
            print(f"| {seed} | {case.section.machine} | {title(settings[choice.row])} "
                  f"| {choice.expected} | {points(case.gains[choice.row])} "
                  f"| {title(settings[best])} | {points(case.gains[best])} |")  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """The setting of one machine.

    Attributes:
        row: Among the settings.
        expectation: What it is expected to gain, if that was asked.
    """

    row: int
    expectation: Expectation | None = None

    @property
    def is_sure(self) -> bool:
        """Whether the interval of the expected gain is above 0."""
        return self.expectation is not None and self.expectation.is_sure

    @property
    def expected(self) -> str:
        """The expected gain with its interval."""
        one = self.expectation
        if one is None or np.isnan(one.gain):
            return ""
        return f"{points(one.gain)} ({points(one.low)} to {points(one.high)})"


@dataclass(frozen=True, eq=False)
class World:
    """What is known of all machines with one seed.

    Attributes:
        known: The machines, each with the curve of its real anomalies.
        selector: Of the default rule.
    """

    known: Sequence[Case]
    selector: Selector

    def baseline(self, row: int) -> list[Choice]:
        """One setting for all."""
        setting = self.selector.baselines[row]
        return [Choice(row_of(setting, case.real.settings)) for case in self.known]

    def oracle(self) -> list[Choice]:
        """The best setting in hindsight."""
        return [Choice(case.real.best) for case in self.known]

    def choices(self, rule: Rule, without_site: bool) -> list[Choice]:
        """What a rule chooses for each machine."""
        arguments = {
            "grid": self.selector.grids,
            "sources": {name: self.selector.sources[name] for name in rule.sources},
            "combination": Combination(
                **{**self.selector.combination.described(), "sure": rule.sure}
            ),
            **(rule.settings or {}),
        }
        other = Selector(**arguments)
        # What was measured is the same, but for what the gap is asked for.
        some = [_measured_for(case, other) for case in self.known]
        chosen: Mapping[object, Selection] = choose_all(some, other, leave_site_out=without_site)
        choices = []
        for case in self.known:
            selection = chosen[case.section]
            row = row_of(selection.setting, case.real.settings)
            assert row is not None
            choices.append(Choice(row, selection.expectation))
        return choices


def evidence(options: argparse.Namespace, seed: int) -> World:
    """Build the curves of all machines, and return what is known of each."""
    overrides = [
        "selection=combined", f"selection/sources={ALL}", f"generator={options.generator}",
        f"detector={options.detector}", f"seed={seed}", "synthesis.references=true",
        *(_factory(seed) if options.factory else _recordings(options)),
        *options.set,
    ]  # fmt: skip
    run, outcome = build_stages(
        overrides, ["finetune", "synthesise", "train", "curve"], options.out
    )
    known = [_labelled(run, case) for case in cases(run, outcome.of("curve"))]
    return World(known, run.selector)


def _factory(seed: int) -> list[str]:
    # No factory that its halls and faults were set by, nor that of the demo.
    return ["data=factory_large", f"data.factory.seed={FIRST_FACTORY + seed}"]


def _recordings(options: argparse.Namespace) -> list[str]:
    normals = Counter(
        clip.machine
        for root in options.roots
        for clip in read_clips(root)
        if (clip.split, clip.label) == ("train", "normal")
    )
    machines = [name for name, count in normals.items() if count >= options.fewest]
    roots = ",".join(str(root.resolve()) for root in options.roots)
    return [
        "data=dcase", f"data.root=[{roots}]", f"data.machines=[{','.join(machines)}]",
        f"data.targets=[{machines[0]}]", f"data.references=[{','.join(machines[1:])}]",
        f"data.types={_mapping(options.types)}", f"data.sites={_mapping(options.sites)}",
    ]  # fmt: skip


def line(name: str, worlds: Sequence[World], chosen: Sequence[Sequence[Choice]]) -> str:
    """Return a rule's row: its mean gain with an interval over types, and what it did to whom."""
    values, types, sure = [], [], []
    for world, choices in zip(worlds, chosen, strict=True):
        for case, choice in zip(world.known, choices, strict=True):
            default = case.synthetic.candidates.default
            resampled = case.real.resampled[choice.row] - case.real.resampled[default]
            values.append(np.concatenate([[case.gains[choice.row]], resampled])[None])
            types.append(case.type)
            sure += [values[-1][0, 0]] if choice.is_sure else []
    mean = over_types(values, types)[0]
    low, high = np.quantile(mean[1:], [0.025, 0.975])
    gains = np.array([one[0, 0] for one in values])
    worst_sure = f"{len(sure)}, {points(min(sure))}" if sure else "0"
    return (
        f"| {name} | {points(mean[0])} ({points(low)} to {points(high)}) "
        f"| {(gains > 0).sum()}, {(gains < 0).sum()} | {points(gains.min())} | {worst_sure} |"
    )


def _labelled(run: Experiment, case: Case) -> Case:
    """The one that is a target in name plays the target as the others do."""
    usable = validation_clips(run.data.clips.sections[case.section])
    assert usable is not None
    return replace(case, real=real_curve(case.synthetic, run.selector, usable[1]))


def _measured_for(case: Case, selector: Selector) -> Case:
    evidence = replace(case.synthetic, measured=selector.measured())
    return replace(case, synthetic=evidence)


def _mapping(pairs: Sequence[str]) -> str:
    return "{" + ",".join(pair.replace("=", ":") for pair in pairs) + "}"


if __name__ == "__main__":
    main()
