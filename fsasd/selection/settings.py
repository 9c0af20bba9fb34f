"""Settings of a detector that are compared: grids, candidates, the default setting, titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fsasd.detectors.base import Detector

Setting = Mapping[str, Any]
"""Parameter to value."""

Grid = Mapping[str, Sequence[Any]]
"""Parameter to the values to try; all combinations are tried."""

PARAMETER = "param."
"""Before the names of parameters in columns, so that one called ``low`` is not taken for another's
lower end."""


@dataclass(frozen=True)
class Candidates:
    """The settings that are compared on one set of clips.

    Attributes:
        settings: Those of the grids, and last the detector's default setting if no grid has it.
        n_grid: How many are of the grids: only these can be chosen in place of the default.
        params: The detector's own value of every parameter that a setting has.

    >>> Candidates([{"k": 1}, {"k": 2}], 2, {"k": 2}).default
    1
    """

    settings: list[dict[str, Any]]
    n_grid: int
    params: dict[str, Any]

    @classmethod
    def of(cls, detector: Detector, grids: Sequence[Grid]) -> Candidates:
        """Return the settings of grids, and the detector's default setting.

        >>> from fsasd.detectors.knn import KNN
        >>> Candidates.of(KNN(k=3), [{"k": [1, 2]}]).settings
        [{'k': 1}, {'k': 2}, {'k': 3}]
        """
        settings = combinations(grids)
        values = detector.get_params()
        keys = dict.fromkeys(key for setting in settings for key in setting)
        params = {key: values[key] for key in keys}
        if row_of(params, settings) is None:
            return cls([*settings, params], len(settings), params)
        return cls(settings, len(settings), params)

    @property
    def default(self) -> int:
        """Row of the detector's default setting."""
        row = row_of(self.params, self.settings[: self.n_grid])
        return self.n_grid if row is None else row

    def distances(self) -> NDArray[np.float64]:
        """(n,) How far each setting is from the default, by which ties are broken.

        Numbers count in shares of the range that was tried, so that a count does not outweigh a
        fraction; other values as 1 where they differ.
        """
        total = np.zeros(len(self.settings))
        for key, default in self.params.items():
            values = [setting.get(key, default) for setting in self.settings]
            if all(isinstance(value, (int, float)) for value in (*values, default)):
                numbers = np.array(values, float)
                total += np.abs(numbers - default) / (np.ptp(numbers) or 1.0)
            else:
                total += [not _equal(value, default) for value in values]
        return total


def combinations(grids: Sequence[Grid]) -> list[dict[str, Any]]:
    """Return every combination of each grid's values, one grid after the other.

    >>> combinations([{"k": [1, 2]}, {"r": [0.5]}])
    [{'k': 1}, {'k': 2}, {'r': 0.5}]
    """
    from sklearn.model_selection import ParameterGrid

    # ParameterGrid sorts the parameters; they are shown as they were given.
    return [{key: s[key] for key in grid} for grid in grids for s in ParameterGrid(grid)]


def row_of(setting: Setting, settings: Sequence[Setting]) -> int | None:
    """Return the first of the settings that is a part of ``setting``, or of which it is a part.

    >>> row_of({"k": 1, "r": 0.3, "seed": 0}, [{"r": 0.1 * 2}, {"r": 0.1 * 3}])
    1
    >>> row_of({"r": 0.3}, [{"r": 0.2, "k": 1}, {"r": 0.3, "k": 2}])
    1
    """
    for row, other in enumerate(settings):
        shared = setting.keys() & other.keys()
        if shared in (setting.keys(), other.keys()) and all(
            _equal(setting[key], other[key]) for key in shared
        ):
            return row
    return None


def title(setting: Mapping[Any, Any]) -> str:
    """Write a setting as the tables do; parameters that it lacks are left out.

    Parameters of components go by their last name where no other has it.

    >>> title({"k": 2, "representation__pool_by": "mean", "r": 0.5, "q": float("nan")})
    'k=2, pool_by=mean, r=0.5'
    """
    # NaN is not equal to itself.
    given = {str(k): v for k, v in setting.items() if v is not pd.NA and v == v}
    last = [key.rpartition("__")[2] for key in given]
    names = [
        short if last.count(short) == 1 else key for key, short in zip(given, last, strict=True)
    ]
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in zip(names, given.values(), strict=True)
    )


def settings_frame(settings: Sequence[Setting]) -> pd.DataFrame:
    """Lay settings out as a table: a row each, a column per parameter.

    >>> settings_frame([{"k": 1}, {"k": 2}]).columns.tolist()
    ['param.k']
    """
    frame = pd.DataFrame(settings)
    for key in dict.fromkeys(key for setting in settings for key in setting):
        # A parameter that only some settings have leaves gaps, and would turn integers to floats.
        values = [setting[key] for setting in settings if key in setting]
        if len(values) < len(settings) and all(type(value) is int for value in values):
            frame[key] = frame[key].astype("Int64")
    return frame.add_prefix(PARAMETER)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return bool(np.isclose(one, other))
    return bool(one == other)
