"""Synthetic and real clips as points: equal sets are not distinguished, shifted ones are."""

import numpy as np
import pytest

from fsasd.generation.distances import energy_distance, held_out_auc


def points(count, seed, shift=0.0):
    return np.random.default_rng(seed).standard_normal((count, 8)) + shift


def energy(x, y):
    labels = np.repeat([0, 1], [len(x), len(y)])
    return energy_distance(np.vstack([x, y]), labels, np.arange(len(labels)))


def test_energy_distance_is_the_sum_over_pairs():
    x, y = points(4, 1), points(6, 2, 1)
    both = np.vstack([x, y]) / np.vstack([x, y]).std(axis=0)
    apart = np.linalg.norm(both[:, None] - both, axis=-1)
    across = apart[:4, 4:].mean()
    within = [apart[s, s].sum() / (n * (n - 1)) for s, n in ((slice(4), 4), (slice(4, 10), 6))]
    expected = (2 * across - sum(within)) / (2 * across)
    assert energy(x, y)[0] == pytest.approx(expected)


def test_energy_distance_is_unbiased_for_few_clips_and_its_p_values_hold():
    results = np.array([energy(points(15, s), points(15, s + 1000)) for s in range(200)])
    distances, p_values = results.T
    assert abs(distances.mean()) < 3 * distances.std() / np.sqrt(200)
    assert (p_values <= 0.05).sum() < 18
    assert energy(points(15, 0), points(15, 1, 1.0))[1] <= 0.01


def test_energy_distance_of_one_clip_is_unknown_and_of_equal_ones_none():
    assert np.isnan(energy(points(1, 0), points(9, 1))).all()
    assert energy(np.zeros((5, 2)), np.zeros((5, 2))) == (0.0, 1.0)


def auc(x, y, groups=None):
    labels = np.repeat([0, 1], [len(x), len(y)])
    groups = np.arange(len(labels)) if groups is None else groups
    return held_out_auc(np.vstack([x, y]), labels, groups)


@pytest.mark.parametrize("count", [15, 60])
def test_auc_of_equal_sets_is_one_half_though_dimensions_outnumber_clips(count):
    rng = np.random.default_rng(0)
    results = np.array([auc(*rng.standard_normal((2, count, 128))) for _ in range(50)])
    assert results[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    assert (results[:, 1] > 0.75).sum() == 0


def test_auc_tells_far_from_more_normal_than_real():
    x, y = points(40, 1), points(40, 2)
    assert auc(x, y + 3)[1] > 0.9
    assert auc(x, 0.1 * y)[2] < 0.1


def test_copies_of_real_clips_are_as_normal_as_these():
    x = points(30, 1)
    value, low, high = auc(x, x, np.tile(np.arange(30), 2))
    assert value == pytest.approx(0.5)
    assert low < 0.5 < high


def test_one_real_clip_leaves_the_auc_unknown():
    assert np.isnan(auc(points(1, 1), points(9, 2))).all()
