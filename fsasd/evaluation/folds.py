"""Folds of clips to hold out in turn, and which clips are independent of one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Split = tuple[NDArray[np.int_], NDArray[np.int_]]
"""Rows of the clips to fit on, and of those that are held out."""


def recording_groups(recordings: Iterable[str | float | None]) -> NDArray[np.int_] | None:
    """Number the recordings that clips were cut from, in the order of the clips.

    Args:
        recordings: Of each clip, n (``Clips.recordings``); ``None`` or NaN where it is not known:
            then the clip is taken for a recording of its own.

    Returns:
        (n,) equal for clips of one recording; ``None`` where no two clips are of one.

    >>> recording_groups(["a", None, "a"]), recording_groups(["a", "b", None, None])
    (array([0, 1, 0]), None)
    """
    import pandas as pd

    keys = [(row, None) if pd.isna(name) else (0, name) for row, name in enumerate(recordings)]
    numbers: dict[tuple[int, str | float | None], int] = {}
    groups = [numbers.setdefault(key, len(numbers)) for key in keys]
    return None if len(numbers) == len(groups) else np.array(groups)


def split_folds(
    n: int, folds: int, seed: int, groups: Sequence[int] | NDArray | None = None
) -> list[Split]:
    """Shuffle clips into folds; clips of one recording are in one fold.

    Clips of one recording are alike: a detector that was fitted on some of them would score the
    others as if it had been fitted on these, too. Where all are of one recording there is nothing
    else to hold out, and they are divided like clips of which no recording is known.

    Args:
        n: Number of clips, 2 at least.
        folds: At most so many; one recording per fold where there are fewer.
        seed: Of the shuffle.
        groups: (n,) equal for clips of one recording; by default each is one of its own.

    >>> [fold.tolist() for _, fold in split_folds(4, 2, 0, groups=[0, 1, 0, 1])]
    [[1, 3], [0, 2]]
    """
    units = (
        np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    )
    if units.max() == 0:
        units = np.arange(n)
    from sklearn.model_selection import KFold

    n_units = int(units.max()) + 1
    folding = KFold(min(folds, n_units), shuffle=True, random_state=seed)
    held_out = [np.isin(units, fold) for _, fold in folding.split(np.empty(n_units))]
    return [(np.flatnonzero(~inside), np.flatnonzero(inside)) for inside in held_out]
