r"""What choices of a setting are worth on real machines, by the evidence that they are made on.

Each machine plays the target: its setting is chosen without its anomalies, on its synthetic clips,
and on the other machines, those of its type left out (and those of its site). Its real anomalies
then say what the choice gained over the default setting. Intervals are over types of machines, and
clips within them.

    python -m benchmarks.choice path/to/firstshot-real path/to/more-real \
        --types NoisyValve=valve NoisyPump=pump NoisySlider=slider \
        --sites NoisyValve=a NoisyPump=a NoisySlider=a valve=b pump=b slider=b fan=b

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
from hydra import compose, initialize_config_module

from fsasd.cli import configure, resolvers
from fsasd.data.metadata import read_clips
from fsasd.pipeline.execute import build, ready
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.plan import Lookup
from fsasd.pipeline.presence import Presence
from fsasd.pipeline.stages.rule import cases
from fsasd.report.formatting import points
from fsasd.selection.cases import choose_all
from fsasd.selection.choice import real_curve
from fsasd.selection.combination import Combination
from fsasd.selection.selector import Selection, Selector
from fsasd.selection.settings import row_of, title
from fsasd.selection.sources.base import Case
from fsasd.selection.validation import over_types, validation_clips
from fsasd.store.store import Store

ALL = "[synthetic,references,transfer,normals,prior]"


@dataclass(frozen=True)
class Rule:
    """How a setting is chosen.

    Attributes:
        sources: Of ``ALL``; none for synthetic clips alone, by the rule of ``selection=synthetic``.
        settings: Of the selector.
    """

    sources: Sequence[str] = ()
    settings: Mapping[str, object] | None = None


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
    "synthetic, references, prior: the default": Rule(["synthetic", "references", "prior"]),
    "all sources": Rule(["synthetic", "references", "transfer", "normals", "prior"]),
}


def main() -> None:
    """Print a table of the rules, and what the default chose for each machine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("roots", nargs="+", type=Path, help="in the layout of DCASE Task 2")
    parser.add_argument("--types", nargs="*", default=[], help="MACHINE=TYPE")
    parser.add_argument("--sites", nargs="*", default=[], help="MACHINE=SITE")
    parser.add_argument("--fewest", type=int, default=10)
    parser.add_argument("--detector", default="twfr_gmm")
    parser.add_argument("--generator", default="transforms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/choice"))
    parser.add_argument("--set", nargs="*", default=[], help="of fsasd's configuration")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    known, selector = evidence(options)
    combination = selector.combination
    for without_site in (True, False):
        left_out = "type and site" if without_site else "type"
        print(f"\nleft out: {left_out}; {len(known)} machines, detector={options.detector}, "
              f"generator={options.generator}, seed {options.seed}\n")  # fmt: skip
        print("| setting | gain over the default, points | machines better, worse | worst |")
        print("|---|---|---|---|")
        for baseline in selector.baselines:
            rows = [row_of(baseline, case.real.settings) for case in known]
            print(line(title(baseline), known, rows), flush=True)
        for name, rule in RULES.items():
            chosen = choices(known, selector, rule, combination, without_site)
            print(line(name, known, chosen), flush=True)
        print(line("oracle", known, [case.real.best for case in known]), flush=True)
    default = RULES["synthetic, references, prior: the default"]
    print("\n| machine | chosen | gain | best | its gain |\n|---|---|---|---|---|")
    for case, row in zip(known, choices(known, selector, default, combination, True), strict=True):
        best, settings = case.real.best, case.real.settings
        print(f"| {case.section.machine} | {title(settings[row])} | {points(case.gains[row])} "
              f"| {title(settings[best])} | {points(case.gains[best])} |")  # fmt: skip


def evidence(options: argparse.Namespace) -> tuple[list[Case], Selector]:
    """Build the curves of all machines, and return what is known of each."""
    normals = Counter(
        clip.machine
        for root in options.roots
        for clip in read_clips(root)
        if (clip.split, clip.label) == ("train", "normal")
    )
    machines = [name for name, count in normals.items() if count >= options.fewest]
    roots = ",".join(str(root.resolve()) for root in options.roots)
    resolvers.register()
    overrides = [
        "selection=combined", f"selection/sources={ALL}", f"generator={options.generator}",
        f"detector={options.detector}", f"seed={options.seed}", "synthesis.references=true",
        "data=dcase", f"data.root=[{roots}]", f"data.machines=[{','.join(machines)}]",
        f"data.targets=[{machines[0]}]", f"data.references=[{','.join(machines[1:])}]",
        f"data.types={_mapping(options.types)}", f"data.sites={_mapping(options.sites)}",
        f"store={options.out / 'store'}", "trainer.enable_progress_bar=false", *options.set,
    ]  # fmt: skip
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", overrides)
    run = configure.experiment(cfg)
    asked, unreadable = ready(
        run, configure.planners(cfg), ["finetune", "synthesise", "train", "curve"], options.out
    )
    with Presence(options.out) as commands:
        outcome = build(run, asked, Lookup(Store(cfg.store)), commands, unreadable)
    return [_labelled(run, case) for case in cases(run, outcome.of("curve"))], run.selector


def choices(
    known: Sequence[Case],
    selector: Selector,
    rule: Rule,
    combination: Combination,
    without_site: bool,
) -> list[int]:
    """Return the row of the setting that a rule chooses for each machine."""
    sources = {name: selector.sources[name] for name in rule.sources}
    arguments = {
        "grid": selector.grids, "baselines": selector.baselines, "sources": sources,
        "combination": combination, **(rule.settings or {}),
    }  # fmt: skip
    other = Selector(**arguments)
    # What was measured is the same, but for what the gap is asked for.
    some = [_measured_for(case, other) for case in known]
    chosen: Mapping[object, Selection] = choose_all(some, other, leave_site_out=without_site)
    rows = [row_of(chosen[case.section].setting, case.real.settings) for case in known]
    assert None not in rows
    return rows


def line(name: str, known: Sequence[Case], rows: Sequence[int]) -> str:
    """Return a rule's row: its mean gain with an interval over types, and what it did to whom."""
    values = []
    for case, row in zip(known, rows, strict=True):
        default = case.synthetic.candidates.default
        resampled = case.real.resampled[row] - case.real.resampled[default]
        values.append(np.concatenate([[case.gains[row]], resampled])[None])
    mean = over_types(values, [case.type for case in known])[0]
    low, high = np.quantile(mean[1:], [0.025, 0.975])
    gains = np.array([one[0, 0] for one in values])
    return (
        f"| {name} | {points(mean[0])} ({points(low)} to {points(high)}) "
        f"| {(gains > 0).sum()}, {(gains < 0).sum()} | {points(gains.min())} |"
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
