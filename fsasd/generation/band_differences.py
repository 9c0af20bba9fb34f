"""In what synthetic clips differ from real ones: level and unsteadiness, in dB and in words.

Over all frequencies and in each band, with intervals that hold for all of them together.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fsasd.evaluation.permutation import permuted
from fsasd.generation.bands import BANDS, band_edges
from fsasd.generation.encoder_space import ENCODER

LEVEL = 0.95

AUDIBLE = 1.0
"""dB below which no difference is named, however sure: rounding to 16 bits is sure, too."""

Floats = NDArray[np.float64]
Groups = NDArray[np.int_]

COLUMNS = [
    *("aspect", "low_hz", "high_hz", "difference", "low", "high", "effect", "sure"),
    *(f"{kind}{end}" for kind in ("real", "synthetic") for end in ("", "_low", "_high")),
]


def differences(bands: Floats, labels: NDArray[np.int_], groups: Groups) -> pd.DataFrame:
    """Compare level and unsteadiness of synthetic and real clips, over all bands and in each.

    What all bands of a clip have in common, the median of their distances from what is usual, is
    one row; each band's row is what it differs beyond that. So a louder clip differs in one row,
    and one with a gap in its spectrum in those of the gap.

    Intervals are simultaneous: in 95 % of cases in which the clips are alike, none of them leaves
    out 0 (permutation of the largest studentised difference: Westfall and Young, Resampling-based
    multiple testing, 1993).

    Args:
        bands: (n, 2, BANDS) of ``band_statistics``.
        labels: (n,) 0 real, 1 synthetic.
        groups: (n,) equal for clips that are not independent.

    Returns:
        Two aspects, ``level`` and ``unsteadiness``, in a row over all bands and in one for each:
        ``difference`` of synthetic from real clips, in dB, with ``low`` and ``high``; ``effect``,
        the same in standard deviations over real clips; ``sure``, whether the interval leaves out
        0 and the difference is ``AUDIBLE``; median and 10 % and 90 % quantiles of both kinds of
        clips, of the bands' own values.
    """
    usual = bands.mean(axis=0)
    common = np.median(bands - usual, axis=2, keepdims=True)
    values = np.concatenate([common, bands - common], axis=2).reshape(len(bands), -1)
    shown = np.concatenate([common + np.median(usual, axis=1, keepdims=True), bands], axis=2)
    shown = shown.reshape(len(bands), -1)
    mean_differences, errors = _studentised(values, permuted(labels, groups), groups)
    difference, error = mean_differences[0], errors[0]
    largest = np.abs(mean_differences / errors).max(axis=1)
    critical = np.quantile(largest, LEVEL, method="higher")
    spread = values[labels == 0].std(axis=0)
    edges = band_edges()
    table = pd.DataFrame(
        {
            "aspect": np.repeat(["level", "unsteadiness"], BANDS + 1),
            "low_hz": np.tile([edges[0], *edges[:-1]], 2).round(1),
            "high_hz": np.tile([edges[-1], *edges[1:]], 2).round(1),
            "difference": difference,
            "low": difference - critical * error,
            "high": difference + critical * error,
            "effect": difference / np.maximum(spread, 1e-6),
            "sure": (np.abs(difference / error) > critical) & (np.abs(difference) >= AUDIBLE),
        }
    )
    for kind, label in (("real", 0), ("synthetic", 1)):
        quantiles = np.quantile(shown[labels == label], [0.5, 0.1, 0.9], axis=0)
        for end, values_at in zip(("", "_low", "_high"), quantiles, strict=True):
            table[f"{kind}{end}"] = values_at
    return table[COLUMNS]


def _studentised(values: Floats, labels: NDArray[np.int_], groups: Groups) -> tuple[Floats, Floats]:
    """(draws, dim) Differences of the means, and their standard errors, of (draws, n) labels.

    The error is that of independent groups: from the squares of what each contributes.
    """
    values = values - values.mean(axis=0)
    sizes = np.stack([len(groups) - labels.sum(axis=1), labels.sum(axis=1)])[:, :, None]
    is_kind = np.stack([1 - labels, labels]).astype(float)
    means = is_kind @ values / sizes
    units, unit_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    alone = counts[unit_of] == 1
    of_alone, single = is_kind[:, :, alone], values[alone]
    # Sum of (x - mean)^2 of the clips that are groups of their own, by its three terms.
    squares = (
        of_alone @ single**2
        - 2 * means * (of_alone @ single)
        + means**2 * of_alone.sum(axis=2, keepdims=True)
    ) / sizes**2
    variance = squares.sum(axis=0)
    for unit in np.flatnonzero(counts > 1):
        members = is_kind[:, :, unit_of == unit]
        sums = members @ values[unit_of == unit] - means * members.sum(axis=2, keepdims=True)
        variance += np.square(np.subtract(*(sums / sizes)))
    variance *= len(units) / max(len(units) - 1, 1)
    # 1e-6 dB: clips that are all alike differ by no less than rounding.
    return means[1] - means[0], np.sqrt(np.maximum(variance, 1e-12))


def in_words(table: pd.DataFrame, at_most: int = 3) -> str:
    """Name what differs surely: what to mend.

    Args:
        table: Of ``differences``.
        at_most: So many ranges of bands of each aspect, the largest effects first.

    >>> rows = [{"aspect": "level", "low_hz": 0.0, "high_hz": 8000.0, "difference": 0.1,
    ...          "effect": 0.0, "sure": False},
    ...         {"aspect": "level", "low_hz": 5142.1, "high_hz": 8000.0, "difference": -4.2,
    ...          "effect": -2.0, "sure": True}]
    >>> in_words(pd.DataFrame(rows))
    '4.2 dB quieter above 5.1 kHz'
    """
    phrases = []
    for aspect, (more, less) in _ASPECTS.items():
        rows = table[table["aspect"] == aspect].reset_index(drop=True)
        ranges = sorted(_ranges(rows[1:]), key=lambda one: -abs(one[3]))[:at_most]
        everywhere = rows["sure"][:1].any()
        phrases += [
            f"{(more if difference > 0 else less).format(abs(difference))} {where}"
            for difference, where in [
                *([(rows["difference"][0], "over all bands")] if everywhere else []),
                *(
                    (difference, f"{_hertz(low, high)}{', relative to that' if everywhere else ''}")
                    for low, high, difference, _ in ranges
                ),
            ]
        ]
    return "; ".join(phrases)


_ASPECTS = {
    "level": ("{:.1f} dB louder", "{:.1f} dB quieter"),
    "unsteadiness": (
        "less steady (range over time {:.1f} dB wider)",
        "steadier (range over time {:.1f} dB narrower)",
    ),
}
"""What a positive and a negative difference is called."""


def _ranges(bands: pd.DataFrame) -> list[tuple[float, float, float, float]]:
    """Neighbouring bands that differ alike: low and high corner, mean difference and effect."""
    sign = np.sign(bands["difference"]) * bands["sure"]
    runs = bands.groupby((sign != sign.shift()).cumsum(), sort=False)
    return [
        (run["low_hz"].min(), run["high_hz"].max(), run["difference"].mean(), run["effect"].mean())
        for _, run in runs
        if run["sure"].all()
    ]


def _hertz(low: float, high: float) -> str:
    def text(hertz: float) -> str:
        return f"{hertz / 1000:.2g} kHz" if hertz >= 1000 else f"{float(f'{hertz:.2g}'):g} Hz"

    if low <= 0:
        return f"below {text(high)}"
    if high >= ENCODER.max_hz:
        return f"above {text(low)}"
    return f"from {text(low)} to {text(high)}"
