import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from fsasd.detectors.scoring import bank
from fsasd.detectors.scoring.bank import Bank


def brute(points, others, k, units=1.0):
    squared = np.square(others[:, None] - points[None]).sum(axis=2) / units
    return np.sort(squared, axis=1)[:, :k]


@given(
    st.integers(1, 60),
    st.integers(1, 40),
    st.floats(-1e6, 1e6),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.integers(0, 2**32 - 1),
)
def test_the_nearest_are_those_of_comparing_all(count, dim, offset, spread, seed):
    """However far from nothing they lie, and however much that costs single precision."""
    rng = np.random.default_rng(seed)
    points = offset + spread * rng.normal(size=(count, dim))
    others = offset + spread * rng.normal(size=(5, dim)) * np.array([[0.1], [1], [1], [3], [100]])
    units = rng.uniform(0.1, 10, count)
    k = int(rng.integers(1, count + 1))
    np.testing.assert_array_equal(Bank(points).nearest(others, k), brute(points, others, k))
    found = Bank(points, units).nearest(others, k)
    np.testing.assert_array_equal(found, brute(points, others, k, units))


def test_distances_equal_scikit_learns():
    rng = np.random.default_rng(0)
    points, others = rng.normal(size=(2000, 64)), rng.normal(size=(50, 64))
    expected = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(points).kneighbors(others)[0]
    found = np.sqrt(Bank(points).nearest(others, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_distances_beyond_single_precision_are_exact():
    """A million and neighbours a thousandth apart: their differences are below its rounding."""
    points = np.array([[1e6], [-1e6], [1e6 + 0.003], [1e6 + 0.001]])
    np.testing.assert_allclose(
        Bank(points).nearest(np.array([[1e6 + 0.002]]), 3), [[1e-6, 1e-6, 4e-6]], rtol=1e-6
    )


def test_points_too_far_apart_for_single_precision_are_compared():
    points = np.array([[0.0], [3e25], [1e25]])
    with np.errstate(over="ignore", invalid="ignore"):
        assert Bank(points).nearest(np.array([[2.9e25]]), 1) == pytest.approx(1e48)


def test_the_same_point_many_times_is_as_near_each_time():
    points = np.tile([[1.0, 2.0]], (1000, 1))
    np.testing.assert_array_equal(Bank(points).nearest(points[:2], 4), 0)


def test_few_points_are_compared_in_double_precision():
    """Otherwise a large bank would be read twice."""
    rng = np.random.default_rng(0)
    points, others = rng.normal(size=(20_000, 128)), rng.normal(size=(20, 128))
    candidates = Bank(points)._candidates(others, 1)
    assert max(len(some) for some in candidates) < 5


def test_a_row_does_not_depend_on_those_beside_it(monkeypatch):
    rng = np.random.default_rng(0)
    points, others = rng.normal(size=(300, 16)), rng.normal(size=(40, 16))
    together = Bank(points).nearest(others, 3)
    monkeypatch.setattr(bank, "_CHUNK", 700)
    np.testing.assert_array_equal(Bank(points).nearest(others, 3), together)
