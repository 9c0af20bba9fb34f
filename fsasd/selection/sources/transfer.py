"""What settings gain on anomalies that were transferred from reference machines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsasd.selection.sources.base import Case, Estimate, Objectives, Source, alike


class Transfer(Source):
    """The curve on clips of the section with transferred anomalies (``generation.transfer``).

    Clips count by how alike the machine that they have the anomaly of is, and by how much
    differences between settings show at their strength (``rungs.rung_weights``).

    Args:
        scale: dB of distance between normal sounds by which a reference machine's weight falls to
            1/e; ``null``: all alike.
        strengths: Strengths at which anomalies are transferred; 1 is as strong as on their machine.
        clips_per_label: Clips of each label for each section.
    """

    def __init__(
        self,
        scale: float | None = 2.0,
        strengths: Sequence[float] = (0.35, 0.7, 1.4),
        clips_per_label: int = 64,
    ) -> None:
        self.scale = scale
        self.strengths = [*strengths]
        self.clips_per_label = clips_per_label

    def estimate(self, case: Case, references: Sequence[Case], selector: Objectives) -> Estimate:
        """Return the gains on these clips; the error is over resampled reference machines."""
        evidence = case.transfer
        if evidence is None or evidence.synthetic is None:
            reason = "" if evidence is None else evidence.abstain_reason
            return Estimate.nothing(case, reason or "no anomaly could be transferred")
        clips = evidence.synthetic
        by_name = {str(one.section): one for one in references}
        donors = [name for name in dict.fromkeys(clips.donors) if name in by_name]
        if not donors:
            return Estimate.nothing(case, "there is no reference machine to transfer from")
        shares = alike(case, [by_name[name] for name in donors], self.scale or np.inf)
        of_donor = np.array([[name == one for name in clips.donors] for one in donors], dtype=float)
        # A donor's share is divided among its clips of a label, however many they are.
        per_label = np.stack([clips.labels == 0, clips.labels == 1]).astype(float)
        counts = of_donor @ per_label.T
        each = np.divide(shares[:, None], counts, out=np.zeros_like(counts), where=counts > 0)
        weights = ((each @ per_label) * of_donor).sum(axis=0)
        if not (per_label @ weights > 0).all():
            return Estimate.nothing(case, "transferred clips of both labels are needed")
        objectives = selector.objectives(clips, weights=weights, groups=of_donor.argmax(axis=0))
        origins = {name: float(share) for name, share in zip(donors, shares, strict=True)}
        return Estimate.of(objectives, evidence.candidates.default, origins)
