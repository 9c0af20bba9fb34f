"""What is known of faults before any sound is heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fsasd.selection.sources.base import Case, Estimate, Objectives, Source

KINDS = ("any", "transient", "stationary")


class Prior(Source):
    """The expectation that one value of a parameter is best, by the kind of faults.

    The gain falls with the square of the distance from that value.

    Args:
        best: Parameter to the best value for each kind of faults (``any``, ``transient``,
            ``stationary``). For the time weight r of TWFR-GMM: faults that come and go are heard in
            few, loud frames (r near 0), those that stay in all (r near 1).
        faults: Kind of faults that are expected, or machine to kind; ``any`` for others.
        width: Distance from the best value at which the gain has fallen by ``loss``.
        loss: Of the objective, in fractions.

    Raises:
        ValueError: A kind is not known, or has no best value.
    """

    alone = False

    def __init__(
        self,
        best: Mapping[str, Mapping[str, float]] | None = None,
        faults: str | Mapping[str, str] = "any",
        width: float = 0.25,
        loss: float = 0.05,
    ) -> None:
        self.best = {parameter: dict(values) for parameter, values in (best or {}).items()}
        self.faults = faults if isinstance(faults, str) else dict(faults)
        self.width = width
        self.loss = loss
        kinds = {"any", *([faults] if isinstance(faults, str) else faults.values())}
        if unknown := sorted(kinds - {*KINDS}):
            raise ValueError(
                f"prior.faults: expected {', '.join(KINDS)}, found {', '.join(unknown)}"
            )
        for parameter, values in self.best.items():
            if missing := sorted(kinds - {*values}):
                raise ValueError(
                    f"prior.best.{parameter}: expected a value for {', '.join(missing)} faults, "
                    f"found {values}"
                )

    def estimate(self, case: Case, references: Sequence[Case], selector: Objectives) -> Estimate:
        """Return the gains by the distance from the best value; they have no error."""
        candidates = case.synthetic.candidates
        known = [parameter for parameter in self.best if parameter in candidates.params]
        if not known:
            return Estimate.nothing(case, "nothing is known of these settings beforehand")
        by_machine: Any = self.faults
        kind = by_machine
        if not isinstance(by_machine, str):
            kind = by_machine.get(case.section.machine, "any")
        losses = np.zeros(len(candidates.settings))
        for parameter in known:
            default = candidates.params[parameter]
            values = np.array([one.get(parameter, default) for one in candidates.settings], float)
            losses += self.loss * ((values - self.best[parameter][kind]) / self.width) ** 2
        gains = losses[candidates.default] - losses
        return Estimate(gains, np.zeros(len(gains)))
