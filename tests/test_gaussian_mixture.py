import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import oas
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from fsasd.detectors.scoring.gaussian_mixture import (
    CLIPS_PER_BIN,
    fit_gaussian_mixtures,
    suitable_covariance,
)

GOLDEN = Path(__file__).parents[2] / "shared" / "reference" / "golden" / "twfr_gmm.npz"


@pytest.fixture(autouse=True, scope="module")
def _one_thread_for_the_oracle():
    with threadpool_limits(1):
        yield


def clusters(rng, n_points, n_clips, n_bins, n_clusters=3, distance=2.0):
    centres = rng.normal(size=(n_clusters, n_bins)) * distance
    mixing = rng.normal(size=(n_points, n_bins, n_bins)) / np.sqrt(n_bins)
    noise = rng.normal(size=(n_clips, n_bins))
    return (centres[rng.integers(n_clusters, size=n_clips)] + noise) @ mixing - 10


def twfr_like(rng, n_points=6, n_clips=400, n_bins=20, n_frames=30):
    """Rows like TWFR's: sorted frames of correlated log-mels, more and more evenly weighted."""
    colour = np.cumsum(rng.normal(size=(n_bins, n_bins)), axis=0) / 4
    level = rng.normal(size=(n_clips, 1, n_bins)) @ colour + 8 * rng.integers(
        2, size=(n_clips, 1, 1)
    )
    frames = -np.sort(-(level + rng.normal(size=(n_clips, n_frames, n_bins))), axis=1)
    weights = np.linspace(0, 1.1, n_points)[:, None] ** np.arange(n_frames)
    return np.einsum("gt,ntd->gnd", weights / weights.sum(axis=1, keepdims=True), frames)


def sklearn_fit(x, n_components, labels=None, *, seed=0, **settings):
    model = GaussianMixture(
        n_components, **({"tol": 1e-6, "reg_covar": 1e-6} | settings), random_state=seed
    )
    if labels is not None:
        responsibility = np.eye(n_components)[labels]
        model._initialize_parameters = lambda X, random_state, xp: model._initialize(
            X, responsibility
        )
    return model.fit(x)


def assert_equals_sklearn(mixtures, point, model, x):
    np.testing.assert_allclose(mixtures.weights[point], model.weights_, rtol=1e-8)
    np.testing.assert_allclose(mixtures.means[point], model.means_, rtol=1e-8, atol=1e-10)
    factor = mixtures.precision_cholesky[point]
    np.testing.assert_array_equal(factor, np.triu(factor))
    covariance = np.linalg.inv(factor @ factor.transpose(0, 2, 1))
    np.testing.assert_allclose(covariance, model.covariances_, rtol=1e-8, atol=1e-8)
    assert mixtures.n_iter[point] == model.n_iter_
    assert mixtures.converged[point] == model.converged_
    assert mixtures.lower_bound[point] == pytest.approx(model.lower_bound_, rel=1e-9)
    density = mixtures[point].component_log_density(x[None])[0]
    log_likelihood = np.logaddexp.reduce(density + np.log(mixtures.weights[point]), axis=1)
    np.testing.assert_allclose(log_likelihood, model.score_samples(x), rtol=1e-8)


@pytest.mark.parametrize("n_components", [1, 2, 4, 8])
def test_equals_sklearn_from_kmeans_on_twfr_like_representations(n_components):
    X = twfr_like(np.random.default_rng(n_components))
    mixtures = fit_gaussian_mixtures(X, n_components, seed=3)
    for point, x in enumerate(X):
        assert_equals_sklearn(mixtures, point, sklearn_fit(x, n_components, seed=3), x)


@pytest.mark.parametrize("per_point", [False, True])
def test_equals_sklearn_from_given_labels(per_point):
    rng = np.random.default_rng(5)
    X = clusters(rng, n_points=4, n_clips=150, n_bins=7, distance=0.5)
    start = rng.integers(3, size=X.shape[:2] if per_point else X.shape[1])
    mixtures = fit_gaussian_mixtures(X, 3, start=start, tol=1e-3)
    labels = np.broadcast_to(start, X.shape[:2])
    for point, x in enumerate(X):
        assert_equals_sklearn(mixtures, point, sklearn_fit(x, 3, labels[point], tol=1e-3), x)


@given(
    seed=st.integers(0, 1000),
    n_components=st.integers(1, 4),
    n_bins=st.integers(1, 9),
    reg_covar=st.sampled_from([1e-6, 1e-2]),
)
@settings(max_examples=15, deadline=None)
def test_equals_sklearn_on_any_shape(seed, n_components, n_bins, reg_covar):
    X = clusters(np.random.default_rng(seed), n_points=2, n_clips=80, n_bins=n_bins)
    fitted = {"tol": 1e-3, "reg_covar": reg_covar, "max_iter": 300}
    mixtures = fit_gaussian_mixtures(X, n_components, seed=seed, **fitted)
    for point, x in enumerate(X):
        model = sklearn_fit(x, n_components, seed=seed, **fitted)
        assert_equals_sklearn(mixtures, point, model, x)


