"""A setting that is chosen anew on a machine's first faults, with caution where they are few.

What is known before: the setting in use was chosen as the best, so that no other is expected to
gain over it; how much others may gain or lose all the same is ``SPREAD``. What a fault says of a
setting differs from what the next one says by ``BETWEEN``, on real machines 0.15 to 0.3
(``python -m benchmarks.first_faults``); the more faults there are, the more their own differences
count. Both are combined as normal distributions: the gain that was observed is shrunk the more,
the fewer faults there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.evaluation.metrics import known_domains
from fsasd.evaluation.resampling import resample, resampled_areas
from fsasd.selection.combination import Combination
from fsasd.selection.selector import OBJECTIVES, best_of
from fsasd.selection.settings import Candidates

SPREAD = 0.1
"""Standard deviation, before any fault, of a setting's gain over the one in use."""

BETWEEN = 0.25
"""Standard deviation of a setting's gain between faults of one machine, before any is known."""

WORTH = 3.0
"""Faults that ``BETWEEN`` counts as much as."""

RESAMPLES = 200


@dataclass(frozen=True, eq=False)
class FaultChoice:
    """What settings are worth on a machine's first faults, and the one that is chosen.

    Attributes:
        candidates: The settings; their default is the one in use.
        faults: How many there are.
        objectives: (settings,) on these faults and held-out normal clips, without caution.
        gains: (settings,) expected gains over the setting in use, on other faults.
        error: (settings,) standard error of these.
        row: Of the setting that is chosen: the one in use where none is expected to gain.
    """

    candidates: Candidates
    faults: int
    objectives: NDArray[np.float64]
    gains: NDArray[np.float64]
    error: NDArray[np.float64]
    row: int

    @property
    def setting(self) -> dict[str, Any]:
        """The setting that is chosen."""
        return self.candidates.settings[self.row]

    @property
    def best(self) -> int:
        """Row of the highest objective on these faults."""
        return best_of(self.objectives[: self.candidates.n_grid], self.candidates)

    def interval(self, row: int) -> tuple[float, float]:
        """Return the ends of the 95 % interval of an expected gain."""
        reach = 1.96 * self.error[row]
        return float(self.gains[row] - reach), float(self.gains[row] + reach)


def choose_on_faults(
    candidates: Candidates,
    normal: NDArray[np.float64],
    faults: NDArray[np.float64],
    objective: str = "mean",
    domains: Iterable[str | None] = (),
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> FaultChoice:
    """Choose a setting on held-out normal clips and a machine's first faults.

    Args:
        candidates: The settings; their default is the one in use.
        normal: (settings, n) scores of normal clips, held out.
        faults: (settings, k) scores of anomalous clips, by the same fits; each counts as a fault.
        objective: As of ``Selector``.
        domains: (n,) of the normal clips, as far as they are known; none by default.
        groups: (n,) equal for normal clips of one recording.
        seed: Of the bootstrap over normal clips.

    >>> candidates = Candidates([{"r": 0.5}, {"r": 1.0}], 2, {"r": 1.0})
    >>> normal = np.tile(np.arange(20.0), (2, 1))
    >>> found_late = np.array([[30.0] * 9, [17.0] * 9])
    >>> [choose_on_faults(candidates, normal, found_late[:, :k]).setting["r"] for k in (1, 9)]
    [1.0, 0.5]
    """
    n, k = normal.shape[1], faults.shape[1]
    labels = np.repeat([0, 1], [n, k])
    scores = np.hstack([normal, faults])
    each = np.hstack([np.ones((k, n)), np.eye(k)])
    drawn = resample(np.zeros(n), n=RESAMPLES, seed=seed, groups=groups)
    counts = np.vstack([each, np.hstack([drawn, np.ones((RESAMPLES, k))])])
    # Anomalies count in the AUC of both domains, whichever theirs is.
    known = known_domains(domains)
    known = None if known is None else np.append(known, ["source"] * k)
    objectives = OBJECTIVES[objective](resampled_areas(labels, known, scores, counts))
    over = objectives - objectives[candidates.default]
    of_faults, of_resamples = over[:, :k], over[:, k:]
    observed = of_faults.mean(axis=1)
    squares = ((of_faults - observed[:, None]) ** 2).sum(axis=1)
    between = (WORTH * BETWEEN**2 + squares) / (WORTH + k - 1)
    noise = between / k + of_resamples.var(axis=1)
    trusted = SPREAD**2 / (SPREAD**2 + noise)
    gains, error = trusted * observed, np.sqrt(trusted * noise)
    error[candidates.default] = 0.0
    cautious = gains - Combination().caution * error
    row = best_of(cautious[: candidates.n_grid], candidates)
    if cautious[row] <= 0:
        row = candidates.default
    return FaultChoice(candidates, k, objectives[:, :k].mean(axis=1), gains, error, row)
