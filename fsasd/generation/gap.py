"""The gap between synthetic and real normal clips: is there one, how wide, and in what.

Three questions, on normal clips alone, before any anomaly comes into it:

- *Would a detector take synthesis for a fault?* ``held_out_auc``: of synthetic against real clips,
  by their distance to the nearest real clips in log-mel statistics, held out. Unlike a covariance
  it is as well conditioned with fifteen clips as with a thousand, and it is no setting's.
- *Is there any difference?* ``energy_distance``: of the two distributions, without a detector,
  unbiased for few clips, with a permutation p-value.
- *In what do they differ?* ``differences``: level and unsteadiness over time, over all frequencies
  and in each band, in dB, with intervals that hold for all of them together.

Clips of one recording, or made of one, are not independent: ``groups`` has them stay together
wherever clips are held out, resampled or permuted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from fsasd.data.clips import Clips
from fsasd.data.names import SectionId
from fsasd.evaluation.folds import split_folds
from fsasd.evaluation.uncertainty import percentile_interval, resample, resampled_areas
from fsasd.generation.encoder_space import ENCODER, RealClips, over_time
from fsasd.generation.filters import rows_by_section
from fsasd.generation.sources import source_groups
from fsasd.generation.synthetic_clips import clips_of

GAP = "gap.csv"
DIFFERENCES = "differences.csv"

BANDS = 16
"""Of equal width in mels: each is the sum of eight of the front end's."""

QUANTILES = (0.05, 0.95)
"""Of a band's level over time: their distance is its unsteadiness."""

FOLDS = 5
NEIGHBOURS = 3
PERMUTATIONS = 499
LEVEL = 0.95

AUDIBLE = 1.0
"""dB below which no difference is named, however sure: rounding to 16 bits is sure, too."""

Floats = NDArray[np.float64]
Groups = NDArray[np.int_]


@dataclass(frozen=True)
class Gap:
    """How far synthetic normal clips are from real ones.

    Attributes:
        auc: Of synthetic clips (as if they were the anomalies) against held-out real ones (see
            ``held_out_auc``). 0.5: not distinguished; near 1 they sound anomalous; near 0 they are
            more normal than real clips. NaN of fewer than two real clips.
        low: Lower end of its 95 % interval.
        high: Upper end.
        synthetic: Number of synthetic normal clips.
        real: Number of real normal clips.
        energy: ``energy_distance``: 0 on average where they are alike, 1 at most.
        p_value: Probability of as large a distance where they are alike.
        words: What differs, surely (``in_words``); empty where nothing does.
    """

    auc: float
    low: float
    high: float
    synthetic: int
    real: int
    energy: float = np.nan
    p_value: float = np.nan
    words: str = ""

    def exceeds(self, limit: float) -> bool:
        """Return whether the whole interval is above the limit, or below 1 minus the limit.

        >>> Gap(auc=0.9, low=0.8, high=0.95, synthetic=64, real=100).exceeds(0.75)
        True
        """
        return self.low > limit or self.high < 1 - limit

    def __str__(self) -> str:
        """The AUC with its interval, and what differs.

        >>> print(Gap(0.9, 0.8, 0.95, 64, 100, words="3.1 dB louder over all bands"))
        AUC 0.90 (95 % interval 0.80 to 0.95; 0.5: not distinguished; 3.1 dB louder over all bands)
        """
        text = f"AUC {self.auc:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}; 0.5: not "
        return f"{text}distinguished{self.words and '; '}{self.words})"


def measure_gap(train: Clips, normals: Clips) -> tuple[Gap, pd.DataFrame]:
    """Compare synthetic normal clips with the real ones of their section.

    Args:
        train: Real normal training clips.
        normals: Synthetic normal clips, with their ``source`` where they were made of a recording.

    Returns:
        The gap, and the table of ``differences``; without clips of either kind, an empty one.

    Raises:
        ValueError: A synthetic clip was made of a recording that is not in ``train``.
    """
    if not len(train) or not len(normals):
        return Gap(np.nan, np.nan, np.nan, len(normals), len(train)), pd.DataFrame(columns=COLUMNS)
    groups = source_groups(train, normals)
    labels = np.repeat([0, 1], [len(train), len(normals)])
    statistics = [
        (over_time(log_mel).astype(float), band_statistics(log_mel))
        for clips in (train, normals)
        for log_mel in clips.features(ENCODER)
    ]
    points, bands = map(np.stack, zip(*statistics, strict=True))
    auc, low, high = held_out_auc(points, labels, groups)
    energy, p_value = energy_distance(bands.reshape(len(bands), -1), labels, groups)
    table = differences(bands, labels, groups)
    gap = Gap(auc, low, high, len(normals), len(train), energy, p_value, in_words(table))
    return gap, table


