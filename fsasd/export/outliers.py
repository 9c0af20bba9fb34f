"""The outlier and density models of scikit-learn, exported: their scores of a (d,) point."""

from __future__ import annotations

import functools
import math

import numpy as np
from sklearn.covariance import EllipticEnvelope, EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM
from sklearn.tree import BaseDecisionTree

from fsasd.detectors.outliers import ComponentMixture, Outliers, PCAResidual
from fsasd.export.graph import Graph, NotExportableError, Value
from fsasd.export.recording import Recording
from fsasd.export.representations import known, represented
from fsasd.export.scores import (
    fitted_representation,
    log_densities,
    scored,
    squared_distances,
    unit,
)


@scored.register
def outliers(detector: Outliers, recording: Recording) -> Value:
    """Return the lowest score of a domain's model."""
    graph = recording.graph
    point = represented(fitted_representation(detector), recording)
    if detector.unit:
        point = unit(graph, point)
    if detector.standardise:
        point = graph("Div", graph("Sub", point, detector._scaler.mean_), detector._scaler.scale_)
    scores = [
        outlier_score(model, graph, graph("Sub", point, np.asarray(centre, dtype=np.float64)))
        for model, centre in detector._models
    ]
    return graph("Min", *scores)


@functools.singledispatch
def outlier_score(model: object, graph: Graph, point: Value) -> Value:
    """Return the score of a (d,) point by a fitted model; higher is more anomalous.

    Raises:
        NotExportableError: The model, or its setting, cannot be exported.
    """
    raise NotExportableError(
        f"the model {type(model).__name__} cannot be exported: expected one of "
        f"{known(outlier_score)}"
    )


@outlier_score.register
def covariance(model: EmpiricalCovariance, graph: Graph, point: Value) -> Value:
    """Return the Mahalanobis distance; of ``EllipticEnvelope`` its square."""
    offset = graph("Sub", point, np.asarray(model.location_, dtype=np.float64))
    weighted = graph("MatMul", offset, np.asarray(model.get_precision(), dtype=np.float64))
    squared = graph.total(graph("Mul", weighted, offset), 0)
    return squared if isinstance(model, EllipticEnvelope) else graph("Sqrt", squared)


@outlier_score.register
def mixture(model: GaussianMixture, graph: Graph, point: Value) -> Value:
    """Return the negated log density, or that of the best component."""
    densities = log_densities(graph, point, model.means_, _factors(model))
    if isinstance(model, ComponentMixture):
        return graph("Neg", graph.highest(densities, 0))
    joint = graph("Add", densities, np.log(model.weights_))
    return graph("Neg", graph("ReduceLogSumExp", joint, [0], keepdims=0))


def _factors(model: GaussianMixture) -> np.ndarray:
    """Return the (K, d, d) Cholesky factors of a mixture's precisions."""
    n_components, size = model.means_.shape
    factors = model.precisions_cholesky_
    if model.covariance_type == "tied":
        return np.broadcast_to(factors, (n_components, size, size))
    if model.covariance_type == "spherical":
        return factors[:, None, None] * np.eye(size)
    return factors[:, None, :] * np.eye(size) if factors.ndim == 2 else factors


@outlier_score.register
def residual(model: PCAResidual, graph: Graph, point: Value) -> Value:
    """Return the norm of what the components leave of a point."""
    components, deviation = model.components_, np.sqrt(model.explained_variance_)
    offset = graph("Sub", point, model.mean_)
    parts = graph("MatMul", offset, components.T)
    back = components
    if model.whiten:
        parts = graph("Div", parts, np.maximum(deviation, np.finfo(deviation.dtype).eps))
        back = deviation[:, None] * components
    left = graph("Sub", offset, graph("MatMul", parts, back))
    return graph("Sqrt", graph.total(graph("Mul", left, left), 0))


