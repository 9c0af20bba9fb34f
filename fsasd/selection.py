"""Choose a detector's parameters on synthetic clips (METHOD, step 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import ParameterGrid

from fsasd.detectors.base import Detector
from fsasd.evaluation.metrics import auc, pauc

OBJECTIVES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "mean": lambda curve: (curve["auc"] + curve["pauc"]) / 2,
    "auc": lambda curve: curve["auc"],
    "pauc": lambda curve: curve["pauc"],
}


@dataclass(frozen=True)
class Selection:
    """What was tried on a machine and what was chosen.

    Attributes:
        curve: One row per setting: its parameters, ``auc``, ``pauc``, ``objective``, ``chosen``.
        params: The chosen setting.
    """

    curve: pd.DataFrame
    params: dict[str, Any]


class Selector:
    """argmax over a parameter grid of how well synthetic anomalies are told from normals.

    Args:
        grid: Parameter to the values to try; all combinations are tried. Without a grid nothing
            is chosen.
        objective: ``mean`` of AUC and pAUC, ``auc`` or ``pauc``.
        baselines: Settings of the grid to report beside the chosen one.

    Raises:
        ValueError: The objective is not known.

    >>> selector = Selector({"r": [0.9, 1.0, 1.1]})
    >>> curve = selector.curve(np.array([0, 0, 1]), np.array([[1, 2, 0], [0, 1, 2], [0, 1, 2]]))
    >>> curve["auc"].tolist()
    [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        grid: Mapping[str, Sequence[Any]] | None = None,
        objective: str = "mean",
        baselines: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"objective '{objective}': expected one of {', '.join(OBJECTIVES)}")
        # NumPy's integers, of an arange, could not be saved with the detector they are chosen for.
        self.grid = {
            key: [v.item() if isinstance(v, np.generic) else v for v in values]
            for key, values in (grid or {}).items()
        }
        self.objective = objective
        self.baselines = [dict(setting) for setting in baselines]

    def settings(self) -> list[dict[str, Any]]:
        """Return every combination of the grid's values."""
        return list(ParameterGrid(self.grid)) if self.grid else []

    def check(self, detector: Detector) -> None:
        """Raise if the detector lacks a parameter of the grid.

        Raises:
            ValueError: Names the parameter and those that the detector has.
        """
        if unknown := set(self.grid) - set(detector.get_params()):
            raise ValueError(
                f"{type(detector).__name__} has no parameter {', '.join(sorted(unknown))}: "
                f"it has {', '.join(detector.get_params())}"
            )

    def curve(self, labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        """Return AUC, pAUC and objective per setting from (settings, n) scores, (n,) labels."""
        curve = pd.DataFrame(self.settings())
        curve["auc"] = [auc(labels, row) for row in scores]
        curve["pauc"] = [pauc(labels, row) for row in scores]
        curve["objective"] = OBJECTIVES[self.objective](curve)
        return curve

    def select(self, detector: Detector, labels: np.ndarray, scores: np.ndarray) -> Selection:
        """Choose the setting of highest objective; of equals, that nearest the detector's own.

        Args:
            detector: Its parameters break ties.
            labels: (n,) of synthetic clips, 1 for anomaly.
            scores: (settings, n) of detectors fitted on real normal clips.
        """
        curve = self.curve(labels, scores)
        objective = curve["objective"].to_numpy()
        # AUCs of n clips move in steps of 1 / n^2: what differs by less is equal.
        equals = np.flatnonzero(objective >= objective.max() - 1e-9)
        own = detector.get_params()
        distance = np.sum([_distance(curve[key], own[key]) for key in self.grid], axis=0)
        chosen = int(equals[np.argmin(distance[equals])])
        curve["chosen"] = curve.index == chosen
        return Selection(curve, self.settings()[chosen])


def _distance(tried: pd.Series, own: Any) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(tried) and isinstance(own, (int, float)):
        values = tried.to_numpy(float)
        # In shares of what was tried, so that a count does not outweigh a fraction.
        return np.abs(values - own) / (np.ptp(values) or 1.0)
    return (tried != own).to_numpy(float)
