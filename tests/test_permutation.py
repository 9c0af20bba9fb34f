import numpy as np

from fsasd.evaluation.permutation import PERMUTATIONS, permuted


def test_permutations_keep_groups_and_numbers():
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    groups = np.array([0, 0, 1, 2, 3, 4, 4, 4])
    drawn = permuted(labels, groups)
    assert drawn.shape == (1 + PERMUTATIONS, 8)
    assert (drawn[0] == labels).all()
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 5:].sum(axis=1) == 2).all()
    assert len(np.unique(drawn, axis=0)) > 10
