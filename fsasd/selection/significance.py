"""Is a gain more than chance, and are synthetic clips like real ones? When not to choose.

All settings score the same clips, so that a resample of the clips gives the curve anew and
differences along it are paired. The critical value of a gain is that of the *largest* of all gains,
in standard errors (Hansen, "A test for superior predictive ability", Journal of Business and
Economic Statistics 23(4), 2005). The interval of the one difference would not do, since it is the
largest of many: with 56 settings that are equally good it lets another setting win in 18 % of
cases, where this does in 4 % (``python -m benchmarks.abstention``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.generation.gap import Gap
from fsasd.selection.settings import Setting, title

MIN_CLIPS = 5
"""Of each label; resamples of fewer clips are little evidence about other clips."""

WIDE_GAP = 0.75
"""AUC of synthetic against real normal clips: surely beyond it, they are other sounds."""

MIN_CLIPS_FOR_GAP = 13
"""Of real and of synthetic normal clips: the fewest that can establish a gap beyond ``WIDE_GAP``.

Where the AUC is 0.75 and one kind is all alike, each clip of the other lies on the far side with a
probability of 0.75; so n clips all do with ``0.75**n``, which is below the 2.5 % that an interval
leaves at that end from 13 on. (Five could all do where the AUC is 0.5: in 3.1 %.) The bootstrap
does not see that: of clips that all lie on one side every resample does, too.
"""

NEGLIGIBLE = 1e-9
"""AUCs of n clips move in steps of 1 / n^2: values that differ by less are equal."""


def n_independent(groups: ArrayLike) -> int:
    """Return how many independent clips there are: clips of one group count once.

    >>> n_independent([0, 0, 1])
    2
    """
    return len(np.unique(np.asarray(groups)))


def critical_value(
    gains: NDArray[np.float64],
    resampled: NDArray[np.float64],
    best: int,
    level: float,
    observations: int,
) -> float:
    """Return the critical value of the largest gain: what chance alone reaches, at a level.

    Gains are compared in their standard errors, since those of settings near the default vary
    little and those of far ones much. Settings that are surely worse do not count: those whose
    loss is more than sqrt(2 log log n) standard errors, n the number of independent clips (Hansen
    2005).

    Args:
        gains: (settings,) objectives minus that of the default setting.
        resampled: (settings, resamples) the same of resampled clips.
        best: Row of the setting whose gain is judged; the value is in its units.
        level: Confidence.
        observations: Independent clips.

    >>> flat = np.zeros((2, 10))
    >>> critical_value(flat[:, 0], flat, 1, 0.95, 20)
    0.0
    """
    excess = resampled - gains[:, None]
    error = excess.std(axis=1)
    varies = error > NEGLIGIBLE
    scale = np.where(varies, error, 1.0)
    plausible = gains >= -scale * np.sqrt(2 * np.log(np.log(max(observations, 3))))
    largest = np.max((excess / scale[:, None])[varies & plausible], axis=0, initial=0.0)
    return float(np.quantile(largest, level) * error[best])


def insignificant_gain(
    best: Setting,
    default: Setting,
    independent: tuple[int, int],
    gain: float,
    critical: float,
    n_tried: int,
) -> str:
    """Return why a gain is no reason to leave the default setting; empty if it is one.

    Args:
        best: The setting of highest objective.
        default: The detector's default setting.
        independent: Independent normal and anomalous clips.
        gain: Objective of ``best`` minus that of ``default``.
        critical: The gain's critical value.
        n_tried: Settings that were tried.
    """
    if best == default:
        return ""
    if min(independent) < MIN_CLIPS:
        return (
            f"too few independent clips to test a gain: {independent[0]} normal and "
            f"{independent[1]} anomalous, at least {MIN_CLIPS} of each are needed"
        )
    if gain <= critical + NEGLIGIBLE:
        return (
            f"{title(best)} gains {100 * gain:.1f} points over {title(default)} on synthetic "
            f"clips, no more than the critical value of {100 * critical:.1f} points, the largest "
            f"gain of {n_tried} settings by chance"
        )
    return ""


def unlike_real_clips(gap: Gap | None, independent: tuple[int, int], limit: float) -> str:
    """Return why synthetic clips are not to be chosen on, being unlike real ones; empty if not so.

    Args:
        gap: Between synthetic and real normal clips; ``None`` where it could not be measured.
        independent: Independent real and synthetic normal clips that it was measured on.
        limit: AUC beyond which, or below 1 minus which, nothing is chosen.
    """
    if min(independent) < MIN_CLIPS_FOR_GAP:
        return (
            "too few independent normal clips to measure how far synthetic ones are from real "
            f"ones: {independent[0]} real and {independent[1]} synthetic, at least "
            f"{MIN_CLIPS_FOR_GAP} of each are needed"
        )
    if gap is None or not gap.exceeds(limit):
        return ""
    return (
        f"synthetic normal clips alone are distinguished from real ones: {gap}, surely beyond "
        f"{limit:.2f} or below {1 - limit:.2f}, so that they would choose for other sounds than "
        "the machine's"
    )
