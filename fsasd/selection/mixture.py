"""How much each kind of synthetic fault counts, by the real anomalies of reference machines.

The AUC of a mixture of faults is the mean of the faults' AUCs, weighted by their shares. So shares
are fitted that make the mixture's curve over settings like the curve of real anomalies, on machines
where these are known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls


def fault_shares(
    of_faults: ArrayLike,
    of_anomalies: ArrayLike,
    types: Sequence[str],
    left_out: str | None = None,
    ridge: float = 1.0,
) -> NDArray[np.float64]:
    """Return the shares of faults whose mixture has the curves of real anomalies.

    Nonnegative least squares over machines and settings. Only the shapes of curves count, since
    which setting is best does not depend on how hard faults are to detect: the mean of each over
    its settings is taken off, and shares are scaled to a sum of 1.

    Args:
        of_faults: (machines, faults, settings) objective on each fault's synthetic clips.
        of_anomalies: (machines, settings) the same on real anomalies.
        types: Type of each machine.
        left_out: Machines of this type are not used: that of the machine the shares are for.
        ridge: Pull towards equal shares: at 1, as strong as the evidence of all machines together
            if faults' curves were uncorrelated. 0 is none.

    Returns:
        (faults,) shares of 0 or more, of sum 1; equal ones where no machine is left, or no fault is
        like the anomalies.

    Raises:
        ValueError: Shapes do not fit, values are not finite, or ``ridge`` is negative.

    >>> impacts, leak = [0.9, 0.7, 0.5], [0.5, 0.7, 0.9]
    >>> shares = fault_shares([[impacts, leak]], [[0.8, 0.7, 0.6]], ["pump"], ridge=0.01)
    >>> [round(float(share), 2) for share in shares]
    [0.75, 0.25]
    >>> fault_shares([[impacts, leak]], [[0.8, 0.7, 0.6]], ["pump"], left_out="pump").tolist()
    [0.5, 0.5]
    """
    faults, anomalies = np.asarray(of_faults, float), np.asarray(of_anomalies, float)
    if faults.ndim != 3 or anomalies.shape != (faults.shape[0], faults.shape[2]):
        raise ValueError(
            "expected curves (machines, faults, settings) of faults and (machines, settings) of "
            f"anomalies, found {faults.shape} and {anomalies.shape}"
        )
    if len(types) != len(anomalies):
        raise ValueError(f"expected the type of {len(anomalies)} machines, found {len(types)}")
    if not (np.isfinite(faults).all() and np.isfinite(anomalies).all()):
        raise ValueError("expected finite curves, found NaN or infinity: leave the machine out")
    if not ridge >= 0:
        raise ValueError(f"ridge: expected 0 or more, found {ridge}")
    equal = np.full(faults.shape[1], 1 / faults.shape[1])
    used = np.array([one != left_out for one in types], dtype=bool)
    columns = _shape(faults[used]).swapaxes(1, 2).reshape(-1, len(equal))
    # In proportion to the curves, so that it does not depend on their scale or number.
    pull = np.sqrt(ridge * np.square(columns).sum() / len(equal))
    rows = np.concatenate([columns, pull * np.eye(len(equal))])
    shares, _ = nnls(rows, np.concatenate([_shape(anomalies[used]).ravel(), pull * equal]))
    return shares / shares.sum() if shares.any() else equal


def _shape(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    return curves - curves.mean(axis=-1, keepdims=True)
