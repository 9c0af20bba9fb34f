"""Which recordings synthetic clips are made of, and which clips are therefore not independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips
from fsasd.data.content import content_hashes
from fsasd.evaluation.folds import recording_groups

NO_SOURCE = -1
"""Row of the source of a synthetic clip that is made of no recording."""


def source_rows(train: Clips, synthetic: Clips) -> NDArray[np.int_]:
    """(n,) Row in ``train`` of the recording that each synthetic clip was made of.

    ``NO_SOURCE`` for one that was made of none.

    Raises:
        ValueError: A synthetic clip was made of a recording that is not in ``train``.
    """
    rows = np.full(len(synthetic), NO_SOURCE)
    if all(clip.source is None for clip in synthetic):
        return rows
    contents = content_hashes((clip.path for clip in train), train.cache.folder)
    row_of = {content: row for row, content in enumerate(contents)}
    for number, clip in enumerate(synthetic):
        if clip.source is None:
            continue
        if clip.source not in row_of:
            raise ValueError(
                f"synthetic clip {printable(clip.path)}: expected its source among the "
                f"{len(train)} normal training clips, found none with the content (SHA-256) "
                f"{clip.source or 'unknown'}: synthesise anew from these clips"
            )
        rows[number] = row_of[clip.source]
    return rows


def source_groups(train: Clips, synthetic: Clips) -> NDArray[np.int_]:
    """(train + synthetic,) Numbers of the recordings that clips were cut from, or made of.

    Synthetic clips that were made of none are grouped by pair. In the order of the names, wherever
    the recordings lie: in which order they are resampled depends on it.

    Raises:
        ValueError: A synthetic clip was made of a recording that is not in ``train``.
    """
    sources = source_rows(train, synthetic)
    names = [clip.path.name for clip in [*train, *synthetic]]
    first = np.arange(len(names))
    if (groups := recording_groups(train.recordings)) is not None:
        first[: len(train)] = np.unique(groups, return_index=True)[1][groups]
    one_of_pair: dict[int, int] = {}
    for number, clip in enumerate(synthetic, start=len(train)):
        if clip.pair is not None:
            first[number] = one_of_pair.setdefault(clip.pair, number)
    first[len(train) :] = np.where(sources == NO_SOURCE, first[len(train) :], first[sources])
    order = sorted(range(len(names)), key=lambda i: (names[i], i))
    return np.argsort(order)[first]
