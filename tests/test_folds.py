"""Folds in which clips of one recording are together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from fsasd.evaluation.folds import recording_groups, split_folds


@pytest.mark.parametrize("n", [2, 3, 5, 16, 101])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_recordings_the_folds_are_those_of_scikit_learn(n, seed):
    expected = KFold(min(5, n), shuffle=True, random_state=seed).split(np.empty(n))
    for groups in (None, list(range(n))):
        for split, other in zip(split_folds(n, 5, seed, groups), expected, strict=False):
            np.testing.assert_array_equal(split[0], other[0])
            np.testing.assert_array_equal(split[1], other[1])


@given(st.lists(st.integers(0, 8), min_size=2, max_size=40), st.integers(2, 6))
def test_each_clip_is_held_out_once_with_all_of_its_recording(groups, folds):
    splits = split_folds(len(groups), folds, 0, groups)
    held_out = np.concatenate([fold for _, fold in splits])
    assert sorted(held_out.tolist()) == list(range(len(groups)))
    for rest, fold in splits:
        assert len(rest)
        assert sorted([*rest, *fold]) == list(range(len(groups)))
        if len(set(groups)) > 1:
            assert not {groups[i] for i in rest} & {groups[i] for i in fold}
    assert len(splits) <= folds


def test_clips_of_one_recording_alone_are_divided_all_the_same():
    assert [len(fold) for _, fold in split_folds(6, 3, 0, [7] * 6)] == [2, 2, 2]


def test_names_of_recordings_are_numbered_and_unknown_ones_stand_alone():
    assert recording_groups(["b", "a", "b", None, float("nan"), None]).tolist() == [
        0,
        1,
        0,
        2,
        3,
        4,
    ]
    assert recording_groups([1, 0, None, 1]).tolist() == [0, 1, 2, 0]
    assert recording_groups([None, float("nan"), "a", 0]) is None
    assert recording_groups(()) is None
