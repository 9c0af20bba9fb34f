"""Calibration: threshold and tail probability from held-out scores of normal training clips.

Both follow from the same scores, so that another false-alarm rate needs no new fit of the detector.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.evaluation.gamma import Gamma
from fsasd.evaluation.oddness import odd_scores
from fsasd.evaluation.thresholds import fitted_gamma, gamma_threshold

FALSE_ALARM_RATE = 0.1
"""DCASE's: the baseline's threshold is the 90th percentile of a gamma distribution."""

MIN_FITTED = 50
"""Normal clips from which on a tail probability comes from a fitted distribution."""

_NAMED = 3


@dataclass(frozen=True, eq=False)
class Calibration:
    """The threshold of a fitted detector, and the held-out scores that it follows from.

    Attributes:
        held_out: File name to held-out anomaly score (see ``held_out_scores``) of each normal
            training clip.
        odd: Names of those that are odd (see ``odd_scores``); the rest sets threshold and tail
            probability.
        false_alarm_rate: Share of normal clips to be called anomalous, in (0, 1).
        threshold: A clip scored above it is called anomalous.
        gamma: Distribution that tail probabilities come from; ``None`` with fewer than
            ``MIN_FITTED`` normal clips, or where none fits.

    >>> scores = {f"{i}.wav": float(i) for i in range(9)}
    >>> calibration = Calibration.of(scores, ["source"] * 9, [None] * 9)
    >>> calibration.p_values([-1.0, 4.5, 100.0])
    array([1. , 0.5, 0.1])
    >>> calibration.at(0.05).threshold > calibration.threshold
    True
    """

    held_out: Mapping[str, float]
    odd: tuple[str, ...]
    false_alarm_rate: float
    threshold: float
    gamma: Gamma | None = None

    @classmethod
    def of(
        cls,
        held_out: Mapping[str, float],
        domains: Sequence[str],
        states: Sequence[Hashable],
        false_alarm_rate: float = FALSE_ALARM_RATE,
    ) -> Self:
        """Determine the odd clips, and the threshold without them.

        Args:
            held_out: File name to held-out anomaly score, n at least 2.
            domains: Of these clips, n.
            states: Their operating states, n.
            false_alarm_rate: Share of normal clips to be called anomalous.

        Raises:
            ValueError: Fewer than 2 scores, one that is not finite, or a rate out of (0, 1).
        """
        odd = odd_scores(list(held_out.values()), domains, states)
        names = tuple(name for name, is_odd in zip(held_out, odd, strict=True) if is_odd)
        calibration = cls(held_out, names, FALSE_ALARM_RATE, math.nan)
        normal = calibration.normal
        gamma = fitted_gamma(normal) if len(normal) >= MIN_FITTED else None
        return replace(calibration, gamma=gamma).at(false_alarm_rate)

    def at(self, false_alarm_rate: float) -> Self:
        """Return the same with the threshold of another false-alarm rate.

        Raises:
            ValueError: The rate is out of (0, 1).
        """
        require_rate(false_alarm_rate)
        # 1 - 0.1 is 0.9 exactly, the quantile of the official threshold.
        threshold = gamma_threshold(self.normal, 1 - false_alarm_rate)
        return replace(self, false_alarm_rate=float(false_alarm_rate), threshold=threshold)

    @property
    def normal(self) -> NDArray[np.float64]:
        """(n,) held-out scores of the clips that are not odd."""
        odd = set(self.odd)
        return np.array([score for name, score in self.held_out.items() if name not in odd])

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Tail probability of scores: how likely a normal clip scores as high or higher.

        With ``MIN_FITTED`` normal clips and more it is that of the gamma distribution which the
        threshold comes from, so that clips below the false-alarm rate are those called anomalous.
        With fewer, or where no gamma distribution fits, it is the percentile (1 + m) / (1 + n)
        for m of n normal clips that score as high: at least 1 / (1 + n), since so few clips cannot
        establish how rare a score is.

        Args:
            scores: (m,) anomaly scores.

        Returns:
            (m,) in (0, 1], falling with the score; uniform for normal clips.

        Raises:
            ValueError: A score is not finite.
        """
        scores = np.asarray(scores, dtype=float)
        if not np.isfinite(scores).all():
            raise ValueError(
                f"scores: expected finite numbers, found {scores[~np.isfinite(scores)]}"
            )
        if self.gamma is not None:
            # A gamma distribution's tail soon has no float64 left.
            return np.maximum(self.gamma.tail(scores), np.finfo(float).tiny)
        normal = np.sort(self.normal)
        as_high = len(normal) - np.searchsorted(normal, scores, side="left")
        return (1 + as_high) / (1 + len(normal))

    def odd_clips(self) -> str:
        """Return which training clips are odd, in one line; empty if none is.

        >>> Calibration({"a": 1.0, "b": 9e9, "c": 2.0}, ("b",), 0.1, 2.0).odd_clips()
        '1 of 3 normal training clips is odd: b (held-out score 9e+09, median of the others 1.5)'
        """
        if not self.odd:
            return ""
        many = len(self.odd) > 1
        named = ", ".join(
            f"{name} ({'' if i else 'held-out score '}{self.held_out[name]:.4g}"
            f"{'' if i else f', median of the others {np.median(self.normal):.4g}'})"
            for i, name in enumerate(self.odd[:_NAMED])
        )
        more = f" and {len(self.odd) - _NAMED} more" if len(self.odd) > _NAMED else ""
        return (
            f"{len(self.odd)} of {len(self.held_out)} normal training clips "
            f"{'are' if many else 'is'} odd: {named}{more}"
        )

    def described(self) -> dict[str, Any]:
        """Return what ``from_described`` reads: JSON."""
        return {
            "threshold": self.threshold,
            "false_alarm_rate": self.false_alarm_rate,
            "held_out": dict(self.held_out),
            "odd": list(self.odd),
            "gamma": None if self.gamma is None else self.gamma._asdict(),
        }

    @classmethod
    def from_described(cls, about: Mapping[str, Any]) -> Self:
        """Read what ``described`` returned.

        Raises:
            ValueError: Says which value is missing, or not what was expected.
        """
        rate, threshold = _number(about, "false_alarm_rate"), _number(about, "threshold")
        require_rate(rate)
        held_out = about.get("held_out")
        if not isinstance(held_out, dict) or len(held_out) < 2:
            raise ValueError(f"expected held-out scores of 2 clips or more, found {held_out!r:.60}")
        scores = {name: _number(held_out, name) for name in held_out}
        odd = about.get("odd")
        if not isinstance(odd, list) or not set(map(str, odd)) <= set(scores):
            raise ValueError(f"expected some of the held-out clips as 'odd', found {odd!r:.60}")
        if len(scores) - len(odd) < 2:
            raise ValueError(
                f"expected 2 clips or more that are not odd, found {len(odd)} odd of {len(scores)}"
            )
        return cls(scores, tuple(map(str, odd)), rate, threshold, _gamma(about.get("gamma")))


