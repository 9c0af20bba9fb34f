"""What settings gained on the real anomalies of reference machines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsasd.selection.sources.base import Case, Estimate, Objectives, Source, alike


class References(Source):
    """The mean of the reference machines' real curves, weighted by how alike they are.

    Args:
        scale: dB of distance between normal sounds by which a weight falls to 1/e; the larger, the
            more alike all machines count. ``null``: all alike.
        smooth: Standard deviation, in shares of the range of values, of the Gaussian by which a
            curve over one numeric parameter is smoothed first; 0 for none. A curve of few test
            clips is rough.
    """

    def __init__(self, scale: float | None = None, smooth: float = 0.0) -> None:
        self.scale = scale
        self.smooth = smooth

    def estimate(self, case: Case, references: Sequence[Case], selector: Objectives) -> Estimate:
        """Average their gains; the error is that of the mean over machines."""
        if not references:
            return Estimate.nothing(case, "there is no reference machine with labelled test clips")
        weights = alike(case, references, np.inf if self.scale is None else self.scale)
        curves = np.stack([one.gains for one in references])
        if self.smooth:
            curves = _smoothed(curves, case.synthetic.candidates.settings, self.smooth)
            curves -= curves[:, [case.synthetic.candidates.default]]
        gains = weights @ curves
        spread = np.sqrt(weights @ (curves - gains) ** 2)
        independent = 1 / np.sum(weights**2)
        origins = {
            str(one.section): float(weight) for one, weight in zip(references, weights, strict=True)
        }
        return Estimate(gains, spread / np.sqrt(max(independent - 1, 1)), origins)


def _smoothed(curves: np.ndarray, settings: Sequence[dict], width: float) -> np.ndarray:
    """Smooth curves over the one parameter that the settings have, if it is a number."""
    names = {name for setting in settings for name in setting}
    values = [value for setting in settings for value in setting.values()]
    if len(names) != 1 or not all(isinstance(value, (int, float)) for value in values):
        return curves.copy()
    place = np.array(values, dtype=float) / (np.ptp(values) or 1.0)
    kernel = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return curves @ (kernel / kernel.sum(axis=1, keepdims=True)).T
