"""Scores of vectors against scikit-learn, SciPy and what is known of the geometry."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf, ledoit_wolf
from sklearn.mixture import GaussianMixture

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.centres import Centres
from fsasd.detectors.knn import KNN
from fsasd.detectors.outliers import ComponentMixture, Outliers, PCAResidual
from fsasd.detectors.scoring.bank import unit
from fsasd.detectors.scoring.order import canonical_order

SOURCE, TARGET = 30, 6
DETECTORS = {
    "centres": Centres(k=5),
    "knn": KNN(metric="cosine"),
    "gmm": Outliers(ComponentMixture(1, reg_covar=1e-3), unit=True),
    "mahalanobis": Outliers(LedoitWolf(), domains="centred", unit=True),
}
"""Detectors that score the direction of a vector."""


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(SOURCE + TARGET, 4)) + 3
    # Detectors draw points in this order; domains are those of the rows after it.
    return points[canonical_order(points)]


@pytest.fixture
def others():
    return np.random.default_rng(1).normal(size=(9, 4))


def scores(detector, points, others, source=SOURCE):
    """Scores of others by a detector that is fitted to points, first those of the source domain."""
    domains = ["source" if i < source else "target" for i in range(len(points))]
    normal = Clips([Clip(Path(f"n{i}"), "fan", domain=d) for i, d in enumerate(domains)])
    asked = Clips([Clip(Path(f"o{i}"), "fan") for i in range(len(others))])
    one = clone(detector).set_params(representation=lambda c: points if c is normal else others)
    return one.fit(normal).score(asked)


@pytest.mark.parametrize("name", DETECTORS)
def test_only_the_direction_of_a_vector_counts(name, points, others):
    found = scores(DETECTORS[name], points, others)
    louder = scores(DETECTORS[name], 5 * points, 0.1 * others)
    np.testing.assert_allclose(louder, found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_vector_of_length_zero_has_a_score(name, points):
    assert np.isfinite(scores(DETECTORS[name], points, np.zeros((1, 4)))).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_the_other_side_of_the_sphere_is_more_anomalous(name, points):
    normal, opposite = scores(DETECTORS[name], points, np.stack([points.mean(0), -points.mean(0)]))
    assert opposite > normal


def test_centres_are_those_of_the_source_domain_beside_all_target_clips(points, others):
    x = unit(points)
    centres = KMeans(5, n_init=1, random_state=0).fit(x[:SOURCE]).cluster_centers_
    references = np.concatenate([centres, x[SOURCE:]])
    expected = (1 - unit(others) @ references.T).min(axis=1)
    np.testing.assert_allclose(scores(Centres(k=5), points, others), expected)


def test_a_source_domain_of_few_clips_is_kept_whole(points, others):
    expected = cdist(others, points, "cosine").min(axis=1)
    np.testing.assert_allclose(scores(Centres(k=64), points, others), expected, rtol=1e-5)


def test_copies_of_a_few_source_clips_are_not_averaged(points, others):
    """k-means would warn that it found fewer clusters than it was asked for."""
    few, target = points[:3], points[SOURCE:]
    once = scores(Centres(k=5), np.concatenate([few, target]), others, source=3)
    twice = scores(Centres(k=5), np.concatenate([few, few, target]), others, source=6)
    np.testing.assert_allclose(twice, once, rtol=1e-9)


def test_centres_are_at_least_one(points, others):
    with pytest.raises(ValueError, match="k: expected 1 or more, found 0"):
        scores(Centres(k=0), points, others)


@pytest.mark.parametrize("k", [1, 2])
def test_a_component_mixture_scores_by_the_highest_density_of_a_component(points, others, k):
    expected = GaussianMixture(k, reg_covar=1e-3, random_state=0).fit(unit(points))
    densities = expected._estimate_log_prob(unit(others))
    detector = Outliers(ComponentMixture(k, reg_covar=1e-3), unit=True)
    found = scores(detector, points, others)
    np.testing.assert_allclose(found, -densities.max(axis=1), rtol=1e-6)


def test_centred_mahalanobis_is_that_of_scipy_to_the_nearer_domain(points, others):
    x = unit(points)
    means = [x[:SOURCE].mean(axis=0), x[SOURCE:].mean(axis=0)]
    centred = np.concatenate([x[:SOURCE] - means[0], x[SOURCE:] - means[1]])
    precision = np.linalg.inv(ledoit_wolf(centred, assume_centered=True)[0])
    expected = [min(mahalanobis(o, m, precision) for m in means) for o in unit(others)]
    np.testing.assert_allclose(scores(DETECTORS["mahalanobis"], points, others), expected)


def test_any_model_may_be_centred(points, others):
    means = points[:SOURCE].mean(axis=0), points[SOURCE:].mean(axis=0)
    centred = np.concatenate([points[:SOURCE] - means[0], points[SOURCE:] - means[1]])
    model = GaussianMixture(1).fit(centred)
    expected = np.min([-model.score_samples(others - mean) for mean in means], axis=0)
    found = scores(Outliers(GaussianMixture(1), domains="centred"), points, others)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_clip_has_no_covariance(points, others):
    with pytest.raises(TooFewClipsError, match="fitted to at least 2 different clips, found 1"):
        scores(DETECTORS["mahalanobis"], points[:1], others)


def test_fewer_clips_than_components_are_refused(points, others):
    detector = Outliers(ComponentMixture(7), unit=True)
    with pytest.raises(TooFewClipsError, match="is fitted to at least 7 different clips, found 3"):
        scores(detector, points[:3], others)


# What principal components leave


@pytest.mark.parametrize("count", [1, 3])
def test_the_residual_is_what_the_leading_directions_leave(points, others, count):
    detector = Outliers(PCAResidual(count))
    centred = others - points.mean(axis=0)
    _, _, directions = np.linalg.svd(points - points.mean(axis=0))
    rest = centred @ directions[count:].T
    expected = np.linalg.norm(rest, axis=1)
    np.testing.assert_allclose(scores(detector, points, others), expected, rtol=1e-9)


# Bands of their own


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_each_band_has_its_own_neighbour_and_distances_are_averaged(points, others, metric):
    expected = np.mean(
        [cdist(others[:, part], points[:, part], metric).min(axis=1)
         for part in (slice(2), slice(2, 4))], axis=0,
    )  # fmt: skip
    result = scores(KNN(metric=metric, bands=2), points, others)
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_the_density_is_that_of_the_band(points, others):
    result = scores(KNN(metric="cosine", bands=2, density=3), points, others)
    apart = [
        scores(KNN(metric="cosine", density=3), points[:, part], others[:, part])
        for part in (slice(2), slice(2, 4))
    ]
    np.testing.assert_allclose(result, np.mean(apart, axis=0), rtol=1e-9)


def test_clips_that_each_match_in_one_band_explain_a_clip_together():
    """The left half of one normal clip and the right half of another: nothing new in any band."""
    points = np.array([[1.0, 0, 1, 0], [0.0, 1, 0, 1]])
    mixed = np.array([[1.0, 0, 0, 1]])
    assert scores(KNN(metric="cosine", bands=2), points, mixed, source=2) == pytest.approx(0)
    assert scores(KNN(metric="cosine"), points, mixed, source=2) == pytest.approx(0.5)


@pytest.mark.parametrize("bands", [0, 3])
def test_bands_that_do_not_divide_the_representation_are_refused(points, others, bands):
    with pytest.raises(ValueError, match=rf"bands={bands}: expected a divisor of the 4 dimensions"):
        scores(KNN(bands=bands), points, others)