def test_component_without_clips_equals_sklearn():
    x = np.random.default_rng(0).normal(size=(60, 3)) + 5
    labels = np.repeat([0, 2], 30)
    mixtures = fit_gaussian_mixtures(x[None], 3, start=labels)
    assert_equals_sklearn(mixtures, 0, sklearn_fit(x, 3, labels), x)
    assert mixtures.weights[0, 1] < 1e-15
    np.testing.assert_array_equal(mixtures.means[0, 1], 0)


def test_grid_points_do_not_depend_on_each_other():
    rng = np.random.default_rng(1)
    easy = clusters(rng, n_points=1, n_clips=200, n_bins=5, n_clusters=2, distance=9.0)
    hard = clusters(rng, n_points=3, n_clips=200, n_bins=5, distance=0.3)
    X = np.concatenate([easy, hard])
    together = fit_gaussian_mixtures(X, 2, tol=1e-3)
    assert together.n_iter[0] < together.n_iter[1:].min()
    for point in range(len(X)):
        alone = fit_gaussian_mixtures(X[point : point + 1], 2, tol=1e-3)
        np.testing.assert_array_equal(
            together.precision_cholesky[point], alone.precision_cholesky[0]
        )
        assert together.n_iter[point] == alone.n_iter[0]


def test_indexing_keeps_the_grid_axis():
    X = clusters(np.random.default_rng(2), n_points=4, n_clips=60, n_bins=3)
    mixtures = fit_gaussian_mixtures(X, 2, tol=1e-2)
    density = mixtures.component_log_density(X[:, :7])
    assert density.shape == (4, 7, 2)
    assert len(mixtures[1:3]) == 2
    assert [part.means.shape for part in mixtures] == [(1, 2, 3)] * 4
    np.testing.assert_array_equal(mixtures[-1].component_log_density(X[-1:, :7]), density[-1:])
    with pytest.raises(IndexError, match="out of bounds"):
        mixtures[4]


def test_parameters_are_counted_as_in_the_paper():
    X = np.random.default_rng(0).normal(size=(1, 40, 128))
    labels = np.arange(40) % 2
    assert fit_gaussian_mixtures(X, 2, start=labels).n_parameters == 33_026


@pytest.mark.parametrize("n_components", [1, 2])
def test_scores_equal_the_original_implementation(n_components):
    if not GOLDEN.exists():
        pytest.skip(f"golden values are not at {GOLDEN}")
    golden = np.load(GOLDEN)
    machines = sorted({key.split("/")[0] for key in golden})
    for machine in machines:
        grid = [key.split("/")[2] for key in golden if key.startswith(f"{machine}/train/r=")]
        assert len(grid) == 6
        train = np.stack([golden[f"{machine}/train/{r}"] for r in grid])
        test = np.stack([golden[f"{machine}/test/{r}"] for r in grid])
        expected = [golden[f"{machine}/score/{r}/k={n_components}"] for r in grid]
        mixtures = fit_gaussian_mixtures(train, n_components)
        score = -mixtures.component_log_density(test).max(axis=-1)
        np.testing.assert_allclose(score, expected, rtol=1e-6)


def test_shrunk_covariance_of_one_component_is_the_oracle_approximating_one():
    X = clusters(np.random.default_rng(3), n_points=2, n_clips=25, n_bins=40)
    mixtures = fit_gaussian_mixtures(X, 1, covariance="shrunk", reg_covar=0)
    for x, factor in zip(X, mixtures.precision_cholesky[:, 0], strict=True):
        covariance = np.linalg.inv(factor @ factor.T)
        np.testing.assert_allclose(covariance, oas(x)[0], rtol=1e-9, atol=1e-9)


def test_shrunk_covariance_is_taken_in_each_component():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 80)) @ rng.normal(size=(80, 80)) / 9
    labels = np.repeat([0, 1], [20, 40])
    x[labels == 1] += 50
    mixtures = fit_gaussian_mixtures(x[None], 2, start=labels, covariance="shrunk", reg_covar=0)
    for k in range(2):
        factor = mixtures.precision_cholesky[0, k]
        covariance = np.linalg.inv(factor @ factor.T)
        np.testing.assert_allclose(covariance, oas(x[labels == k])[0], rtol=1e-9, atol=1e-9)


def test_shrunk_covariance_of_equal_clips_is_the_regularisation():
    x = np.ones((1, 5, 3))
    mixtures = fit_gaussian_mixtures(x, 1, covariance="shrunk", reg_covar=0.25)
    np.testing.assert_allclose(mixtures.precision_cholesky[0, 0], 2 * np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([1, 0], "full"), ([0, 1], "full"), ([0, 0], "full"), ([-1, 900], "shrunk")],
)
def test_a_covariance_is_full_where_every_component_has_clips_enough(counts, expected):
    n_bins = 20
    labels = np.repeat([0, 1], CLIPS_PER_BIN * n_bins + np.array(counts))
    np.random.default_rng(0).shuffle(labels)
    assert suitable_covariance(labels, n_bins) == expected


