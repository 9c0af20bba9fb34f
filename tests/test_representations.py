import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone

from fsasd.data.log_mel import LogMel
from fsasd.detectors.base import load
from fsasd.detectors.knn import KNN
from fsasd.detectors.representations import Patches, TimeStatistics, TimeWeighted

KINDS = [TimeStatistics(pool_by="min+max"), TimeWeighted(r=0.9), Patches(bands=4, segments=3)]
MELS = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 30)),
    elements=st.floats(-100, 40, width=32),
)


@pytest.fixture(scope="module")
def clips(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.mark.parametrize("representation", KINDS, ids=lambda kind: type(kind).__name__)
def test_each_clip_has_a_row(representation, clips):
    points = representation(clips)
    assert points.dtype == np.float64
    assert len(points) == len(clips)
    for i in (0, 3):
        np.testing.assert_array_equal(representation(clips[[i]])[0], points[i])


@pytest.mark.parametrize("representation", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_representation_is_its_settings(representation, clips, tmp_path):
    again = eval(repr(representation), {**globals()})
    assert again == representation
    assert hash(again) == hash(representation)
    assert pickle.loads(pickle.dumps(representation)) == representation
    detector = KNN(representation).fit(clips)
    assert clone(detector).representation == representation
    detector.save(tmp_path)
    assert load(tmp_path).representation == representation


class Half(LogMel):
    """A log-mel in half precision, as a front end of a user's own may be to save room."""

    def __call__(self, waveform):
        return super().__call__(waveform).astype(np.float16)


@pytest.mark.parametrize(
    "kind", [TimeStatistics, TimeWeighted, Patches], ids=lambda kind: kind.__name__
)
def test_features_in_half_precision_are_summed_in_single(kind, clips):
    whole, half = (kind(front_end=one)(clips) for one in (LogMel.twfr(), Half.twfr()))
    np.testing.assert_allclose(half, whole, atol=0.05)


def test_fields_are_set_through_the_detector():
    detector = KNN(TimeWeighted()).set_params(representation__r=0.5)
    assert detector.representation == TimeWeighted(r=0.5)
    detector.set_params(representation__front_end__max_seconds=3.0)
    assert detector.representation.front_end == LogMel.twfr(3.0)


@given(MELS)
def test_statistics_are_those_of_each_band(log_mel):
    mean, spread = np.split(TimeStatistics().pool(log_mel), 2)
    np.testing.assert_allclose(mean, log_mel.mean(axis=1))
    np.testing.assert_allclose(spread, log_mel.std(axis=1))


@given(MELS, st.integers(1, 8), st.integers(1, 8))
def test_patches_have_one_size_and_lie_between_the_extremes(log_mel, bands, segments):
    patches = Patches(bands=bands, segments=segments).pool(log_mel)
    assert patches.shape == (bands * segments,)
    assert log_mel.min() - 1e-3 <= patches.min() <= patches.max() <= log_mel.max() + 1e-3


def test_a_patch_is_the_mean_of_its_cells():
    log_mel = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = log_mel.reshape(2, 2, 3, 2).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(Patches(bands=2, segments=3).pool(log_mel), expected)


def test_an_unknown_statistic_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"'mean\+mode': expected .* mean, max, min, std joined by"
    ):
        TimeStatistics(pool_by="mean+mode")


def test_no_clip_has_no_representation(clips):
    with pytest.raises(ValueError, match="expected at least 1 clip, found 0"):
        TimeStatistics()(clips[:0])