def gap_tables(
    manifest: pd.DataFrame, folder: str | Path, real: RealClips
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the synthetic normal clips of each section that were kept with its real ones.

    Args:
        manifest: Of ``synthetic_clips.read_table``, with the verdict of all filters.
        folder: Where its recordings are.
        real: Labelled recordings.

    Returns:
        ``gap.csv``, a row for each section with the attributes of ``Gap``, and
        ``differences.csv``, those of ``differences``; both begin with machine and section.

    Raises:
        ValueError: A synthetic clip was made of a recording that is not among the section's
            normal training clips.
    """
    names = list(SectionId._fields)
    gaps, tables = [], [pd.DataFrame(columns=[*names, *COLUMNS])]
    for section, in_section in rows_by_section(manifest):
        kept = manifest[in_section & manifest["kept"] & (manifest["label"] == "normal")]
        train = real.normals(section).clips
        gap, table = measure_gap(train, Clips(clips_of(kept, folder), train.cache))
        gaps.append({**section._asdict(), **asdict(gap)})
        tables.append(table.assign(**section._asdict())[tables[0].columns])
    columns = [*names, *(field.name for field in fields(Gap))]
    # A table without rows has no types of its own to add.
    filled = [table for table in tables if len(table)] or tables[:1]
    return pd.DataFrame(gaps, columns=columns), pd.concat(filled, ignore_index=True)


def read_gap(folder: Path) -> Gap:
    r"""Read the gap of the one section that a folder was judged of.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / GAP).write_text("machine,section,auc,low,high,synthetic,real,energy,p_value,"
    ...     "words\nfan,00,0.5,0.4,0.6,8,9,0.01,0.2,\n")
    >>> read_gap(folder)
    Gap(auc=0.5, low=0.4, high=0.6, synthetic=8, real=9, energy=0.01, p_value=0.2, words='')
    """
    table = pd.read_csv(folder / GAP, dtype={"words": str}).fillna({"words": ""})
    (row,) = table.drop(columns=list(SectionId._fields)).to_dict("records")
    return Gap(**{str(name): value for name, value in row.items()})


def band_edges() -> Floats:
    """Return the (BANDS + 1,) corners of the bands in Hz.

    >>> band_edges()[[0, 8, 16]].round()
    array([   0., 1768., 8000.])
    """
    top = 2595 * np.log10(1 + ENCODER.max_hz / 700)
    return 700 * (10 ** (np.linspace(0, top, BANDS + 1) / 2595) - 1)


def band_statistics(log_mel: NDArray) -> Floats:
    """Return (2, BANDS): level and unsteadiness of each band, in dB.

    The level is the mean over time, the unsteadiness the distance between two ``QUANTILES``.

    Args:
        log_mel: (mels, frames) of ``encoder_space.ENCODER``, in dB.

    >>> steady = np.full((128, 50), -60.0)
    >>> band_statistics(steady)[:, 0].round(6).tolist()
    [-60.0, 0.0]
    """
    power = 10 ** (np.asarray(log_mel, float) / 10)
    bands = 10 * np.log10(power.reshape(BANDS, -1, power.shape[1]).mean(axis=1))
    low, high = np.quantile(bands, QUANTILES, axis=1)
    return np.stack([bands.mean(axis=1), high - low])


def held_out_auc(points: Floats, labels: NDArray[np.int_], groups: Groups) -> tuple[float, ...]:
    """Return the AUC of synthetic against real clips by distance to the nearest real ones.

    Real clips are held out in folds; a synthetic clip is in the fold of the recording that it was
    made of. Dimensions are in units of the other folds' standard deviation.

    Args:
        points: (n, dim).
        labels: (n,) 0 real, 1 synthetic.
        groups: (n,) equal for clips that are not independent.

    Returns:
        The AUC and the ends of its interval; NaN of fewer than two real clips.

    >>> rng = np.random.default_rng(0)
    >>> points, labels = rng.standard_normal((40, 3)), np.repeat([0, 1], 20)
    >>> held_out_auc(points + 9 * labels[:, None], labels, np.arange(40))
    (1.0, 1.0, 1.0)
    """
    real = np.flatnonzero(labels == 0)
    if len(real) < 2:
        return np.nan, np.nan, np.nan
    scores = np.empty(len(points))
    splits = split_folds(len(real), FOLDS, 0, groups[real])
    synthetic = np.flatnonzero(labels == 1)
    place = np.arange(len(synthetic)) % len(splits)
    for number, (_, fold) in enumerate(splits):
        place[np.isin(groups[synthetic], groups[real[fold]])] = number
    for number, (rest, fold) in enumerate(splits):
        members = np.concatenate([real[fold], synthetic[place == number]])
        scores[members] = _distances(points[real[rest]], points[members])
    counts = resample(labels, n=200, groups=groups)
    auc = resampled_areas(labels, None, scores[None]).auc[0, 0]
    interval = percentile_interval(resampled_areas(labels, None, scores[None], counts).auc[0])
    return float(auc), interval.low, interval.high


def energy_distance(
    points: Floats, labels: NDArray[np.int_], groups: Groups
) -> tuple[float, float]:
    """Return the energy distance of two sets of points, and its permutation p-value.

    ``(2 E|x - y| - E|x - x'| - E|y - y'|) / (2 E|x - y|)`` over pairs of independent clips: 0 on
    average for sets from one distribution, whatever their sizes, so that it can be negative; 1
    where each set is a single point (Szekely and Rizzo, Journal of Statistical Planning and
    Inference 143(8), 2013). Dimensions are in units of their standard deviation over both sets.

    Args:
        points: (n, dim).
        labels: (n,) 0 real, 1 synthetic.
        groups: (n,) equal for clips that are not independent.

    Returns:
        NaN where there are not two independent clips of either kind.

    >>> points, labels = np.repeat([[0.0], [1.0]], 9, axis=0), np.repeat([0, 1], 9)
    >>> energy_distance(points, labels, np.arange(18))
    (1.0, 0.002)
    """
    scaled = points / _scale(points)
    independent = (groups[:, None] != groups).astype(float)
    synthetic = permuted(labels, groups).astype(float)
    totals = _pair_sums(cdist(scaled, scaled) * independent, synthetic)
    pairs = _pair_sums(independent, synthetic)
    means = np.divide(totals, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)
    across, within = 2 * means[0], means[1] + means[2]
    # Where all points are one, there is no distance.
    distance = np.divide(across - within, across, out=across - within, where=across > 0)
    if np.isnan(distance[0]):
        return np.nan, np.nan
    larger = distance >= distance[0] - 1e-12
    return float(distance[0]), float(np.mean(larger | np.isnan(distance)))


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


def permuted(labels: NDArray[np.int_], groups: Groups, seed: int = 0) -> NDArray[np.int_]:
    """Return (1 + PERMUTATIONS, n) labels as they might as well be, the given ones first.

    Groups of one label exchange it with one another, all of their clips together; in those of
    both, clips exchange theirs.

    >>> drawn = permuted(np.array([0, 0, 1, 1, 0]), np.array([0, 0, 1, 2, 2]))
    >>> set(drawn[:, 0] - drawn[:, 1]), set(drawn[:, 3] + drawn[:, 4])
    ({np.int64(0)}, {np.int64(1)})
    """
    rng = np.random.default_rng(seed)
    units = np.unique(groups, return_inverse=True)[1]
    count = np.bincount(units)
    ones = np.bincount(units, weights=labels)
    mixed = (ones > 0) & (ones < count)
    pure = np.flatnonzero(~mixed)
    drawn = np.tile(labels, (1 + PERMUTATIONS, 1))
    of_pure = ~mixed[units]
    members = [np.flatnonzero(units == unit) for unit in np.flatnonzero(mixed)]
    for row in drawn[1:]:
        of_unit = (ones > 0).astype(int)
        of_unit[pure] = rng.permutation(of_unit[pure])
        row[of_pure] = of_unit[units[of_pure]]
        for rows in members:
            row[rows] = rng.permutation(row[rows])
    return drawn


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
                    (difference, f"{_hertz(low, high)}{', beyond that' if everywhere else ''}")
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


def _scale(points: Floats) -> Floats:
    spread = points.std(axis=0)
    # A dimension in which few clips happen to agree must not outweigh all others.
    scale = np.maximum(spread, 0.1 * spread.mean())
    return np.where(scale > 0, scale, 1.0)


def _distances(known: Floats, points: Floats) -> Floats:
    """Mean distance to the nearest known points."""
    scale = _scale(known)
    distances = np.sort(cdist(points / scale, known / scale), axis=1)
    return distances[:, :NEIGHBOURS].mean(axis=1)


def _pair_sums(matrix: Floats, synthetic: Floats) -> Floats:
    """(3, n) Sums of a symmetric matrix over pairs of both kinds, of synthetic, of real ones."""
    within = np.sum((synthetic @ matrix) * synthetic, axis=1)
    across = synthetic @ matrix.sum(axis=1) - within
    return np.stack([across, within, matrix.sum() - within - 2 * across])


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