def test_mixtures_say_whether_they_are_shrunk():
    X = np.random.default_rng(0).normal(size=(2, 30, 3))
    assert fit_gaussian_mixtures(X, 2, covariance="shrunk").shrunk.all()
    full = fit_gaussian_mixtures(X, 2)
    assert not full[1].shrunk.any()
    assert full.n_parameters == fit_gaussian_mixtures(X, 2, covariance="shrunk").n_parameters


def test_too_few_iterations_are_reported():
    X = clusters(np.random.default_rng(6), n_points=2, n_clips=100, n_bins=4, distance=0.3)
    with pytest.warns(
        ConvergenceWarning, match=r"2 of 2 grid points .* in 2 iterations \(first: 0"
    ):
        mixtures = fit_gaussian_mixtures(X, 3, max_iter=2)
    assert not mixtures.converged.any()
    np.testing.assert_array_equal(mixtures.n_iter, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = sklearn_fit(X[1], 3, max_iter=2)
    assert_equals_sklearn(mixtures, 1, model, X[1])


def nan_at(point, clip):
    X = np.zeros((3, 4, 2))
    X[point, clip, 1] = np.nan
    return X


@pytest.mark.parametrize(
    ("X", "arguments", "message"),
    [
        (np.zeros((9, 2)), {}, r"shape \(grid, clips, bins\), got \(9, 2\)"),
        (np.zeros((0, 9, 2)), {}, r"non-empty X .* got \(0, 9, 2\)"),
        (nan_at(2, 1), {}, r"not finite at grid point 2, clip 1 \(1 such rows\)"),
        (np.zeros((3, 1, 2)), {}, r"n_components=2 and 1 clips"),
        (np.zeros((3, 4, 2)), {"n_components": 0}, r"n_components=0 and 4 clips"),
        (np.zeros((3, 4, 2)), {"max_iter": 0}, r"max_iter >= 1, got 0"),
        (np.zeros((3, 4, 2)), {"covariance": "diag"}, r"'full' or 'shrunk', got 'diag'"),
        (np.zeros((3, 4, 2)), {"start": [0, 1]}, r"shape \(4,\) or \(3, 4\), got \(2,\)"),
        (np.zeros((3, 4, 2)), {"start": [0, 1, 2, 0]}, r"labels in 0..1, got \[2\]"),
        (
            np.stack([np.eye(4), np.zeros((4, 4))]),
            {"n_components": 1, "start": [0, 0, 0, 0], "reg_covar": 0},
            r"grid point [01]: .* component 0 is not positive definite \(4 clips, 4 mel bins\); "
            r"raise reg_covar \(now 0\).*'shrunk'",
        ),
    ],
)
def test_bad_input_is_named(X, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_gaussian_mixtures(X, **({"n_components": 2} | arguments))


def test_scoring_names_a_different_grid():
    mixtures = fit_gaussian_mixtures(np.random.default_rng(0).normal(size=(2, 30, 3)), 1)
    with pytest.raises(ValueError, match=r"shape \(2, clips, 3\) as fitted, got \(2, 5, 4\)"):
        mixtures.component_log_density(np.zeros((2, 5, 4)))
    with pytest.raises(ValueError, match=r"grid point 2, clip 1"):
        mixtures.component_log_density(nan_at(2, 1))


def test_em_after_an_earlier_point_starts_from_its_responsibilities():
    """Blobs that move: labels that are right at the first point say nothing of the last."""
    rng = np.random.default_rng(0)
    side = np.repeat([-4.0, 4.0], 40)[:, None]
    noise = rng.normal(size=(80, 2))
    X = np.stack([side * (np.cos(angle), np.sin(angle)) + noise for angle in (0.0, 0.6, 1.2)])
    wrong = rng.integers(2, size=80)
    start = np.stack([(side[:, 0] > 0).astype(int), wrong, wrong])
    followed = fit_gaussian_mixtures(X, 2, start=start, after=[None, 0, 1])
    left, right = followed.means.transpose(1, 0, 2)
    expected = 4 * np.array([[np.cos(angle), np.sin(angle)] for angle in (0.0, 0.6, 1.2)])
    np.testing.assert_allclose(right, expected, atol=0.5)
    np.testing.assert_allclose(left, -expected, atol=0.5)
    assert (followed.n_iter < fit_gaussian_mixtures(X, 2, start=start).n_iter)[1:].all()


@pytest.mark.parametrize("after", [[None], [None, 1], [0, None], [None, -1]])
def test_a_point_follows_only_earlier_ones(after):
    X = np.random.default_rng(0).normal(size=(2, 30, 3))
    with pytest.raises(ValueError, match="expected after to name an earlier grid point or None"):
        fit_gaussian_mixtures(X, 2, after=after)


def test_a_point_that_cannot_be_fitted_is_named_and_not_its_followers():
    X = np.random.default_rng(0).normal(size=(3, 30, 3))
    X[1] = X[1, :1]
    with pytest.raises(ValueError, match="grid point 1: the covariance of component 0"):
        fit_gaussian_mixtures(X, 1, reg_covar=0, after=[None, 0, 1])
