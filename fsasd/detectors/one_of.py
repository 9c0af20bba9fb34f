"""One of several detectors, chosen by a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.data.names import require_known
from fsasd.detectors.base import Detector, Params


class OneOf(Detector):
    """The detector that ``use`` names; a grid may compare several, and parameters of each.

    A parameter of one of them is called ``<name>__<parameter>``. Scores of different detectors
    differ in scale: compare them by ranks, as AUC does.

    Args:
        detectors: Name to detector, unfitted.
        use: Name of the detector to fit.

    >>> from fsasd.detectors.knn import KNN
    >>> either = OneOf({"nearest": KNN(), "fifth": KNN(k=5)}, use="nearest")
    >>> either.set_params(use="fifth", fifth__k=4).get_params()["fifth__k"]
    4
    """

    def __init__(self, detectors: Mapping[str, Detector], use: str) -> None:
        self.detectors = detectors
        self.use = use

    def fit(self, clips: Clips) -> Self:
        """Fit a copy of the detector in use.

        Raises:
            MetadataError: ``use`` is not the name of a detector.
        """
        self.detector_ = clone(self._named(self.use)).fit(clips)
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the scores of the detector in use."""
        check_is_fitted(self)
        return self.detector_.score(clips)

    def score_path(
        self, grid: Sequence[Params], fit_clips: Clips, score_clips: Clips
    ) -> np.ndarray:
        """Score each detector's settings by its ``score_path``."""
        members: dict[str, list[int]] = {}
        for i, params in enumerate(grid):
            members.setdefault(params.get("use", self.use), []).append(i)
        rows: dict[int, np.ndarray] = {}
        for name, indices in members.items():
            settings = [
                {
                    key.removeprefix(f"{name}__"): value
                    for key, value in grid[i].items()
                    if key.startswith(f"{name}__")
                }
                for i in indices
            ]
            scores = self._named(name).score_path(settings, fit_clips, score_clips)
            rows |= dict(zip(indices, scores, strict=True))
        return np.stack([rows[i] for i in range(len(grid))])

    def resolved_params(self) -> dict[str, Any]:
        """Return the resolved parameters of the detector in use, ``<name>__<parameter>``."""
        return {
            f"{self.use}__{key}": value for key, value in self.detector_.resolved_params().items()
        }

    def n_parameters(self) -> int:
        """Return the number of parameters of the detector in use."""
        check_is_fitted(self)
        return self.detector_.n_parameters()

    def _named(self, name: str) -> Detector:
        require_known([name], self.detectors, "detectors to use")
        return self.detectors[name]
