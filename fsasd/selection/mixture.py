"""How much each kind of synthetic fault counts, by the real anomalies of reference machines.

The AUC of a mixture of faults is the mean of the faults' AUCs, weighted by their shares. So shares
are fitted that make the mixture's curve over settings like the curve of real anomalies, on machines
where these are known.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

SEPARATOR = "+"
"""Between the faults of a clip that has several."""


def faults_of(clip: str) -> list[str]:
    """Return the faults of a clip.

    >>> faults_of("leak+impacts"), faults_of("")
    (['leak', 'impacts'], [])
    """
    return clip.split(SEPARATOR) if clip else []


def weights_of_fault(fault: str, clips: Sequence[str]) -> NDArray[np.float64]:
    """Return (n,) how much of each clip is of a fault: clips with several are divided among them.

    >>> weights_of_fault("leak", ["leak", "leak+impacts", "impacts", ""]).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    each = [faults_of(clip) for clip in clips]
    return np.array([one.count(fault) / max(len(one), 1) for one in each])


def mixture_weights(shares: Mapping[str, float], clips: Sequence[str]) -> NDArray[np.float64]:
    """Return (n,) weights of clips that give each fault its share, however many clips it has.

    Clips without a fault have the weight 1; the others have the mean 1.

    >>> shares = {"leak": 0.75, "impacts": 0.25}
    >>> mixture_weights(shares, ["leak", "impacts", "impacts", ""]).tolist()
    [2.25, 0.375, 0.375, 1.0]
    """
    named = np.array([bool(clip) for clip in clips])
    weights = np.zeros(len(clips))
    for fault, share in shares.items():
        of_fault = weights_of_fault(fault, clips)
        weights += share * of_fault / of_fault.sum()
    return np.where(named, weights * named.sum(), 1.0)


def fault_shares(
    of_faults: ArrayLike,
    of_anomalies: ArrayLike,
    types: Sequence[Hashable],
    ridge: float = 1.0,
) -> NDArray[np.float64]:
    """Return the shares of faults whose mixture has the curves of real anomalies.

    Nonnegative least squares over machines and settings. Only the shapes of curves count, since
    which setting is best does not depend on how hard faults are to detect: the mean of each over
    its settings is taken off, and shares are scaled to a sum of 1.

    Args:
        of_faults: (machines, faults, settings) objective on each fault's synthetic clips.
        of_anomalies: (machines, settings) the same on real anomalies.
        types: Type of each machine; those of one type count as one.
        ridge: Pull towards equal shares: at 1, as strong as the evidence of all machines together
            if faults' curves were uncorrelated. 0 is none.

    Returns:
        (faults,) shares of 0 or more, of sum 1; equal ones where there is no machine, or no fault
        is like the anomalies.

    Raises:
        ValueError: Shapes do not fit, values are not finite, or ``ridge`` is negative.

    >>> impacts, leak = [0.9, 0.7, 0.5], [0.5, 0.7, 0.9]
    >>> shares = fault_shares([[impacts, leak]], [[0.8, 0.7, 0.6]], ["pump"], ridge=0.01)
    >>> [round(float(share), 2) for share in shares]
    [0.75, 0.25]
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
    counts = np.array([[types.count(one)] for one in types], dtype=float).reshape(-1, 1)
    columns = (_shape(faults) / np.sqrt(counts)[..., None]).swapaxes(1, 2).reshape(-1, len(equal))
    # In proportion to the curves, so that it does not depend on their scale or number.
    pull = np.sqrt(ridge * np.square(columns).sum() / len(equal))
    rows = np.concatenate([columns, pull * np.eye(len(equal))])
    values = np.concatenate([(_shape(anomalies) / np.sqrt(counts)).ravel(), pull * equal])
    shares, _ = nnls(rows, values)
    return shares / shares.sum() if shares.any() else equal


def _shape(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    return curves - curves.mean(axis=-1, keepdims=True)
