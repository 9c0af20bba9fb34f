"""Combine what sources expect of every setting, with weights learnt on reference machines."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import nnls


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A reference machine that was left out: what the others expected of it, and what was true.

    Attributes:
        type: Of the machine; those of one type count as one.
        gains: Source to (settings,) expected gains.
        real: (settings,) gains on its real anomalies.
        untrusted: Sources that knew its anomalies, so that no weight is learnt from it for them.
    """

    type: Hashable
    gains: Mapping[str, NDArray[np.float64]]
    real: NDArray[np.float64]
    untrusted: frozenset[str] = frozenset()


class Combination:
    """A weighted sum of the sources' gains, minus a share of its error.

    Args:
        weights: Source to its weight before any reference machine is seen; 1 for others.
        caution: Errors that are subtracted from the expected gain of each setting: of settings
            that are expected to be alike, the one that is known better is chosen.
        trust: Reference machines that ``weights`` count as much as, when weights are learnt;
            ``null`` learns none.
        sure: Choose only what surely gains (the whole interval of the expected gain is above 0),
            where no source knows of the settings beforehand (``Source.alone``).
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        caution: float = 0.5,
        trust: float | None = 20.0,
        sure: bool = False,
    ) -> None:
        self.weights = dict(weights or {})
        self.caution = caution
        self.trust = trust
        self.sure = sure

    def described(self) -> dict[str, Any]:
        """Return what the combination depends on: plain values (JSON)."""
        return dict(vars(self))

    def learn(self, left_out: Sequence[LeftOut], sources: Sequence[str]) -> dict[str, float]:
        """Learn the weights by least squares; none is negative.

        Each machine pulls them to where the weighted sum is nearest its real gains, and ``trust``
        holds them at ``weights``.

        Args:
            left_out: Reference machines; none for ``weights`` as they are.
            sources: Their names, in the order in which they are returned.

        >>> gains = np.array([0.0, 0.1, -0.2])
        >>> three = [LeftOut(kind, {"good": gains, "bad": -gains}, gains) for kind in "abc"]
        >>> learnt = Combination(trust=1.0).learn(three, ["good", "bad"])
        >>> learnt["bad"] < 1 < learnt["good"]
        True
        """
        prior = np.array([self.weights.get(name, 1.0) for name in sources])
        if self.trust is None or not left_out:
            return dict(zip(sources, prior.tolist(), strict=True))
        types = [one.type for one in left_out]
        expected = np.stack([[one.gains[name] for name in sources] for one in left_out])
        size = np.sqrt(np.mean(expected**2, axis=(0, 2)))
        rows, values = [np.diag(np.sqrt(self.trust) * size)], [np.sqrt(self.trust) * size * prior]
        for one, gains in zip(left_out, expected, strict=True):
            share = 1 / np.sqrt(types.count(one.type) * gains.shape[1])
            held = np.array([name in one.untrusted for name in sources])
            rows.append(share * np.where(held[:, None], 0.0, gains).T)
            values.append(share * (one.real - prior[held] @ gains[held]))
        weights, _ = nnls(np.concatenate(rows), np.concatenate(values))
        # A source that said nothing of any machine has nothing to be learnt of it.
        weights = np.where(size > 0, weights, prior)
        return dict(zip(sources, weights.tolist(), strict=True))

    def combine(
        self,
        weights: Mapping[str, float],
        gains: Mapping[str, NDArray[np.float64]],
        errors: Mapping[str, NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (settings,) expected gains, and their error."""
        total = sum(weights[name] * gains[name] for name in weights)
        error = np.sqrt(sum((weights[name] * errors[name]) ** 2 for name in weights))
        return np.asarray(total), np.asarray(error)


FEWEST_TYPES = 4
"""Of reference machines that were left out: an interval from fewer would say nothing."""


def predicted_interval(
    expected: float,
    misses: Sequence[float],
    types: Sequence[Hashable],
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Correct an expected gain by how far such expectations were off; return it with an interval.

    The largest of many expected gains is too large on average: what it was too large by on
    reference machines is subtracted.

    Args:
        expected: Gain of the chosen setting, as combined.
        misses: Of reference machines that were left out, what the setting that was chosen for them
            gained, minus what was expected.
        types: Of these machines; machines of one type are one observation.
        level: Of the interval, a prediction interval of Student's t.

    Returns:
        Corrected gain, lower and upper end; NaN for all from fewer than ``FEWEST_TYPES``.

    >>> gain, low, high = predicted_interval(0.05, [-0.02, 0.0, -0.03, -0.03], "abcd")
    >>> round(gain, 3), low < 0 < high
    (0.03, True)
    """
    by_type: dict[Hashable, list[float]] = {}
    for miss, kind in zip(misses, types, strict=True):
        by_type.setdefault(kind, []).append(miss)
    means = np.array([np.mean(one) for one in by_type.values()])
    if len(means) < FEWEST_TYPES:
        return np.nan, np.nan, np.nan
    reach = stats.t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1)
    reach *= np.sqrt(1 + 1 / len(means))
    gain = expected + means.mean()
    return float(gain), float(gain - reach), float(gain + reach)
