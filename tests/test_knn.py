import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.knn import KNN
from fsasd.detectors.representations import TimeStatistics


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


def given(**points):
    """A representation that says where each clip of a name lies."""
    return lambda clips: np.array([points[clip.path.stem] for clip in clips], dtype=float)


def named(make_wav, *names, domain="source"):
    return [Clip(make_wav(f"{name}.wav"), "fan", domain=domain) for name in names]


def test_the_distance_to_the_neighbour_is_the_score(make_wav):
    """One noise at levels 6.02 dB apart: every mel bin moves by that step."""
    noise = np.random.default_rng(0).uniform(-1, 1, 8000)
    clips = Clips(
        [
            Clip(make_wav(f"{level}.wav", level * noise, subtype="FLOAT"), "fan")
            for level in (0.8, 0.4, 0.2, 0.1)
        ]
    )
    step = 20 * np.log10(2) * np.sqrt(128)
    for k in (1, 2, 3):
        score = KNN(TimeStatistics(pool_by="mean"), k=k).fit(clips[:3]).score(clips[[3]])
        np.testing.assert_allclose(score, k * step, rtol=1e-4)
    # The spread over time does not change with the level.
    both = KNN(TimeStatistics(pool_by="mean+std")).fit(clips[:3]).score(clips[[3]])
    np.testing.assert_allclose(both, step, rtol=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 3])
def test_scores_equal_scikit_learns(train, test_clips, metric, k):
    representation = TimeStatistics(pool_by="mean")
    reference = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute")
    reference.fit(representation(train))
    expected = reference.kneighbors(representation(test_clips))[0][:, -1]
    scores = KNN(representation, k=k, metric=metric).fit(train).score(test_clips)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_training_clip_has_no_distance_to_itself(train, metric):
    np.testing.assert_array_equal(KNN(metric=metric).fit(train).score(train), 0)


def test_each_separate_bank_has_a_kth_neighbour(make_wav):
    where = given(a=[0], b=[1], c=[2], d=[10], e=[14], x=[11])
    clips = named(make_wav, "a", "b", "c") + named(make_wav, "d", "e", domain="target")
    test = Clips(named(make_wav, "x"))
    assert KNN(where, k=2).fit(Clips(clips)).score(test) == 3  # e: 14 - 11
    assert KNN(where, k=2, domains="separate").fit(Clips(clips)).score(test) == 3
    assert KNN(where, k=3).fit(Clips(clips)).score(test) == 9  # c
    near = Clips(named(make_wav, "b"))
    assert KNN(where, k=2, domains="separate").fit(Clips(clips)).score(near) == 1
    # Clips of both domains stand in any order.
    mixed = Clips([clips[i] for i in (3, 0, 4, 2, 1)])
    assert KNN(where, k=2, domains="separate").fit(mixed).score(near) == 1


def test_with_one_neighbour_separate_banks_make_no_difference(train, test_clips):
    pooled, separate = (KNN(domains=domains).fit(train) for domains in ("pooled", "separate"))
    np.testing.assert_array_equal(pooled.score(test_clips), separate.score(test_clips))


def test_a_distance_is_normalised_by_the_density_around_the_neighbour(make_wav):
    """Wilkinghoff et al. 2025: d(x, y) / mean of d(y, z) over the K nearest z, at its least."""
    where = given(a=[0], b=[1], c=[3], d=[20], e=[30], x=[6], y=[14])
    clips = Clips(named(make_wav, "a", "b", "c", "d", "e"))
    test = Clips(named(make_wav, "x", "y"))
    # Mean distances to the 2 nearest: a 2, b 1.5, c 2.5, d (10 + 17) / 2, e (10 + 27) / 2.
    scores = KNN(where, density=2).fit(clips).score(test)
    np.testing.assert_allclose(scores, [14 / 13.5, 6 / 13.5])
    np.testing.assert_allclose(KNN(where).fit(clips).score(test), [3, 6])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_local_density_normalisation_equals_its_formula(train, test_clips, metric):
    representation = TimeStatistics(pool_by="mean")
    reference = NearestNeighbors(metric=metric, algorithm="brute").fit(representation(train))
    own = reference.kneighbors(n_neighbors=4)[0].mean(axis=1)
    distances, index = reference.kneighbors(representation(test_clips), n_neighbors=len(train))
    expected = (distances / own[index]).min(axis=1)
    scores = KNN(representation, metric=metric, density=4).fit(train).score(test_clips)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_a_clip_that_is_in_the_bank_twice_is_divided_by_the_least_density_there_is(make_wav):
    where = given(a=[0], b=[0], c=[3], d=[5], x=[1])
    clips = Clips(named(make_wav, "a", "b", "c", "d"))
    scores = KNN(where, density=1).fit(clips).score(Clips(named(make_wav, "x")))
    np.testing.assert_allclose(scores, 1 / 2)
    same = Clips(named(make_wav, "a", "b"))
    np.testing.assert_allclose(KNN(where, density=1).fit(same).score(clips), [0, 0, 3, 5])


