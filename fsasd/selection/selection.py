"""The setting that was chosen for a section, and what led to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fsasd.generation.gap import Gap


@dataclass(frozen=True)
class Expectation:
    """What the chosen setting is expected to gain over the default on real anomalies.

    Attributes:
        gain: As combined, corrected by how far such expectations were off on reference machines;
            NaN where there are too few of these, or the default is chosen.
        low: Lower end of its prediction interval.
        high: Upper end.
    """

    gain: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the whole interval is above 0.

        >>> Expectation(0.05, 0.01, 0.09).is_sure, Expectation(0.05, np.nan, np.nan).is_sure
        (True, False)
        """
        return self.low > 0


@dataclass(frozen=True)
class Contribution:
    """What a source contributed to the choice of a section's setting.

    Attributes:
        weight: Of the source in the sum; learnt.
        gain: What it expects of the chosen setting, times its weight.
        best: The setting that it alone would choose; empty where it says nothing.
        origins: Reference machine and section to its share in it.
        details: What else there is to say of it.
        reason: Why it says nothing; empty where it does.
    """

    weight: float
    gain: float
    best: str
    origins: Mapping[str, float]
    details: str
    reason: str


@dataclass(frozen=True, eq=False)
class Selection:
    """The curve on synthetic clips and the setting that was chosen on it.

    Attributes:
        curve: ``Curve.table`` with the marks ``default`` (the detector's default setting),
            ``argmax`` (the paper's choice) and ``chosen`` (the setting that is used), and
            ``abstain_reason``. Where nothing could be tried, the one row of the default setting,
            without numbers.
        setting: The setting that is used.
        argmax: The setting of highest objective; the default where nothing could be tried.
        abstain_reason: Why the detector keeps its default setting; empty where it takes
            ``argmax``.
        gain: Objective of ``argmax`` minus that of the default setting.
        critical_value: What the gain must exceed: the largest gain of all settings by chance, at
            the selector's level.
        resampled: As in ``Curve``; empty where nothing could be tried.
        gap: Between synthetic and real normal clips; ``None`` where it was not measured.
        expectation: What the setting is expected to gain, where several sources chose.
        contributions: Source to what it contributed, where several chose.
    """

    curve: pd.DataFrame
    setting: dict[str, Any]
    argmax: dict[str, Any]
    abstain_reason: str
    gain: float
    critical_value: float
    resampled: NDArray[np.float64]
    gap: Gap | None = None
    expectation: Expectation | None = None
    contributions: Mapping[str, Contribution] = field(default_factory=dict)
