"""The choice of every section's setting, on all that is known of all sections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fsasd.data.names import SectionId
from fsasd.selection.choice import choose
from fsasd.selection.combination import LeftOut, predicted_interval
from fsasd.selection.selection import Contribution, Expectation, Selection
from fsasd.selection.selector import NUMBERS, Selector, best_of
from fsasd.selection.settings import Candidates, settings_frame, title
from fsasd.selection.sources.base import Case, Estimate

T = TypeVar("T")

MOST = 40
"""Reference sections that weights and intervals are learnt on, so that their cost is bounded. While
there are no more, what is learnt for one of them leaves it out altogether; of more, its curve may
be among those that the others are judged by."""

SYNTHETIC = "synthetic"
"""Name of the source whose generator may have been trained on a reference machine's anomalies."""


def choose_all(
    cases: Sequence[Case],
    selector: Selector,
    sections: Collection[SectionId] | None = None,
    leave_site_out: bool = True,
) -> dict[SectionId, Selection]:
    """Choose a setting for sections, each without its own anomalies (step 5 of the method).

    A reference machine is treated as a target: of the other machines those of its type are left
    out, and those of its site.

    Args:
        cases: All sections that something is known of.
        selector: The settings and the sources.
        sections: For which to choose; all by default.
        leave_site_out: Leave out machines of a reference machine's site, too.
    """
    wanted = [case for case in cases if sections is None or case.section in sections]
    if not selector.sources:
        return {case.section: choose(case.synthetic, selector) for case in wanted}
    choice = _Choice([case for case in cases if case.real], selector, leave_site_out)
    return {case.section: choice.select(case) for case in wanted}


@dataclass(eq=False)
class _Choice:
    """A choice among cases with common references."""

    references: Sequence[Case]
    selector: Selector
    leave_site_out: bool
    _estimates: dict[tuple, dict[str, Estimate]] = field(default_factory=dict)

    def select(self, case: Case) -> Selection:
        references = self._others(case, self.references)
        estimates = self._estimate(case, references)
        # Of very many, some: of each type as long as there are so few.
        taught = first_of_each_type((one, one.type) for one in references)[:MOST]
        pool = references if len(self.references) <= MOST else self.references
        each = [self._left_out(one, self._others(one, pool)) for one in taught]
        weights = self.selector.combination.learn(
            [left_out for left_out, _ in each], list(estimates)
        )
        combined = self._combined(case, weights, estimates)
        misses = []
        for one, (left_out, theirs) in zip(taught, each, strict=True):
            expected = self._combined(one, weights, theirs)
            misses.append(left_out.real[expected.best] - expected.gains[expected.best])
        return self._selection(case, weights, estimates, combined, misses, taught)

    def _others(self, case: Case, references: Sequence[Case]) -> list[Case]:
        """References that may be used for a section."""
        others = [one for one in references if one.section.machine != case.section.machine]
        if case.real is None:
            return others
        others = [one for one in others if one.type != case.type]
        known = self.leave_site_out and case.site is not None
        return [one for one in others if not known or one.site != case.site]

    def _estimate(self, case: Case, references: Sequence[Case]) -> dict[str, Estimate]:
        key = (case.section, *(one.section for one in references))
        if key not in self._estimates:
            self._estimates[key] = {
                name: source.estimate(case, references, self.selector)
                for name, source in self.selector.sources.items()
            }
        return self._estimates[key]

    def _left_out(self, case: Case, others: Sequence[Case]) -> tuple[LeftOut, dict[str, Estimate]]:
        estimates = self._estimate(case, others)
        gains = {name: one.gains for name, one in estimates.items()}
        untrusted = frozenset() if case.strict else frozenset({SYNTHETIC})
        return LeftOut(case.type, gains, case.gains, untrusted), estimates

    def _combined(
        self, case: Case, weights: Mapping[str, float], estimates: Mapping[str, Estimate]
    ) -> _Combined:
        gains = {name: one.gains for name, one in estimates.items()}
        errors = {name: one.error for name, one in estimates.items()}
        total, error = self.selector.combination.combine(weights, gains, errors)
        candidates = case.synthetic.candidates
        cautious = total - self.selector.combination.caution * error
        best = best_of(cautious[: candidates.n_grid], candidates)
        if cautious[best] <= 0:
            best = candidates.default
        return _Combined(total, error, best)

    def _selection(
        self,
        case: Case,
        weights: Mapping[str, float],
        estimates: Mapping[str, Estimate],
        combined: _Combined,
        misses: Sequence[float],
        taught: Sequence[Case],
    ) -> Selection:
        candidates = case.synthetic.candidates
        default, best = candidates.default, combined.best
        expectation = Expectation(np.nan, np.nan, np.nan)
        if best != default:
            types = [one.type for one in taught]
            expectation = Expectation(
                *predicted_interval(float(combined.gains[best]), misses, types, self.selector.level)
            )
        reason = self._no_evidence(estimates)
        if best != default and not reason and self._unsure(estimates, expectation):
            setting = title(candidates.settings[best])
            reason = f"nothing is known of {setting} beforehand, and its gain is not sure"
        chosen = default if reason else best
        contributions = {
            name: _contribution(weights[name], one, candidates, chosen)
            for name, one in estimates.items()
        }
        alone = choose(case.synthetic, self.selector)
        table = _table(alone, candidates, chosen, reason).assign(
            expected=combined.gains, expected_error=combined.error
        )
        for name, one in estimates.items():
            table[f"expected.{name}"] = one.gains
        return replace(
            alone,
            curve=table,
            setting=candidates.settings[chosen],
            abstain_reason=reason,
            gain=float(combined.gains[best]),
            critical_value=np.nan,
            expectation=expectation,
            contributions=contributions,
        )

    def _no_evidence(self, estimates: Mapping[str, Estimate]) -> str:
        """Why nothing is chosen; empty where there is evidence."""
        silent = [f"{name}: {one.reason}" for name, one in estimates.items() if one.reason]
        sources = self.selector.sources
        if not any(sources[name].alone and not one.reason for name, one in estimates.items()):
            return f"there is no evidence ({'; '.join(silent)})"
        return ""

    def _unsure(self, estimates: Mapping[str, Estimate], expectation: Expectation) -> bool:
        sources = self.selector.sources
        known = any(not sources[name].alone and not one.reason for name, one in estimates.items())
        return self.selector.combination.sure and not known and not expectation.is_sure


