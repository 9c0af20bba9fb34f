"""Outliers among normal training clips ("odd clips"), by their held-out scores.

A silent, clipped or foreign recording among the training clips widens the distribution that
thresholds come from, until no anomaly lies above it. A clip is compared with clips of the same
domain and operating state, since a few target clips among a thousand source clips score high and
are no less normal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.evaluation.thresholds import gamma_threshold

MIN_STATE = 12
"""Clips from which on a state is a group of itself. At most one in so many can be odd."""

MIN_GROUP = 5
"""Clips below which a group is not tested: the gap between four scores is no evidence."""

LEVEL = 0.05
"""Probability that any clips of a section lie so far apart on either side, if none is odd."""

LEVEL_SMALL = 0.001
"""The same for a group of fewer than ``MIN_STATE`` clips, whose states may be too few to show."""

LEVEL_RAISING = 0.2
"""The same for clips that raise the threshold (``RAISED``): a threshold that is too
high silences alarms."""

RAISED = 1.4
"""Factor on a threshold's distance from the median that a few clips are not to have."""

WIDER = 1.1
"""Factor of the spread of all scores below which it does not matter whether a clip is odd."""


def odd_scores(
    scores: ArrayLike, domains: Sequence[str], states: Sequence[Hashable]
) -> NDArray[np.bool_]:
    """Mark the clips whose held-out scores lie apart from those of their group.

    Clips of one domain and state are a group where there are ``MIN_STATE`` of them; the rest of a
    domain is another, which is not tested if it has fewer than ``MIN_GROUP`` clips.
    In each group the k highest scores (k up to a twelfth of the group) lie apart if the gap below
    them is too wide for an exponential tail, whose normalised spacings i (x_i - x_(i+1)) of the
    i-th and the next highest score are independent and equally distributed (Rényi, "On the theory
    of order statistics", 1953): by the F test of the k-th spacing against those from there to the
    median. Tails of normal and gamma distributions are lighter. The lowest scores are tested alike.
    Clips that lie apart are odd if

    * they do at ``LEVEL`` and widen the spread of all scores (``WIDER``): one clip of a thousand
      that does no harm stays, or
    * they do so above at ``LEVEL_RAISING``, and the official threshold without them, which they
      exceed, is nearer to the median by more than a factor of ``RAISED``.

    Args:
        scores: Held-out anomaly scores of normal clips, shape (n,).
        domains: ``source`` or ``target`` of each.
        states: Operating state of each, equal where it is the same.

    Returns:
        (n,) True where a clip is odd.

    Raises:
        ValueError: Shapes differ, or a score is not finite.

    >>> scores = np.append(np.random.default_rng(0).normal(size=25), 1e6)
    >>> odd_scores(scores, ["source"] * 26, ["fast"] * 26).nonzero()[0].tolist()
    [25]
    """
    scores = np.asarray(scores, dtype=float)
    if not scores.shape == (len(domains),) == (len(states),):
        raise ValueError(
            f"expected a score, a domain and a state for each clip, found {scores.shape}, "
            f"{len(domains)} and {len(states)}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite numbers, found {scores[~np.isfinite(scores)]}")
    groups = _groups(domains, states)
    gaps = sum(len(group) // MIN_STATE for group in groups)
    odd = np.zeros(len(scores), dtype=bool)
    # A fit is worthless while scores are in it that are orders of magnitude off.
    for level, small, signs, matters in (
        (LEVEL, LEVEL_SMALL, (1, -1), _widen),
        (LEVEL_RAISING, 0.0, (1,), _raise),
    ):
        changed = True
        # Scores far off in one group hide how much the odd clips of another widen the spread.
        while changed:
            changed = False
            for group in groups:
                chance = small if len(group) < MIN_STATE else level / gaps
                for sign in signs:
                    new = _apart(sign, scores, group, odd, chance, matters)
                    odd[new] = True
                    changed |= len(new) > 0
    return odd


def _groups(domains: Sequence[str], states: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    kinds = list(zip(domains, states, strict=True))
    size = Counter(kinds)
    members: dict[tuple, list[int]] = {}
    for i, (domain, state) in enumerate(kinds):
        name = (domain, state) if size[domain, state] >= MIN_STATE else (domain,)
        members.setdefault(name, []).append(i)
    return [np.array(group) for group in members.values() if len(group) >= MIN_GROUP]


def _apart(
    sign: int,
    scores: NDArray[np.float64],
    group: NDArray[np.intp],
    odd: NDArray[np.bool_],
    level: float,
    matters: Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], bool],
) -> NDArray[np.intp]:
    """Rows of the odd clips at the upper end of a group; of sign -1, at the lower."""
    rest = group[~odd[group]]
    most = max(len(group) // MIN_STATE, 1) - len(group) + len(rest)
    falling = rest[np.argsort(-sign * scores[rest], kind="stable")]
    reference = len(rest) - 1 if len(group) < MIN_STATE else len(rest) // 2
    new = falling[:0]
    kept = ~odd
    for k, chance in _chances(sign * scores[falling], most, reference):
        without = ~odd
        without[falling[:k]] = False
        more = falling[len(new) : k]
        if chance < level and matters(scores[kept], scores[without], scores[more]):
            new, kept = falling[:k], without
    return new


def _chances(
    falling: NDArray[np.float64], most: int, reference: int
) -> Iterator[tuple[int, float]]:
    """Probability of as wide a gap below the k highest scores, for each k up to ``most``."""
    for k in range(1, most + 1):
        count = reference - k
        if count < 3:
            return
        # The mean of the spacings k+1 to `reference`, each times its rank.
        above = falling[k:reference].sum() - count * falling[reference]
        spacing = (above + k * (falling[k] - falling[reference])) / count
        if spacing > 0:
            ratio = k * (falling[k - 1] - falling[k]) / spacing
            yield k, (1 + ratio / count) ** -count


def _widen(scores: NDArray[np.float64], rest: NDArray[np.float64], _: NDArray[np.float64]) -> bool:
    return bool(scores.std() > WIDER * rest.std())


def _raise(
    scores: NDArray[np.float64], rest: NDArray[np.float64], apart: NDArray[np.float64]
) -> bool:
    before, after = (gamma_threshold(some, warn=False) for some in (scores, rest))
    height, lower = before - np.median(scores), after - np.median(rest)
    return bool(apart.min() > after and height > RAISED * lower)
