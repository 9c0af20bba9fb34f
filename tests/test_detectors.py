"""Every detector of the config group passes the same checks; then what is particular to each."""

import inspect
import json
from pathlib import Path

import hydra
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from omegaconf import OmegaConf
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError

from fsasd.data.audio import Clips, LogMel
from fsasd.data.metadata import Clip, read_clips
from fsasd.detectors.base import Detector, TooFewClipsError, load
from fsasd.detectors.gaussian_mixture import fit_gaussian_mixtures
from fsasd.detectors.knn import KNN
from fsasd.detectors.twfr_gmm import TWFRGMM, time_weights, twfr

CONF = Path(__file__).parents[1] / "conf" / "detector"


@pytest.fixture(scope="module", params=sorted(path.stem for path in CONF.glob("*.yaml")))
def fitted(request, train):
    """What the config group names, so that a new detector is checked by its file alone."""
    cfg = OmegaConf.merge({"seed": 0}, OmegaConf.load(CONF / f"{request.param}.yaml"))
    return hydra.utils.instantiate(cfg["detector"], _convert_="all").fit(train)


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


def learnt(value, path=""):
    """Everything a detector holds, and the detectors within it."""
    if isinstance(value, (Detector, dict)):
        parts = vars(value) if isinstance(value, Detector) else value
        found = {}
        for key, part in parts.items():
            found |= learnt(part, f"{path}.{key}")
        return found
    return {path: np.array(value)}


def settings(detector):
    """A detector's settings, those of detectors within it under their own names."""
    return {
        key: value
        for key, value in detector.get_params().items()
        if not isinstance(value, (Detector, dict))
    }


def assert_same_state(detector, before):
    after = learnt(detector)
    assert after.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


# Every detector


def test_scores_are_finite_numbers_one_for_each_clip(fitted, test_clips):
    scores = fitted.score(test_clips)
    assert scores.shape == (len(test_clips),)
    assert np.isfinite(scores).all()


def test_a_white_noise_is_more_anomalous_than_the_machine(fitted, test_clips, make_wav):
    noise = Clip(make_wav("noise.wav", seconds=1.0), "bearing")
    alien = fitted.score(Clips([noise]))[0]
    assert alien > fitted.score(test_clips.where(label="normal")).max()


def test_fitting_returns_the_detector_and_keeps_its_settings(fitted, train):
    fresh = clone(fitted)
    before = settings(fresh)
    assert fresh.fit(train) is fresh
    assert settings(fresh) == before


def test_two_fits_are_equal(fitted, train, test_clips):
    again = clone(fitted).fit(train)
    np.testing.assert_array_equal(again.score(test_clips), fitted.score(test_clips))


def test_fitting_anew_forgets_the_first_clips(fitted, train, test_clips, factory_clips):
    other = clone(fitted).fit(factory_clips.where(machine="fan", split="train"))
    other.fit(train)
    np.testing.assert_array_equal(other.score(test_clips), fitted.score(test_clips))


def test_scoring_changes_nothing(fitted, test_clips):
    before = learnt(fitted)
    fitted.score(test_clips)
    assert_same_state(fitted, before)


def test_a_score_does_not_depend_on_the_clips_beside_it(fitted, test_clips):
    scores = fitted.score(test_clips)
    order = np.random.default_rng(0).permutation(len(test_clips))
    np.testing.assert_allclose(fitted.score(test_clips[order]), scores[order], rtol=1e-9)
    np.testing.assert_allclose(fitted.score(test_clips[[3]]), scores[[3]], rtol=1e-9)


def test_labels_and_domains_are_not_looked_at_to_score(fitted, test_clips):
    hidden = Clips([Clip(clip.path, clip.machine) for clip in test_clips], test_clips.cache)
    np.testing.assert_array_equal(fitted.score(hidden), fitted.score(test_clips))


def test_scoring_before_fitting_is_an_error(fitted, test_clips):
    fresh = clone(fitted)
    with pytest.raises(NotFittedError, match=type(fresh).__name__):
        fresh.score(test_clips)


def test_the_constructor_stores_its_arguments_unchanged(fitted):
    given = fitted.get_params(deep=False)
    assert given.keys() == inspect.signature(type(fitted)).parameters.keys()
    made = vars(type(fitted)(**given))
    assert made.keys() == given.keys()
    assert all(made[key] is value for key, value in given.items())


def test_a_saved_detector_scores_the_same(fitted, test_clips, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert type(loaded) is type(fitted)
    assert settings(loaded) == settings(fitted)
    np.testing.assert_allclose(loaded.score(test_clips), fitted.score(test_clips), rtol=1e-6)
    assert loaded.n_parameters() == fitted.n_parameters()


def test_what_is_saved_is_json_and_arrays(fitted, tmp_path):
    fitted.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "detector.json",
        "detector.safetensors",
    ]
    about = json.loads((tmp_path / "detector.json").read_text())
    assert about["params"].keys() == fitted.get_params(deep=False).keys()
    assert (
        about["params"].items()
        >= {key: value for key, value in settings(fitted).items() if "__" not in key}.items()
    )


