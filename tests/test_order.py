import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsasd.detectors.scoring.order import canonical_order

NUMBERS = st.sampled_from([-100.0, -1.5, 0.0, 2.0])


@given(arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=NUMBERS), st.data())
def test_points_come_out_in_one_order_whatever_they_were_given_in(points, data):
    order = data.draw(st.permutations(range(len(points))))
    expected = points[canonical_order(points)]
    np.testing.assert_array_equal(points[order][canonical_order(points[order])], expected)


def test_the_first_number_that_differs_counts():
    points = np.array([[[0.0, 1.0]], [[0.0, 3.0]], [[2.0, 0.0]]])
    assert canonical_order(points).tolist() == [2, 1, 0]


def test_points_without_ties_are_in_the_same_order():
    points = np.random.default_rng(0).normal(size=(50, 3))
    expected = sorted(range(50), key=lambda row: points[row].tolist(), reverse=True)
    assert canonical_order(points).tolist() == expected
