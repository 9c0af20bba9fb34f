"""What settings gain on the section's synthetic clips: the paper's evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsasd.selection.sources.base import Case, Estimate, Objectives, Source


class Synthetic(Source):
    """The curve on synthetic clips (METHOD, step 5); nothing where the gap to real ones is wide."""

    def estimate(
        self, case: Case, references: Sequence[Case], selector: Objectives, *, error: bool = True
    ) -> Estimate:
        """Return the gains on synthetic clips, and their bootstrap error."""
        evidence = case.synthetic
        if evidence.synthetic is None:
            return Estimate.nothing(case, evidence.abstain_reason)
        if case.unlike:
            return Estimate.nothing(case, case.unlike)
        clips, default = evidence.synthetic, evidence.candidates.default
        objectives = selector.objectives(clips, groups=clips.groups, resampled=error)
        gains = objectives - objectives[default]
        spread = gains[:, 1:].std(axis=1) if error else np.zeros(len(gains))
        return Estimate(gains[:, 0], spread)