def test_a_score_path_of_its_own_setting_is_the_score(fitted, train, test_clips):
    fresh = clone(fitted)
    rows = fresh.score_path([{}, fitted.get_params()], train, test_clips)
    for row in rows:
        np.testing.assert_allclose(row, fitted.score(test_clips), rtol=1e-9)
    assert_same_state(fresh, learnt(clone(fitted)))


GRIDS = {
    TWFRGMM: [
        {"r": 0.0},
        {"r": 1.1, "n_components": 1},
        {"r": 1.0},
        {"n_components": 1},
        {"r": 0.46, "n_components": 1},
        {"r": 0.97, "covariance": "shrunk"},
    ],
    KNN: [{"k": 2, "pool": "max"}, {"pool": "mean"}, {"k": 3}],
}


@pytest.mark.parametrize("kind", GRIDS, ids=lambda kind: kind.__name__)
def test_a_score_path_equals_fitting_one_by_one(kind, train, test_clips):
    grid, detector = GRIDS[kind], kind()
    rows = detector.score_path(grid, train, test_clips)
    assert rows.shape == (len(grid), len(test_clips))
    for row, params in zip(rows, grid, strict=True):
        one = clone(detector).set_params(**params).fit(train)
        np.testing.assert_allclose(row, one.score(test_clips), rtol=1e-9)
    with pytest.raises(NotFittedError):
        detector.score(test_clips)


def test_the_fallback_of_the_base_class_gives_the_same_path(train, test_clips):
    grid = GRIDS[TWFRGMM]
    np.testing.assert_allclose(
        Detector.score_path(TWFRGMM(), grid, train, test_clips),
        TWFRGMM().score_path(grid, train, test_clips),
        rtol=1e-9,
    )


def test_loading_from_a_folder_without_a_detector_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name} holds no saved detector"):
        load(tmp_path)


def test_a_detector_without_both_methods_cannot_be_made():
    class Deaf(Detector):
        def fit(self, clips):
            return self

    with pytest.raises(TypeError, match="score"):
        Deaf()


# k-NN


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
        score = KNN(k=k, pool="mean").fit(clips[:3]).score(clips[[3]])
        np.testing.assert_allclose(score, k * step, rtol=1e-4)
    # The spread over time does not change with the level.
    both = KNN(k=1, pool="mean+std").fit(clips[:3]).score(clips[[3]])
    np.testing.assert_allclose(both, step, rtol=1e-4)


def test_a_training_clip_has_no_distance_to_itself(train):
    np.testing.assert_allclose(KNN().fit(train).score(train), 0, atol=1e-5)


def test_fewer_clips_than_neighbours_are_told(train):
    with pytest.raises(TooFewClipsError, match=r"k=4 neighbours need as many clips, found 3"):
        KNN(k=4).fit(train[:3])


def test_an_unknown_pooling_is_told_the_known_ones(train):
    with pytest.raises(ValueError, match=r"pool 'median': expected one of mean, max, mean\+std"):
        KNN(pool="median").fit(train)


def test_the_bank_is_what_knn_holds(train):
    assert KNN(pool="mean+std").fit(train).n_parameters() == len(train) * 256


# TWFR-GMM

MELS = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(-100, 40, width=32),
)
WEIGHTS = st.floats(0, 1.2)


@given(WEIGHTS, st.integers(1, 600))
def test_weights_sum_to_one_and_are_never_negative(r, frames):
    weights = time_weights(r, frames)
    assert weights.shape == (1, frames)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


@given(st.floats(0.01, 1.2), st.integers(2, 60))
def test_neighbouring_weights_have_the_ratio_r(r, frames):
    weights = time_weights(r, frames)[0]
    np.testing.assert_allclose(weights[1:], r * weights[:-1], rtol=1e-9)


@given(MELS)
def test_r_of_zero_is_the_maximum_and_of_one_the_mean(log_mel):
    maximum, mean = twfr(log_mel, [0.0, 1.0])
    np.testing.assert_allclose(maximum, log_mel.max(axis=1))
    np.testing.assert_allclose(mean, log_mel.mean(axis=1), atol=1e-9)


@given(MELS, st.lists(WEIGHTS, min_size=2, max_size=5).map(sorted))
def test_a_higher_r_never_raises_the_representation(log_mel, r):
    assert (np.diff(twfr(log_mel, r), axis=0) <= 1e-9).all()


