"""What an exported detector decides of a score: its p-value, and whether it is anomalous."""

from __future__ import annotations

import numpy as np
from scipy import stats

from fsasd.evaluation.calibration import Calibration
from fsasd.evaluation.gamma import Gamma
from fsasd.export.graph import Graph, Value

_NODES = 2048
"""Of the table of a gamma distribution's tail: it is off by less than 1e-6 of the p-value."""


def anomalous(graph: Graph, score: Value, calibration: Calibration) -> Value:
    """Return whether a score is above the threshold; of NaN, which no threshold is below, it is."""
    below = graph("LessOrEqual", score, np.float64(calibration.threshold))
    return graph("Not", below)


def p_value(graph: Graph, score: Value, calibration: Calibration) -> Value:
    """Return the tail probability of a score (``Calibration.p_values``)."""
    if calibration.gamma is not None:
        return gamma_tail(graph, score, calibration.gamma)
    normal = np.sort(calibration.normal)
    as_high = graph.cast(graph("GreaterOrEqual", normal, score), "float64")
    above = graph("Add", graph.total(as_high, 0), np.float64(1))
    return graph("Div", above, np.float64(1 + len(normal)))


def gamma_tail(graph: Graph, score: Value, gamma: Gamma) -> Value:
    """Return the tail probability of a gamma distribution, of which ONNX knows no function.

    Its logarithm is interpolated by cubics that have its values and slopes at equal steps of a
    power of the standardised score, in which it is smooth also where the density is infinite, and
    which has small steps near 0. The last step is where the probability is the smallest normal
    number in double precision, at which ``Calibration.p_values`` stops, too.
    """
    tiny = np.finfo(float).tiny
    bend = min(gamma.shape, 1.0) / 2
    # Below the first step the tail is 1 to the last bit, above the last it is tiny.
    first = stats.gamma.ppf(1e-17, gamma.shape) if gamma.shape > 1 else 0.0
    w, step = np.linspace(
        first**bend, stats.gamma.isf(tiny, gamma.shape) ** bend, _NODES, retstep=True
    )
    x = w ** (1 / bend)
    values = np.log(np.maximum(stats.gamma.sf(x, gamma.shape), tiny))
    slopes = _slopes(x, bend, gamma.shape) * step
    above = graph("Sub", score, np.float64(gamma.location))
    standard = graph("Max", graph("Div", above, np.float64(gamma.scale)), np.float64(0))
    steps = graph("Div", graph("Sub", graph("Pow", standard, np.float64(bend)), w[0]), step)
    steps = graph("Clip", steps, np.float64(0), np.float64(_NODES - 1))
    place = graph("Min", graph.cast(graph("Floor", steps), "int64"), _NODES - 2)
    part = graph("Sub", steps, graph.cast(place, "float64"))
    ends = [
        graph("Gather", table, graph("Add", place, i), axis=0)
        for table in (values, slopes)
        for i in (0, 1)
    ]
    return graph("Exp", _cubic(graph, part, *ends))


def _slopes(x: np.ndarray, bend: float, shape: float) -> np.ndarray:
    """Return the derivatives of the tail's logarithm by w = x^bend, at x."""
    inside = np.maximum(x, np.finfo(float).tiny)
    log_hazard = stats.gamma.logpdf(inside, shape) - stats.gamma.logsf(inside, shape)
    return -np.exp(log_hazard + (1 - bend) * np.log(inside)) / bend


def _cubic(graph: Graph, part: Value, left: Value, right: Value, rise: Value, fall: Value) -> Value:
    """Return Hermite's cubic at a part of a step, of the values and slopes at its ends."""
    # left + part (rise + part (b + part c)) with the values and slopes at part = 1.
    change = graph("Sub", right, left)
    c = graph("Sub", graph("Add", rise, fall), graph("Mul", change, np.float64(2)))
    b = graph("Sub", graph("Sub", change, rise), c)
    inner = graph("Add", b, graph("Mul", part, c))
    return graph("Add", left, graph("Mul", part, graph("Add", rise, graph("Mul", part, inner))))
