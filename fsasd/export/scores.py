"""The anomaly score of an exported detector: a float64 number; higher is more anomalous."""

from __future__ import annotations

import functools
import math

import numpy as np

from fsasd.data.log_mel import LogMel
from fsasd.detectors.centres import Centres
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.knn import KNN
from fsasd.detectors.one_of import OneOf
from fsasd.detectors.pooled import Pooled
from fsasd.detectors.scoring.bank import Banks
from fsasd.detectors.scoring.scorers import MixtureScorer, NeighbourScorer
from fsasd.detectors.scoring.time_weighting import TimeWeighting
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.detectors.vector_detector import VectorDetector, VectorsOf
from fsasd.export.graph import Graph, NotExportableError, Value
from fsasd.export.recording import Recording
from fsasd.export.representations import known, represented, weighted, with_networks
from fsasd.export.spectra import log_mel


@functools.singledispatch
def scored(detector: object, recording: Recording) -> Value:
    """Return the score of a recording by a fitted detector.

    Raises:
        NotExportableError: The detector, or a part of it, cannot be exported.
    """
    if written := with_networks(scored, type(detector)):
        return written(detector, recording)
    raise NotExportableError(
        f"the detector {type(detector).__name__} cannot be exported: expected one of "
        f"{known(scored)}"
    )


def fitted_representation(detector: VectorDetector) -> VectorsOf:
    """Return what maps clips to the vectors of a fitted detector."""
    return getattr(detector, "representation_", detector.representation)


def unit(graph: Graph, points: Value) -> Value:
    """Return (..., d) vectors of length 1; those of length 0 stay (``bank.unit``)."""
    squares = graph("ReduceSum", graph("Mul", points, points), [-1], keepdims=1)
    lengths = graph("Sqrt", squares)
    some = graph("Greater", lengths, np.float64(0))
    return graph("Div", points, graph("Where", some, lengths, np.float64(1)))


@scored.register
def twfr_gmm(detector: TWFRGMM, recording: Recording) -> Value:
    """Return -max_k log N_k of the time-weighted log-mel."""
    front_end = LogMel.twfr(detector.max_seconds, detector.sampling_rate)
    weighting = TimeWeighting(front_end, ((float(detector.r),),))
    mixture = detector.mixture
    return scored(MixtureScorer(weighting, mixture.means, mixture.precision_cholesky), recording)


@scored.register
def mixture(scorer: MixtureScorer, recording: Recording) -> Value:
    """Return -max_k log N_k of the time-weighted log-mel."""
    graph, weighting = recording.graph, scorer.representation
    point = weighted(graph, log_mel(weighting.front_end, recording), weighting.groups[-1][-1])
    densities = log_densities(graph, point, scorer.means[0], scorer.precision_cholesky[0])
    return graph("Neg", graph.highest(densities, 0))


def log_densities(graph: Graph, point: Value, means: np.ndarray, factors: np.ndarray) -> Value:
    """Return the (K,) log densities of a (d,) point (``densities.log_density``).

    Args:
        graph: Gets the nodes.
        point: (d,).
        means: (K, d).
        factors: (K, d, d), Cholesky factors of the precisions.
    """
    offsets = graph("Unsqueeze", graph("Sub", point, means), [1])
    whitened = graph("MatMul", offsets, factors)
    squares = graph("ReduceSum", graph("Mul", whitened, whitened), [1, 2], keepdims=0)
    volumes = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    constant = volumes - 0.5 * means.shape[1] * math.log(2 * math.pi)
    return graph("Add", graph("Mul", squares, np.float64(-0.5)), constant)


@scored.register
def knn(detector: KNN, recording: Recording) -> Value:
    """Return the distance to the k-th nearest normal clip."""
    arrays = detector.points_, detector.sizes_, detector.density_
    banks = Banks(*arrays, detector.metric, detector.bands)
    return scored(NeighbourScorer(fitted_representation(detector), banks, detector.k), recording)


@scored.register
def neighbours(scorer: NeighbourScorer, recording: Recording) -> Value:
    """Return the distance to the k-th nearest normal clip, in the nearest bank."""
    graph, banks = recording.graph, scorer.banks
    banks.require(scorer.k)
    # (bands, d / bands)
    parts = graph("Reshape", represented(scorer.representation, recording), [banks.bands, -1])
    if banks.metric == "cosine":
        parts = unit(graph, parts)
    nearest = []
    for of_domain in zip(*banks.of_bands, strict=True):
        squared = squared_distances(graph, parts, np.stack([bank.points for bank in of_domain]))
        squared = graph("Div", squared, np.stack([bank.units for bank in of_domain]))
        nearest.append(kth_lowest(graph, squared, scorer.k))
    lowest = graph("Min", *nearest)
    # For unit vectors, 1 - cos is half of the squared distance.
    cosine = banks.metric == "cosine"
    distances = graph("Div", lowest, np.float64(2)) if cosine else graph("Sqrt", lowest)
    return graph.mean(distances, 0)