@given(MELS, WEIGHTS, st.randoms(use_true_random=False))
def test_the_order_of_the_frames_does_not_matter(log_mel, r, random):
    order = random.sample(range(log_mel.shape[1]), log_mel.shape[1])
    np.testing.assert_allclose(twfr(log_mel[:, order], r), twfr(log_mel, r), rtol=1e-9, atol=1e-9)


@given(MELS, WEIGHTS, st.floats(-50, 50))
def test_a_gain_in_decibels_shifts_the_representation(log_mel, r, gain):
    np.testing.assert_allclose(twfr(log_mel + gain, r), twfr(log_mel, r) + gain, atol=1e-9)


def test_two_components_hold_33026_numbers(train):
    """Table 3 of the paper says 33K."""
    assert TWFRGMM(n_components=2).fit(train).n_parameters() == 33_026


def test_fewer_clips_than_components_are_told(train):
    with pytest.raises(TooFewClipsError, match=r"4 components need as many clips, found 3"):
        TWFRGMM(n_components=4).fit(train[:3])


def test_a_longer_clip_than_max_seconds_is_heard_in_part(train, make_wav):
    detector = TWFRGMM(max_seconds=0.5).fit(train)
    rng = np.random.default_rng(0)
    start = 0.1 * rng.standard_normal(8000)
    quiet, loud = (
        Clip(make_wav(f"{gain}.wav", np.r_[start, gain * rng.standard_normal(8000)]), "fan")
        for gain in (0.01, 0.3)
    )
    scores = detector.score(Clips([quiet, loud]))
    assert scores[0] == scores[1]


def test_the_seed_is_that_of_the_start(train, test_clips):
    scores = [TWFRGMM(seed=seed).fit(train).score(test_clips) for seed in (0, 0)]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("machine", ["BLDCMotor", "fan"])
def test_scores_from_audio_equal_the_original(shared, real, machine):
    """With one component at every r; with two at r=1, where the start is the original's too."""
    golden = np.load(shared / "reference/golden/twfr_gmm.npz")
    clips = Clips(read_clips(real, [machine]))
    train, test = clips.where(split="train"), clips.where(split="test")
    assert [clip.path.name for clip in test] == golden[f"{machine}/test_files"].tolist()
    grid = [{"r": r, "n_components": 1} for r in (0.0, 0.46, 0.9, 0.99, 1.0, 1.1)]
    grid.append({"r": 1.0, "n_components": 2})
    for params, scores in zip(grid, TWFRGMM().score_path(grid, train, test), strict=True):
        key = f"{machine}/score/r={params['r']:.2f}/k={params['n_components']}"
        np.testing.assert_allclose(scores, golden[key], rtol=1e-6, err_msg=key)


def test_every_r_starts_from_the_partition_of_the_means(make_wav):
    """Clips fall in two groups by their mean level, and in two others by their loudest frame."""
    rng = np.random.default_rng(0)

    def record(i):
        waveform = 0.05 * rng.standard_normal(16_000)
        waveform[3000:] *= (1.0, 0.1)[i % 2]
        waveform[:1500] *= (1.0, 8.0)[i // 2 % 2]
        return Clip(make_wav(f"{i}.wav", waveform), "fan")

    clips = Clips([record(i) for i in range(16)])
    log_mels = list(clips.features(LogMel.twfr()))
    loudest, means = np.stack([twfr(log_mel, [0.0, 1.0]) for log_mel in log_mels], axis=1)
    own, partition = (KMeans(2, n_init=1, random_state=0).fit_predict(X) for X in (loudest, means))
    assert 0.3 < np.mean(own == partition) < 0.7
    expected = fit_gaussian_mixtures(loudest[None], 2, start=partition)
    scores = -expected.component_log_density(loudest[None])[0].max(axis=1)
    np.testing.assert_allclose(TWFRGMM(r=0.0).fit(clips).score(clips), scores, rtol=1e-9)
    other = fit_gaussian_mixtures(loudest[None], 2, start=own)
    assert not np.allclose(-other.component_log_density(loudest[None])[0].max(axis=1), scores)


def test_between_the_tenths_em_starts_from_the_partition_found_at_the_nearest(make_wav):
    rng = np.random.default_rng(0)
    clips = Clips(
        [
            Clip(make_wav(f"{i}.wav", rng.normal(size=16_000) * (0.1, 0.02)[i % 2]), "fan")
            for i in range(16)
        ]
    )
    tenth, near = np.stack([twfr(x, [0.9, 0.93]) for x in clips.features(LogMel.twfr())], axis=1)
    at_tenth = TWFRGMM(r=0.9).fit(clips).mixture
    expected = fit_gaussian_mixtures(near[None], 2, start=at_tenth.partition(tenth[None]))
    scores = -expected.component_log_density(near[None])[0].max(axis=1)
    np.testing.assert_allclose(TWFRGMM(r=0.93).fit(clips).score(clips), scores, rtol=1e-9)
