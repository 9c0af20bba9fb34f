"""The rules that every source of evidence keeps, for the tests of fsasd and of plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fsasd.data.names import SectionId
from fsasd.selection.evidence import Curve, Evidence, ScoredClips
from fsasd.selection.profile import Profile
from fsasd.selection.selector import Selector
from fsasd.selection.settings import Candidates, settings_frame
from fsasd.selection.sources.base import Case, Estimate, Source
from fsasd.testing.detector_case import ConformanceError

_VALUES = (0.0, 0.25, 0.5, 0.75, 1.0)
_MACHINES = ("fan", "pump", "valve", "slider", "bearing", "gearbox")


def check_source(source: Source) -> None:
    """Check that a source of evidence keeps the rules of ``selection.sources.base.Source``.

    Args:
        source: The source; it is asked about simulated sections.

    Raises:
        ConformanceError: A rule is broken; the message names it and the observed value.

    >>> from fsasd.selection.sources.references import References
    >>> check_source(References())
    """
    cases = _cases()
    target, references = cases[0], cases[1:]
    selector = Selector({"r": list(_VALUES)}, resamples=20)

    def ask(case: Case = target, others: Sequence[Case] = references) -> Estimate:
        return source.estimate(case, others, selector)

    first = ask()
    _check_numbers(first, target)
    _require_equal(first, ask(), "asked twice, a source says the same")
    hidden = replace(target, real=None)
    _require_equal(first, ask(hidden), "a source does not look at the section's real curve")
    _require_equal(
        first, ask(others=references[::-1]), "the order of the reference machines does not matter"
    )
    known = {str(one.section) for one in references}
    _require(
        set(first.origins) <= known and sum(first.origins.values()) < 1 + 1e-9,
        "origins are reference machines that it was given, with shares of at most 1 together",
        str(dict(first.origins)),
    )
    _check_numbers(ask(others=[]), target)
    alone = ask(replace(target, transfer=None, synthetic=_evidence(None)), [])
    _check_numbers(alone, target)


def _check_numbers(estimate: Estimate, case: Case) -> None:
    candidates = case.synthetic.candidates
    shape = (len(candidates.settings),)
    for name in ("gains", "error"):
        values = getattr(estimate, name)
        _require(
            values.shape == shape and bool(np.isfinite(values).all()),
            f"{name} has a finite number for each setting",
            f"{values}",
        )
    _require(bool((estimate.error >= 0).all()), "an error is not negative", f"{estimate.error}")
    _require(
        abs(estimate.gains[candidates.default]) < 1e-9,
        "the default setting gains nothing over itself",
        f"{estimate.gains[candidates.default]}",
    )
    _require(
        not estimate.reason or not estimate.gains.any(),
        "a source that says nothing expects no gain",
        f"{estimate.gains} with the reason '{estimate.reason}'",
    )


def _require_equal(one: Estimate, other: Estimate, rule: str) -> None:
    same = np.allclose(one.gains, other.gains, atol=1e-9) and one.reason == other.reason
    _require(same, rule, f"{one.gains} and {other.gains}")


def _require(holds: bool, rule: str, observed: str) -> None:
    if not holds:
        raise ConformanceError(f"{rule}: found {observed}")


def _cases() -> list[Case]:
    rng = np.random.default_rng(0)
    settings = _candidates().settings
    cases = []
    for number, machine in enumerate(_MACHINES):
        objective = rng.uniform(0.5, 0.9, len(settings))
        table = settings_frame(settings).assign(objective=objective)
        levels = np.sort(rng.normal(-40, 3 + number, (16, 32)), axis=1).astype(np.float32)
        others = [f"{name} section 00" for name in _MACHINES if name != machine]
        cases.append(
            Case(
                SectionId(machine, "00"),
                machine,
                None,
                _evidence(_clips(rng, [""])),
                _evidence(_clips(rng, others)),
                Profile(levels),
                real=Curve(settings, table, np.tile(objective[:, None], 3), 0),
            )
        )
    return cases


def _candidates() -> Candidates:
    return Candidates([{"r": value} for value in _VALUES], len(_VALUES), {"r": 1.0})


def _evidence(clips: ScoredClips | None) -> Evidence:
    reason = "" if clips else "nothing was synthesised"
    return Evidence(_candidates(), {}, reason, synthetic=clips, train=clips)


def _clips(rng: np.random.Generator, donors: Sequence[str], each: int = 6) -> ScoredClips:
    labels = np.tile(np.repeat([0, 1], each), len(donors))
    scores = rng.standard_normal((len(_VALUES), len(labels))) + labels * rng.uniform(0, 2)
    strengths = np.where(labels == 1, rng.integers(1, 4, len(labels)) / 3, np.nan)
    names = np.repeat(list(donors), 2 * each).tolist()
    return ScoredClips(
        scores,
        labels,
        [None] * len(labels),
        np.arange(len(labels)),
        strengths,
        names,
        np.where(labels == 1, np.resize(["impacts", "leak"], len(labels)), "").tolist(),
    )
