"""Back ends against scikit-learn, SciPy and what is known of the geometry."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.cluster import KMeans
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.back_ends import BACK_ENDS
from fsasd.detectors.bank import unit
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.knn import KNN

SOURCE, TARGET = 30, 6


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return rng.normal(size=(SOURCE + TARGET, 4)).astype(np.float32) + 3


@pytest.fixture
def domains():
    return np.array(["source"] * SOURCE + ["target"] * TARGET)


@pytest.fixture
def others():
    return np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)


def scores(name, points, domains, others, k=1):
    back_end = BACK_ENDS[name]
    return back_end.score(back_end.fit(points, domains, k, 0), others, k)


@pytest.mark.parametrize("name", BACK_ENDS)
def test_only_the_direction_of_an_embedding_counts(name, points, domains, others):
    found = scores(name, points, domains, others)
    louder = scores(name, 5 * points, domains, 0.1 * others)
    np.testing.assert_allclose(louder, found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", BACK_ENDS)
def test_an_embedding_of_length_zero_has_a_score(name, points, domains):
    assert np.isfinite(scores(name, points, domains, np.zeros((1, 4), np.float32))).all()


@pytest.mark.parametrize("name", BACK_ENDS)
def test_the_other_side_of_the_sphere_is_more_anomalous(name, points, domains):
    normal, opposite = scores(name, points, domains, np.stack([points.mean(0), -points.mean(0)]))
    assert opposite > normal


def test_nearest_is_the_distance_to_source_centres_and_target_clips(points, domains, others):
    x = unit(points)
    centres = KMeans(5, n_init=1, random_state=0).fit(x[:SOURCE]).cluster_centers_
    references = np.concatenate([centres, x[SOURCE:]])
    expected = (1 - unit(others) @ references.T).min(axis=1)
    np.testing.assert_allclose(scores("nearest", points, domains, others, k=5), expected)


def test_a_source_domain_of_few_clips_is_kept_whole(points, domains, others):
    expected = cdist(others, points, "cosine").min(axis=1)
    np.testing.assert_allclose(
        scores("nearest", points, domains, others, k=64), expected, rtol=1e-5
    )


@pytest.mark.parametrize("k", [1, 3])
def test_knn_is_the_distance_to_the_kth_nearest_as_in_the_detector_knn(points, domains, others, k):
    found = scores("knn", points, domains, others, k=k)
    expected = np.sort(cdist(others, points, "cosine"), axis=1)[:, k - 1]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    fitted, scored = (
        Clips([Clip(Path(f"{name}{i}"), "fan") for i in range(len(some))])
        for name, some in (("normal", points), ("other", others))
    )
    detector = KNN(lambda clips: points if clips is fitted else others, k=k, metric="cosine")
    np.testing.assert_allclose(detector.fit(fitted).score(scored), found, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 2])
def test_gmm_is_the_highest_density_of_a_component(points, domains, others, k):
    expected = GaussianMixture(k, reg_covar=1e-3, random_state=0).fit(unit(points))
    densities = expected._estimate_log_prob(unit(others))
    np.testing.assert_allclose(
        scores("gmm", points, domains, others, k=k), -densities.max(axis=1), rtol=1e-6
    )


def test_mahalanobis_is_that_of_scipy_to_the_nearer_domain(points, domains, others):
    x = unit(points)
    means = [x[:SOURCE].mean(axis=0), x[SOURCE:].mean(axis=0)]
    centred = np.concatenate([x[:SOURCE] - means[0], x[SOURCE:] - means[1]])
    precision = np.linalg.inv(ledoit_wolf(centred, assume_centered=True)[0])
    expected = [min(mahalanobis(o, m, precision) for m in means) for o in unit(others)]
    np.testing.assert_allclose(scores("mahalanobis", points, domains, others), expected)


def test_one_clip_has_no_covariance(points, domains):
    with pytest.raises(TooFewClipsError, match="a covariance needs at least 2 clips, found 1"):
        BACK_ENDS["mahalanobis"].fit(points[:1], domains[:1], 1, 0)


@pytest.mark.parametrize(("name", "what"), [("knn", "neighbours"), ("gmm", "components")])
def test_fewer_clips_than_k_are_refused(name, what, points, domains):
    with pytest.raises(TooFewClipsError, match=f"k=7 {what} need as many clips, found 3"):
        BACK_ENDS[name].fit(points[:3], domains[:3], 7, 0)
