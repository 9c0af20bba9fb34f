import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.autoencoder import Autoencoder, AutoencoderNetwork, _Spread, baseline
from fsasd.detectors.networks.training import NetworkTraining, with_arrays
from fsasd.detectors.networks.windows import windows

pytestmark = pytest.mark.slow

BASELINE = baseline()
QUICK = NetworkTraining(12, 32, 1e-2)
ONCE = NetworkTraining(1)


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


@pytest.fixture(scope="module")
def fitted(train):
    return Autoencoder(training=QUICK).fit(train)


def residual_frames(fitted, clips):
    """For each clip, (windows * 5, 128): what is left of each frame in each window."""
    network = with_arrays(lambda: AutoencoderNetwork(640, 1e-3), fitted.network_)
    for spectrogram in clips.features(BASELINE):
        x = windows(spectrogram, 5)
        yield (x - network.layers(x.reshape(-1, 640)).reshape(x.shape)).reshape(-1, 128).numpy()


def test_the_network_is_the_baselines(fitted):
    """github.com/nttcslab/dcase2023_task2_baseline_ae, networks/dcase2023t2_ae/network.py."""
    assert fitted.n_parameters() == 267_928
    layers = AutoencoderNetwork(640, 1e-3).layers
    sizes = [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]
    assert sizes == [128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm1d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert [type(layer) for layer in layers[:3]] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert isinstance(layers[-1], nn.Linear)


def test_the_front_end_is_the_baselines():
    """Power in dB with librosa's filters: their areas are equal, so white noise is flat."""
    noise = np.random.default_rng(0).normal(size=160_000).astype(np.float32)
    mel = BASELINE(noise).mean(axis=1)
    assert mel.shape == (128,)
    assert np.ptp(mel[20:]) < 3
    silent = BASELINE(np.zeros(16_000, np.float32))
    np.testing.assert_allclose(silent, 10 * np.log10(np.finfo(float).eps), rtol=1e-5)


def test_the_mean_squared_residual_is_the_score(fitted, test_clips):
    expected = [np.mean(r.astype(float) ** 2) for r in residual_frames(fitted, test_clips)]
    np.testing.assert_allclose(fitted.score(test_clips), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def covariances(fitted, train):
    """Source and target, as numpy has them."""
    residuals = list(residual_frames(fitted, train))
    return [
        np.cov(np.concatenate([r for r, d in zip(residuals, train.domains, strict=True)
                               if d == domain]).astype(float).T)
        for domain in ("source", "target")
    ]  # fmt: skip


def test_the_official_score_is_that_of_the_code(fitted, train, test_clips, covariances):
    """The code's matrix of all pairs of frames, averaged, and the minimum over domains."""
    expected = []
    for delta in residual_frames(fitted, test_clips):
        pairs = [delta @ np.linalg.inv(cov) @ delta.T for cov in covariances]
        expected.append(min(m.mean(axis=1).sum() / len(delta) for m in pairs))
    scores = Autoencoder(scored_by="mahalanobis", training=QUICK).fit(train).score(test_clips)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_without_the_quirk_it_is_the_mean_of_scipys_distances(
    fitted, train, test_clips, covariances
):
    zero = np.zeros((1, 128))
    expected = []
    for delta in residual_frames(fitted, test_clips):
        squared = [
            cdist(delta, zero, "mahalanobis", VI=np.linalg.inv(cov)) ** 2 for cov in covariances
        ]
        expected.append(min(d.mean() for d in squared))
    detector = Autoencoder(scored_by="mahalanobis", official=False, training=QUICK).fit(train)
    np.testing.assert_allclose(detector.score(test_clips), expected, rtol=1e-4)


def test_residuals_of_one_clip_at_a_time_are_kept(train, monkeypatch):
    """Those of a thousand clips of ten seconds are 3 GB."""
    residual = Autoencoder._residual
    made, at_once = [], []

    def counted(*asked):
        found = residual(*asked).numpy().copy()
        made.append(weakref.ref(found))
        at_once.append(sum(one() is not None for one in made))
        return torch.from_numpy(found)

    monkeypatch.setattr(Autoencoder, "_residual", counted)
    Autoencoder(training=ONCE).fit(train)
    assert len(made) == len(train)
    assert max(at_once) <= 2


def test_a_covariance_of_clips_one_by_one_is_that_of_all_frames(fitted, covariances):
    np.testing.assert_allclose(fitted.covariance_, covariances, rtol=1e-9, atol=1e-9)
    # Far from 0, where a difference of squares would have no digits left.
    rows = np.random.default_rng(0).normal(1e6, 1.0, (90, 4))
    spread = _Spread()
    for part in (rows[:1], rows[1:40], rows[40:]):
        spread.add(part)
    np.testing.assert_allclose(spread.covariance(), np.cov(rows.T), rtol=1e-9, atol=1e-9)


def test_all_scores_come_from_one_training(train, test_clips, monkeypatch):
    fits = []
    fit = Autoencoder.fit
    monkeypatch.setattr(Autoencoder, "fit", lambda self, clips: fits.append(1) or fit(self, clips))
    grid = [{"scored_by": "mse"}, {"scored_by": "mahalanobis"},
            {"scored_by": "mahalanobis", "official": False}]  # fmt: skip
    rows = Autoencoder(training=ONCE).score_path(grid, train, test_clips)
    assert len(fits) == 1
    assert len(np.unique(rows, axis=0)) == 3


@pytest.mark.nightly
def test_training_lowers_the_residuals(train):
    untrained, trained = (
        Autoencoder(training=replace(QUICK, epochs=n)).fit(train) for n in (1, 40)
    )
    assert trained.score(train).mean() < 0.5 * untrained.score(train).mean()


def test_a_fit_leaves_the_random_state_alone(train):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    Autoencoder(training=ONCE).fit(train)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002


def test_the_seed_is_that_of_weights_and_order(train, test_clips):
    one, same, other = (
        Autoencoder(training=replace(ONCE, seed=seed)).fit(train).score(test_clips)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_an_unknown_score_is_refused_with_the_known_ones(fitted, train, test_clips):
    with pytest.raises(ValueError, match="scored_by 'mae': expected 'mse' or 'mahalanobis'"):
        Autoencoder(scored_by="mae").fit(train)
    wrong = Autoencoder(training=ONCE).fit(train).set_params(scored_by="mae")
    with pytest.raises(ValueError, match="scored_by 'mae'"):
        wrong.score(test_clips)


def test_too_few_frames_for_a_covariance_are_refused(make_wav, train, test_clips):
    short = Clips([Clip(make_wav("short.wav", seconds=0.2), "fan")])
    detector = Autoencoder(training=ONCE, scored_by="mahalanobis").fit(short)
    with pytest.raises(ValueError, match="inverts the covariance of 128 bins, and the normal cl"):
        detector.score(test_clips)