def test_smote_fills_the_line_between_target_clips(make_wav):
    points = {f"s{i}": [100.0 + i, 0.0] for i in range(50)} | {"t": [0, 0], "u": [0, 10]}
    where = given(**points, x=[0, 5], y=[5, 5])
    clips = [clip for i in range(50) for clip in named(make_wav, f"s{i}")]
    clips += named(make_wav, "t", "u", domain="target")
    test = Clips(named(make_wav, "x", "y"))
    plain = KNN(where).fit(Clips(clips))
    np.testing.assert_allclose(plain.score(test), [5, np.sqrt(50)])
    filled = KNN(where, smote=1.0, domains="separate").fit(Clips(clips))
    assert filled.n_parameters() > plain.n_parameters()
    np.testing.assert_allclose(filled.score(test), [0, 5], atol=1)
    assert filled.sizes_.tolist() == [50, 50]


def test_mixed_directions_are_directions(train):
    detector = KNN(metric="cosine", smote=1.0).fit(train)
    np.testing.assert_allclose(np.linalg.norm(detector.points_, axis=1), 1)
    assert len(detector.points_) == 2 * len(train.where(domain="source"))


def test_silence_has_no_direction(make_wav, train):
    silent = lambda clips: np.zeros((len(clips), 3))  # noqa: E731
    scores = KNN(silent, metric="cosine").fit(train).score(train[:2])
    np.testing.assert_array_equal(scores, 0)


def test_large_banks_are_scored_in_parts(train, test_clips, monkeypatch):
    whole = KNN(density=3).fit(train).score(test_clips)
    monkeypatch.setattr("fsasd.detectors.scoring.bank._CHUNK", 2 * len(train))
    np.testing.assert_allclose(KNN(density=3).fit(train).score(test_clips), whole, rtol=1e-12)


def test_fewer_clips_than_neighbours_are_refused(train):
    with pytest.raises(TooFewClipsError, match=r"k=4 neighbours need as many clips, found 3"):
        KNN(k=4).fit(train[:3])
    with pytest.raises(
        ValueError, match=r"k=5 neighbours need as many clips in each domain, f.* 4"
    ):
        KNN(k=5, domains="separate").fit(train)
    with pytest.raises(TooFewClipsError, match="density around a normal clip needs 2 clips, found"):
        KNN(density=3).fit(train[:1])


def test_where_there_are_fewer_clips_all_others_make_the_density(train, test_clips):
    some, more = (KNN(density=density).fit(train[:4]) for density in (3, 9))
    np.testing.assert_array_equal(some.score(test_clips), more.score(test_clips))


def test_more_neighbours_than_were_fitted_are_refused(train):
    with pytest.raises(TooFewClipsError, match=r"k=4 neighbours need as many clips, found 3"):
        KNN(k=1).fit(train[:3]).set_params(k=4).score(train)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"metric": "manhattan"}, "metric 'manhattan': expected 'euclidean' or 'cosine'"),
        ({"domains": "both"}, "domains 'both': expected 'pooled' or 'separate'"),
        ({"smote": -0.2}, r"ratio of target to source clips: expected 0 or more, found -0\.2"),
        ({"k": 0}, "k: expected 1 or more, found 0"),
        ({"k": -1}, "k: expected 1 or more, found -1"),
        ({"density": -2}, "density: expected 0 or more, found -2"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_known_ones(train, setting, message):
    with pytest.raises(ValueError, match=message) as error:
        KNN(**setting).fit(train)
    assert not isinstance(error.value, TooFewClipsError), "more clips would not help"


def test_no_neighbour_is_asked_for_when_it_scores(train):
    with pytest.raises(ValueError, match="k: expected 1 or more, found 0") as error:
        KNN().fit(train).set_params(k=0).score(train)
    assert not isinstance(error.value, TooFewClipsError)


def test_one_target_clip_cannot_be_mixed(train):
    source, target = train.where(domain="source"), train.where(domain="target")
    with pytest.raises(TooFewClipsError, match="SMOTE mixes at least 2 target clips, found 1"):
        KNN(smote=0.5).fit(Clips([*source, target[0]]))