def require_rate(false_alarm_rate: float) -> None:
    """Raise if this is no false-alarm rate.

    Raises:
        ValueError: It is not in (0, 1).
    """
    number = isinstance(false_alarm_rate, (int, float)) and not isinstance(false_alarm_rate, bool)
    if not number or not 0 < false_alarm_rate < 1:
        raise ValueError(
            "false-alarm rate: expected the share of normal clips to be called anomalous, in "
            f"(0, 1), found {false_alarm_rate!r}"
        )


def _gamma(about: Any) -> Gamma | None:
    if about is None:
        return None
    if not isinstance(about, dict) or set(about) != set(Gamma._fields):
        raise ValueError(
            f"expected {', '.join(Gamma._fields)} or null as 'gamma', found {about!r:.60}"
        )
    gamma = Gamma(**{name: _number(about, name) for name in Gamma._fields})
    if gamma.shape <= 0 or gamma.scale <= 0:
        raise ValueError(f"expected a shape and a scale above 0 as 'gamma', found {about!r:.90}")
    return gamma


def _number(about: Mapping[str, Any], name: str) -> float:
    value: Any = about.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A whole number of JSON may be beyond all floats.
    if not is_number or not abs(value) <= sys.float_info.max:
        raise ValueError(f"expected a finite number as {name!r}, found {value!r:.60}")
    return float(value)