@outlier_score.register
def local_outlier_factor(model: LocalOutlierFactor, graph: Graph, point: Value) -> Value:
    """Return the neighbours' mean local density, divided by the point's."""
    if model.metric not in ("minkowski", "euclidean") or model.p != 2:
        raise NotExportableError(
            f"LocalOutlierFactor with metric={model.metric!r}, p={model.p} cannot be exported: "
            "expected Euclidean distances (minkowski, p=2)"
        )
    count = model.n_neighbors_
    points = np.asarray(model._fit_X, dtype=np.float64)
    squared = squared_distances(graph, graph("Unsqueeze", point, [0]), points[None])
    distances = graph("Sqrt", graph("Squeeze", squared, [0]))
    nearest, which = graph.several("TopK", 2, distances, [count], axis=0, largest=0, sorted=1)
    reach = graph("Gather", model._distances_fit_X_[:, count - 1], which, axis=0)
    within = graph.mean(graph("Max", nearest, reach), 0)
    # As in scikit-learn, whose points that are all alike have no infinite density.
    density = graph("Div", np.float64(1), graph("Add", within, np.float64(1e-10)))
    neighbours = graph("Gather", np.asarray(model._lrd, dtype=np.float64), which, axis=0)
    return graph.mean(graph("Div", neighbours, density), 0)


@outlier_score.register
def one_class_svm(model: OneClassSVM, graph: Graph, point: Value) -> Value:
    """Return the negated sum of kernels of the support vectors."""
    if model.kernel != "rbf":
        raise NotExportableError(
            f"OneClassSVM with kernel={model.kernel!r} cannot be exported: expected rbf"
        )
    row = graph("Unsqueeze", point, [0])
    squared = graph("Squeeze", squared_distances(graph, row, model.support_vectors_[None]), [0])
    kernels = graph("Exp", graph("Mul", squared, np.float64(-model._gamma)))
    total = graph.total(graph("Mul", kernels, model.dual_coef_[0]), 0)
    return graph("Neg", graph("Add", total, np.float64(model.intercept_[0] + model.offset_[0])))


@outlier_score.register
def isolation_forest(model: IsolationForest, graph: Graph, point: Value) -> Value:
    """Return 2^-(mean depth / expected depth), by the trees of ``ai.onnx.ml``."""
    trees: dict[str, list[float]] = {}
    for number, (tree, columns) in enumerate(
        zip(model.estimators_, model.estimators_features_, strict=True)
    ):
        for name, values in _tree(number, tree, columns).items():
            trees.setdefault(name, []).extend(values)
    graph.domains["ai.onnx.ml"] = 3
    row = graph("Unsqueeze", graph.cast(point, "float32"), [0])
    depths = graph(
        "TreeEnsembleRegressor", row, domain="ai.onnx.ml", n_targets=1, aggregate_function="SUM",
        **trees,
    )  # fmt: skip
    depth = graph("Squeeze", graph.cast(depths, "float64"), [0, 1])
    expected = len(model.estimators_) * _path_length(model._max_samples)
    return graph("Pow", np.float64(2), graph("Div", depth, np.float64(-expected)))


def _tree(number: int, estimator: BaseDecisionTree, columns: np.ndarray) -> dict[str, list]:
    """Return a tree as attributes of ``TreeEnsembleRegressor``; a leaf's weight is its depth."""
    tree = estimator.tree_
    leaf = tree.children_left < 0
    depth = np.zeros(tree.node_count)
    for node in np.flatnonzero(~leaf):
        # Children have higher numbers than their parents.
        depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
    # Points are compared in single precision: the largest such number that is not above.
    thresholds = tree.threshold.astype(np.float32)
    above = thresholds > tree.threshold
    thresholds[above] = np.nextafter(thresholds[above], np.float32(-np.inf))
    ends = np.flatnonzero(leaf)
    weights = [depth[node] + _path_length(tree.n_node_samples[node]) for node in ends]
    return {
        "nodes_treeids": [number] * tree.node_count,
        "nodes_nodeids": list(range(tree.node_count)),
        "nodes_featureids": np.where(leaf, 0, columns[tree.feature]).tolist(),
        "nodes_values": np.where(leaf, 0, thresholds).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.where(leaf, 0, tree.children_left).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, tree.children_right).tolist(),
        "nodes_missing_value_tracks_true": [0] * tree.node_count,
        "target_treeids": [number] * len(ends),
        "target_nodeids": ends.tolist(),
        "target_ids": [0] * len(ends),
        "target_weights": weights,
    }


def _path_length(samples: int) -> float:
    """Return the mean depth of an isolation tree of so many samples (Liu et al., 2008, eq. 1)."""
    if samples <= 1:
        return 0.0
    if samples == 2:
        return 1.0
    return 2 * (math.log(samples - 1) + np.euler_gamma) - 2 * (samples - 1) / samples
