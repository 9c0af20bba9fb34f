"""Drift: whether normal recordings still score as the normal training clips did.

Faults raise scores, too. So only recordings that are called normal are compared, with the training
clips below the threshold: where nothing has changed, both are of one distribution, however many
recordings are anomalous.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fsasd.evaluation.calibration import Calibration

MIN_RECORDINGS = 20
"""Recordings from which on a drift can be established."""

LEVEL = 1e-3
"""Probability of calling drift what is none, once."""


@dataclass(frozen=True)
class Drift:
    """How normal recordings score, compared with the training clips.

    Attributes:
        n_recordings: Recordings that were compared.
        percentile: Of their median score among the training clips' held-out scores, 0.5 where
            nothing has changed.
        p_value: Of a two-sample Kolmogorov-Smirnov test: how likely recordings differ as much by
            chance.
    """

    n_recordings: int
    percentile: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether recordings differ by more than chance."""
        return self.n_recordings >= MIN_RECORDINGS and self.p_value < LEVEL

    def __str__(self) -> str:
        shift = "higher" if self.percentile > 0.5 else "lower"
        how = f"{shift} than" if self.significant else "like"
        return (
            f"{self.n_recordings} recordings called normal score {how} the normal training clips "
            f"(median at percentile {100 * self.percentile:.0f}, p = {self.p_value:.2g})"
        )


def drift(calibration: Calibration, scores: Iterable[float]) -> Drift | None:
    """Compare the scores of recordings with those of the normal training clips.

    Args:
        calibration: Of the detector.
        scores: Of recordings, in any order; those above the threshold are left out.

    Returns:
        ``None`` where no recording, or fewer than 2 training clips, are below the threshold.

    >>> normal = {f"{i}.wav": float(i) for i in range(100)}
    >>> calibration = Calibration.of(normal, ["source"] * 100, [None] * 100)
    >>> drift(calibration, np.linspace(0, 90, 50)).significant
    False
    >>> print(drift(calibration, np.linspace(50, 90, 50)))
    45 recordings called normal score higher than the normal training clips (median at percentile 78, p = 1.1e-09)
    """  # noqa: E501
    below = calibration.normal[calibration.normal <= calibration.threshold]
    scores = np.array([score for score in scores if score <= calibration.threshold], dtype=float)
    if len(below) < 2 or not len(scores):
        return None
    from scipy.stats import ks_2samp

    percentile = (below < np.median(scores)).mean()
    return Drift(len(scores), float(percentile), float(ks_2samp(scores, below).pvalue))


class DriftMonitor:
    """Follows the drift of a model over its last recordings.

    Args:
        calibration: Of the model.
        size: Recordings called normal that are compared at a time.

    >>> normal = {f"{i}.wav": float(i) for i in range(100)}
    >>> monitor = DriftMonitor(Calibration.of(normal, ["source"] * 100, [None] * 100), size=40)
    >>> [str(m) for score in np.linspace(60, 90, 40) if (m := monitor.update(score))][0][:44]
    '20 recordings called normal score higher tha'
    """

    def __init__(self, calibration: Calibration, size: int = 200) -> None:
        self._calibration = calibration
        self._scores: deque[float] = deque(maxlen=size)
        self._since = 0
        self.drifted = False

    def update(self, score: float) -> Drift | None:
        """Add the score of a recording; return a drift that begins or ends with it."""
        if score > self._calibration.threshold:
            return None
        self._scores.append(score)
        self._since += 1
        if self._since < MIN_RECORDINGS:
            return None
        self._since = 0
        now = drift(self._calibration, self._scores)
        if now is None or now.significant == self.drifted:
            return None
        self.drifted = now.significant
        return now

    def overall(self) -> Drift | None:
        """Return the drift of the last recordings; ``None`` where they are too few to tell."""
        few = len(self._scores) < MIN_RECORDINGS
        return None if few else drift(self._calibration, self._scores)
