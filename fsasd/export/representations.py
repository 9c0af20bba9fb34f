"""What represents a clip to an exported detector: (d,) float64."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fsasd.data.log_mel import LogMel
from fsasd.detectors.representations import NearFar, Patches, TimeStatistics, TimeWeighted
from fsasd.export.graph import Graph, NotExportableError, Value
from fsasd.export.recording import Channel, Recording
from fsasd.export.spectra import log_mel


@functools.singledispatch
def represented(representation: object, recording: Recording) -> Value:
    """Return the (d,) float64 vector of a recording.

    Raises:
        NotExportableError: The representation, or its front end, cannot be exported.
    """
    if written := with_networks(represented, type(representation)):
        return written(representation, recording)
    raise NotExportableError(
        f"the representation {type(representation).__name__} cannot be exported: expected one of "
        f"{known(represented)}"
    )


def with_networks(function: Any, kind: type) -> Callable[..., Value] | None:
    """Return what a generic function does with a class, once those with networks are known to it.

    They are of torch, whose import takes longer than to write any other detector.
    """
    importlib.import_module("fsasd.export.learned")
    writer = function.dispatch(kind)
    return None if writer is function.dispatch(object) else writer


def known(function: Any) -> str:
    """Return the classes that a generic function writes, for a message."""
    names = (kind.__name__ for kind in function.registry if kind is not object)
    return ", ".join(sorted(names))


@functools.singledispatch
def features(front_end: object, recording: Recording) -> Value:
    """Return the (bands, frames) float32 features of a recording.

    Raises:
        NotExportableError: The front end cannot be exported.
    """
    raise NotExportableError(
        f"the front end {type(front_end).__name__} cannot be exported: expected {known(features)}"
    )


features.register(LogMel, log_mel)


@represented.register
def time_statistics(representation: TimeStatistics, recording: Recording) -> Value:
    """Return statistics of each band over time."""
    graph = recording.graph
    of_bands = graph.cast(features(representation.front_end, recording), "float64")
    chosen = [_STATISTICS[name](graph, of_bands) for name in representation.pool_by.split("+")]
    return graph("Concat", *chosen, axis=0)


def _deviation(graph: Graph, of_bands: Value) -> Value:
    centred = graph("Sub", of_bands, graph("ReduceMean", of_bands, [1], keepdims=1))
    return graph("Sqrt", graph.mean(graph("Mul", centred, centred), 1))


_STATISTICS: dict[str, Callable[[Graph, Value], Value]] = {
    "mean": lambda graph, of_bands: graph.mean(of_bands, 1),
    "max": lambda graph, of_bands: graph.highest(of_bands, 1),
    "min": lambda graph, of_bands: graph.lowest(of_bands, 1),
    "std": _deviation,
}


@represented.register
def time_weighted(representation: TimeWeighted, recording: Recording) -> Value:
    """Return each band's frames in descending order, weighted by r^n."""
    return weighted(
        recording.graph, features(representation.front_end, recording), representation.r
    )


def weighted(graph: Graph, of_bands: Value, r: float) -> Value:
    """Return the (bands,) sorted and weighted frames of (bands, frames) (``time_weighting.twfr``).

    Without an order for r = 0, their maximum, and r = 1, their mean.
    """
    of_bands = graph.cast(of_bands, "float64")
    if r in (0.0, 1.0):
        return graph.mean(of_bands, 1) if r else graph.highest(of_bands, 1)
    count = graph.size(of_bands, 1)
    descending, _ = graph.several("TopK", 2, of_bands, count, axis=1, largest=1, sorted=1)
    number = graph("Range", 0, graph("Squeeze", count, [0]), 1)
    powers = graph("Pow", np.float64(r), graph.cast(number, "float64"))
    weights = graph("Div", powers, graph.total(powers, 0))
    return graph("MatMul", descending, weights)


@represented.register
def patches(representation: Patches, recording: Recording) -> Value:
    """Return the spectrogram averaged in a grid of patches, as torch's adaptive pooling does."""
    graph = recording.graph
    of_bands = graph.cast(features(representation.front_end, recording), "float64")
    over_time = _averages(graph, graph.size(of_bands, 1), representation.segments)
    over_bands = _averages(graph, graph.size(of_bands, 0), representation.bands)
    grid = graph("MatMul", graph("MatMul", over_bands, of_bands), graph("Transpose", over_time))
    return graph("Reshape", grid, [-1])


def _averages(graph: Graph, count: Value, parts: int) -> Value:
    """Return the (parts, count) weights of the averages over equal, overlapping parts."""
    number = np.arange(parts)[:, None]
    start = graph("Div", graph("Mul", number, count), [parts])
    stop = graph("Div", graph("Add", graph("Mul", number + 1, count), [parts - 1]), [parts])
    place = graph("Range", 0, graph("Squeeze", count, [0]), 1)
    within = graph("And", graph("GreaterOrEqual", place, start), graph("Less", place, stop))
    return graph(
        "Div", graph.cast(within, "float64"), graph.cast(graph("Sub", stop, start), "float64")
    )


@represented.register
def near_far(representation: NearFar, recording: Recording) -> Value:
    """Return the representations of the near and of the far channel, one after the other."""
    channels = (
        represented(representation.representation, Channel(recording, number)) for number in (0, 1)
    )
    return recording.graph("Concat", *channels, axis=0)
