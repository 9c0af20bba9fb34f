"""What settings gain on the section's synthetic clips: the paper's evidence."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsasd.selection.evidence import ScoredClips
from fsasd.selection.mixture import fault_shares, faults_of, mixture_weights, weights_of_fault
from fsasd.selection.sources.base import Case, Estimate, Objectives, Source

NAMED = 3
"""Kinds of faults that are named, those of the largest shares."""


class Synthetic(Source):
    """The curve on synthetic clips (METHOD, step 5); nothing where the gap to real ones is wide.

    Args:
        fit_faults: Weight kinds of faults so that their mixture, on reference machines with
            synthetic clips, has the curves of the real anomalies (``mixture.fault_shares``).
            Machines whose anomalies the generator was trained on do not count.
    """

    def __init__(self, fit_faults: bool = True) -> None:
        self.fit_faults = fit_faults

    def estimate(self, case: Case, references: Sequence[Case], selector: Objectives) -> Estimate:
        """Return the gains on synthetic clips, and their bootstrap error."""
        evidence = case.synthetic
        if evidence.synthetic is None:
            return Estimate.nothing(case, evidence.abstain_reason)
        if case.unlike:
            return Estimate.nothing(case, case.unlike)
        clips = evidence.synthetic
        shares = _shares(clips, references, selector) if self.fit_faults else {}
        objectives = _objectives(clips, tuple(shares.items()), selector)
        largest = [f"{name} {share:.2f}" for name, share in list(shares.items())[:NAMED]]
        details = f"mostly {', '.join(largest)}" if shares else ""
        return Estimate.of(objectives, evidence.candidates.default, details=details)


def _shares(
    clips: ScoredClips, references: Sequence[Case], selector: Objectives
) -> dict[str, float]:
    """Shares of the clips' faults, the largest first; empty where nothing can be fitted."""
    kinds = tuple(sorted({fault for clip in clips.faults for fault in faults_of(clip)}))
    if len(kinds) < 2:
        return {}
    curves, real, types = [], [], []
    for one in references:
        theirs = one.synthetic.synthetic
        if theirs is None or one.unlike or not one.strict or one.real is None:
            continue
        if set(kinds) <= {fault for clip in theirs.faults for fault in faults_of(clip)}:
            curves.append(_curves(theirs, kinds, selector))
            real.append(one.gains)
            types.append(one.type)
    if not curves:
        return {}
    shares = fault_shares(curves, real, types).tolist()
    return dict(sorted(zip(kinds, shares, strict=True), key=lambda item: -item[1]))


# A section is asked once for each set of references, and mostly has the same shares.
@functools.lru_cache(maxsize=256)
def _objectives(
    clips: ScoredClips, shares: tuple[tuple[str, float], ...], selector: Objectives
) -> NDArray[np.float64]:
    weights = mixture_weights(dict(shares), clips.faults) if shares else None
    return selector.objectives(clips, groups=clips.groups, weights=weights)


# A reference machine is asked for each section that something is chosen for.
@functools.lru_cache(maxsize=256)
def _curves(
    clips: ScoredClips, kinds: tuple[str, ...], selector: Objectives
) -> NDArray[np.float64]:
    """(faults, settings) objective on the anomalies of each fault."""
    normal = clips.labels == 0
    weights = [np.where(normal, 1.0, weights_of_fault(kind, clips.faults)) for kind in kinds]
    return np.stack(
        [selector.objectives(clips, weights=each, resampled=False)[:, 0] for each in weights]
    )