@dataclass(frozen=True, eq=False)
class _Combined:
    gains: NDArray[np.float64]
    error: NDArray[np.float64]
    best: int


def first_of_each_type(typed: Iterable[tuple[T, Hashable]]) -> list[T]:
    """Order things so that the first of each type come first, then the second of each.

    >>> first_of_each_type([("a1", "a"), ("a2", "a"), ("b1", "b")])
    ['a1', 'b1', 'a2']
    """
    seen: Counter[Hashable] = Counter()
    turns = []
    for number, (thing, kind) in enumerate(typed):
        turns.append((seen[kind], number, thing))
        seen[kind] += 1
    return [thing for _, _, thing in sorted(turns, key=lambda turn: turn[:2])]


def _contribution(
    weight: float, estimate: Estimate, candidates: Candidates, chosen: int
) -> Contribution:
    alone = best_of(estimate.gains[: candidates.n_grid], candidates)
    return Contribution(
        weight,
        weight * float(estimate.gains[chosen]),
        "" if estimate.reason else title(candidates.settings[alone]),
        estimate.origins,
        estimate.details,
        estimate.reason,
    )


def _table(alone: Selection, candidates: Candidates, chosen: int, reason: str) -> pd.DataFrame:
    """The curve on synthetic clips with a row for each setting, also where there were none."""
    table = alone.curve
    if len(table) != len(candidates.settings):
        table = settings_frame(candidates.settings).assign(**dict.fromkeys(NUMBERS, np.nan))
        rows = table.index == candidates.default
        table = table.assign(default=rows, argmax=rows)
    chosen_rows = table.index == chosen
    return table.assign(chosen=chosen_rows, abstain_reason=np.where(chosen_rows, reason, ""))
