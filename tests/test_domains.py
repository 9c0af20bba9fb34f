from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import read
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.scoring.domains import (
    banks,
    n_missing_target_clips,
    smote,
    with_mixed_target_clips,
)


@pytest.fixture
def clips(make_wav):
    """10 source clips and 3 target clips, one of which is shorter."""
    source = [Clip(make_wav(f"s{i}.wav"), "fan", domain="source") for i in range(10)]
    target = [
        Clip(make_wav(f"t{i}.wav", seconds=0.25 - 0.05 * (i == 2)), "fan", domain="target")
        for i in range(3)
    ]
    return Clips([*source[:5], *target, *source[5:]])


@given(st.integers(2, 8), st.integers(0, 40), st.integers(1, 10), st.integers(0, 9))
def test_new_points_lie_between_two_points(n, count, neighbours, seed):
    points = np.random.default_rng(seed).normal(size=(n, 3))
    for made in smote(points, count, neighbours, seed):
        ends = points[:, None] - made, points[None] - made
        # Between a and b, |a - x| + |x - b| is |a - b|, and for no other pair.
        spans = sum(np.linalg.norm(end, axis=-1) for end in ends)
        between = np.isclose(spans, np.linalg.norm(points[:, None] - points[None], axis=-1))
        np.fill_diagonal(between, False)
        assert between.any()


def test_only_nearest_neighbours_are_mixed():
    made = smote(np.array([[0.0], [1.0], [10.0], [11.0]]), 200, neighbours=1, seed=0)
    assert not np.any((made > 1) & (made < 10))
    assert made.min() < 0.1
    assert made.max() > 10.9


def test_the_order_of_the_points_changes_no_new_point():
    points = np.random.default_rng(0).normal(size=(7, 3))
    order = np.random.default_rng(1).permutation(7)
    np.testing.assert_array_equal(smote(points[order], 5, 2, 0), smote(points, 5, 2, 0))


def test_the_order_of_the_clips_changes_no_mixed_clip(clips):
    order = np.random.default_rng(1).permutation(len(clips))
    one, other = (with_mixed_target_clips(some, 1.0, 3, 0) for some in (clips, clips[order]))
    for first, second in zip(one[len(clips) :], other[len(clips) :], strict=True):
        np.testing.assert_array_equal(one.cache.read(first), other.cache.read(second))


def test_the_seed_draws():
    points = np.random.default_rng(0).normal(size=(5, 2))
    one, same, other = (smote(points, 4, 2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@given(st.integers(0, 60), st.integers(0, 20), st.floats(0, 2))
def test_what_is_missing_makes_the_ratio(source, target, ratio):
    domains = np.array(["source"] * source + ["target"] * target)
    count = n_missing_target_clips(domains, ratio)
    assert count == (max(int(ratio * source) - target, 0) if target else 0)


def test_mixed_clips_are_waveforms_between_two(clips):
    mixed = with_mixed_target_clips(clips, 1.0, neighbours=3, seed=0)
    assert len(mixed) == 20
    assert list(mixed[:13]) == list(clips)
    assert set(mixed[13:].domains) == {"target"}
    originals = [read(clip.path) for clip in clips.where(domain="target")]
    for clip in mixed[13:]:
        waveform = mixed.cache.read(clip)
        assert len(waveform) in {4000, 3200}
        among = np.stack(
            [original[: len(waveform)] for original in originals if len(original) >= len(waveform)]
        )
        shares, *_ = np.linalg.lstsq(among.T, waveform, rcond=None)
        np.testing.assert_allclose(shares @ among, waveform, atol=1e-5)
        assert shares.sum() == pytest.approx(1, abs=1e-4)
        assert np.sum(np.abs(shares) > 1e-4) <= 2


def test_features_of_mixed_clips_come_from_their_waveforms(clips):
    front_end = LogMel.twfr()
    mixed = with_mixed_target_clips(clips, 0.5, neighbours=3, seed=0)
    features = list(mixed.features(front_end))
    assert len(features) == 15
    np.testing.assert_array_equal(features[0], front_end(read(clips[0].path)))
    np.testing.assert_array_equal(features[-1], front_end(mixed.cache.read(mixed[14])))


def test_enough_target_clips_are_left_alone(clips):
    assert with_mixed_target_clips(clips, 0.3, 3, 0) is clips
    assert with_mixed_target_clips(clips, 0.0, 3, 0) is clips
    assert with_mixed_target_clips(clips.where(domain="source"), 1.0, 3, 0)[:].domains.tolist() == (
        ["source"] * 10
    )


def test_banks_are_the_domains_that_there_are(clips):
    assert banks(clips, "pooled").tolist() == [0] * 13
    assert banks(clips, "separate").tolist() == [0] * 5 + [1] * 3 + [0] * 5
    assert banks(clips.where(domain="target"), "separate").tolist() == [0] * 3
    unknown = Clips([replace(clip, domain=None) for clip in clips])
    assert banks(unknown, "separate").tolist() == [0] * 13


def test_one_target_waveform_cannot_be_mixed(clips):
    few = Clips([*clips[:5], clips.where(domain="target")[0]])
    with pytest.raises(TooFewClipsError, match="SMOTE mixes at least 2 target clips, found 1"):
        with_mixed_target_clips(few, 1.0, 3, 0)