def squared_distances(graph: Graph, parts: Value, points: np.ndarray) -> Value:
    """Return the (bands, n) squared distances of (bands, d) to points (bands, n, d).

    The points are held in single precision, around their mean, which moves them by less than the
    rounding of a log-mel spectrogram does.
    """
    centre = points.mean(axis=1, keepdims=True)
    offsets = graph.cast((points - centre).astype(np.float32), "float64")
    here = graph("Sub", graph("Unsqueeze", parts, [1]), centre)
    apart = graph("Sub", here, offsets)
    return graph.total(graph("Mul", apart, apart), 2)


def kth_lowest(graph: Graph, values: Value, k: int) -> Value:
    """Return the k-th lowest of each row: (rows,) of (rows, n)."""
    if k == 1:
        return graph.lowest(values, 1)
    lowest, _ = graph.several("TopK", 2, values, [k], axis=1, largest=0, sorted=1)
    return graph("Gather", lowest, k - 1, axis=1)


@scored.register
def centres(detector: Centres, recording: Recording) -> Value:
    """Return 1 minus the largest product with a reference."""
    graph = recording.graph
    point = unit(graph, represented(fitted_representation(detector), recording))
    references = graph.cast(detector.references_.astype(np.float32), "float64")
    return graph("Sub", np.float64(1), graph.highest(graph("MatMul", references, point), 0))


@scored.register
def one_of(detector: OneOf, recording: Recording) -> Value:
    """Return the score of the detector in use."""
    return scored(detector.detector_, recording)


@scored.register
def pooled(detector: Pooled, recording: Recording) -> Value:
    """Return the mean or the highest of the scores on each network."""
    graph = recording.graph
    scores = graph.stacked([scored(each, recording) for each in detector.detectors_.values()])
    return graph.mean(scores, 0) if detector.pool == "mean" else graph.highest(scores, 0)


@scored.register
def ensemble(detector: Ensemble, recording: Recording) -> Value:
    """Return the combined standardised scores, or ranks."""
    graph = recording.graph
    weights = {name: float((detector.weights or {}).get(name, 1.0)) for name in detector.detectors}
    used = {name: weight for name, weight in weights.items() if weight > 0}
    comparable = []
    for name in used:
        score = scored(detector.members_[name], recording)
        spread = np.asarray(detector.spread_[name], dtype=np.float64)
        if detector.combine == "rank":
            comparable.append(rank(graph, score, detector.normal_[name], spread))
        else:
            above = graph("Sub", score, np.float64(detector.mean_[name]))
            comparable.append(graph("Div", above, spread))
    scores = graph.stacked(comparable)
    if detector.combine in ("max", "min"):
        return graph.highest(scores, 0) if detector.combine == "max" else graph.lowest(scores, 0)
    shares = np.array(list(used.values())) / sum(used.values())
    return graph.total(graph("Mul", scores, shares), 0)


def rank(graph: Graph, score: Value, normal: np.ndarray, spread: np.ndarray) -> Value:
    """Return the share of normal scores, sorted, that is lower, and what lies beyond the highest.

    Between two of them it is interpolated (``numpy.interp``).
    """
    last = len(normal) - 1
    lower = graph.cast(graph("LessOrEqual", normal, score), "int64")
    # The last of those that are not higher; beyond both ends it is not used.
    place = graph("Clip", graph("Sub", graph.total(lower, 0), 1), 0, last)
    left = graph("Gather", normal, place, axis=0)
    right = graph("Gather", normal, graph("Min", graph("Add", place, 1), last), axis=0)
    part = graph("Div", graph("Sub", score, left), graph("Sub", right, left))
    between = graph("Div", graph("Add", graph.cast(place, "float64"), part), np.float64(last))
    below = graph("Less", score, np.float64(normal[0]))
    above = graph("GreaterOrEqual", score, np.float64(normal[-1]))
    share = graph("Where", above, np.float64(1), graph("Where", below, np.float64(0), between))
    beyond = graph("Max", graph("Sub", score, np.float64(normal[-1])), np.float64(0))
    return graph("Add", share, graph("Div", beyond, spread))
