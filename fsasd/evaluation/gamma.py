"""The gamma distribution of normal clips' scores, once it is fitted: SciPy's special functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc


class Gamma(NamedTuple):
    """A gamma distribution; its fields are ``scipy.stats.gamma``'s arguments.

    Importing ``scipy.stats`` takes longer than to score a recording.

    >>> Gamma(1.0, 0.0, 1.0).tail(np.array([-1.0, 0.0, np.log(4)])).round(12).tolist()
    [1.0, 1.0, 0.25]
    """

    shape: float
    location: float
    scale: float

    def tail(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of a higher score than each, as ``scipy.stats.gamma.sf`` does."""
        return gammaincc(self.shape, np.maximum((scores - self.location) / self.scale, 0.0))
