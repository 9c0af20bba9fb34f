"""What the machine's own normal sounds say: unsteady ones may hide faults that come and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsasd.selection.sources.base import Case, Estimate, Objectives, Source

FEWEST = 4
"""Types of reference machines: a line through fewer says nothing about another."""


class Normals(Source):
    """A line through the reference machines' gains over how unsteady their normal sounds are.

    It needs no anomaly of the machine, and no synthetic clip.

    Args:
        ridge: Variance of ``Profile.unsteadiness`` (dB squared) that is added to that of the
            references: the larger, the flatter the line.
    """

    def __init__(self, ridge: float = 1.0) -> None:
        self.ridge = ridge

    def estimate(self, case: Case, references: Sequence[Case], selector: Objectives) -> Estimate:
        """Return where the line is for this section; the error is that of the line there."""
        types = [one.type for one in references]
        if len(set(types)) < FEWEST:
            return Estimate.nothing(
                case,
                f"at least {FEWEST} types of reference machines with labelled test clips are "
                f"needed, there are {len(set(types))}",
            )
        weights = np.array([1 / types.count(kind) for kind in types])
        weights /= weights.sum()
        unsteady = np.array([one.likeness.unsteadiness for one in references])
        gains = np.stack([one.gains for one in references])
        centre, mean = weights @ unsteady, weights @ gains
        offset = unsteady - centre
        slope = (weights * offset) @ (gains - mean) / (weights @ offset**2 + self.ridge)
        place = case.likeness.unsteadiness - centre
        rest = gains - mean - offset[:, None] * slope
        spread = np.sqrt(weights @ rest**2)
        leverage = 1 / len(set(types)) + place**2 / (
            len(references) * (weights @ offset**2 + self.ridge)
        )
        return Estimate(mean + place * slope, spread * np.sqrt(leverage))
