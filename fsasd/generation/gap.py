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

from fsasd.data.clips import Clips
from fsasd.data.names import SectionId
from fsasd.generation.band_differences import COLUMNS, differences, in_words
from fsasd.generation.bands import band_statistics
from fsasd.generation.distances import energy_distance, held_out_auc
from fsasd.generation.encoder_space import ENCODER, RealClips, over_time
from fsasd.generation.filters import rows_by_section
from fsasd.generation.sources import source_groups
from fsasd.generation.synthetic_clips import clips_of

GAP = "gap.csv"
DIFFERENCES = "differences.csv"


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
