"""What settings gain on the section's synthetic clips: the paper's evidence."""

from __future__ import annotations

from collections.abc import Sequence

from fsasd.selection.sources.base import Case, Estimate, Objectives, Source


class Synthetic(Source):
    """The curve on synthetic clips (METHOD, step 5); nothing where the gap to real ones is wide."""

    def estimate(self, case: Case, references: Sequence[Case], selector: Objectives) -> Estimate:
        """Return the gains on synthetic clips, and their bootstrap error."""
        evidence = case.synthetic
        if evidence.synthetic is None:
            return Estimate.nothing(case, evidence.abstain_reason)
        if case.unlike:
            return Estimate.nothing(case, case.unlike)
        clips = evidence.synthetic
        objectives = selector.objectives(clips, groups=clips.groups)
        return Estimate.of(objectives, evidence.candidates.default)
