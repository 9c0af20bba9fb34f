"""Detectors of the vectors to which a representation maps clips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.base import clone

from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector
from fsasd.detectors.learned import LearnedRepresentation

VectorsOf = Callable[[Clips], np.ndarray]
"""Clips -> (n, d): a representation, or any function."""


class VectorDetector(Detector):
    """A detector whose parameter ``representation`` maps clips to vectors.

    Attributes:
        representation: Clips -> (n, d).
        representation_: The fitted copy of a learned one; saved with the detector.
    """

    representation: VectorsOf
    representation_: LearnedRepresentation

    def _fitted_to(self, clips: Clips) -> VectorsOf:
        """Fit a copy of a learned representation, and return what maps clips to vectors."""
        if isinstance(self.representation, LearnedRepresentation):
            self.representation_ = clone(self.representation).fit(clips)
        elif "representation_" in vars(self):
            del self.representation_
        return self._vectors_of

    @property
    def _vectors_of(self) -> VectorsOf:
        return vars(self).get("representation_", self.representation)
