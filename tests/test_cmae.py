from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.nn import functional as F

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.detectors.base import TooFewClipsError, load
from fsasd.detectors.cmae import CMAE, CMAETraining, Image, Images, collapse
from fsasd.detectors.networks.heads import supervised_contrastive
from fsasd.detectors.networks.masked import MaskedAutoencoder
from fsasd.detectors.networks.trained_networks import TrainedNetworks
from fsasd.detectors.networks.training import NetworkTraining, with_arrays

pytestmark = pytest.mark.slow

SMALL = {
    "frames": 32, "dim": 16, "depth": 2, "heads": 2, "class_epochs": 1,
    "training": NetworkTraining(2, 8, 2e-3),
}  # fmt: skip


def longer(epochs):
    return SMALL | {"training": replace(SMALL["training"], epochs=epochs)}


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


@pytest.fixture(scope="module")
def normals(factory_clips):
    return factory_clips.where(split="train", label="normal")


@pytest.fixture(scope="module")
def fitted(train):
    return CMAE(**SMALL).fit(train)


# The front end


def test_an_image_is_the_beginning_of_the_log_mel():
    waveform = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
    np.testing.assert_allclose(
        Image(32)(waveform), LogMel.twfr(None)(waveform)[:, :32], rtol=1e-5, atol=1e-4
    )
    assert repr(Image(32)) == "Image(frames=32)"


def test_the_frames_of_a_short_clip_are_repeated():
    waveform = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    log_mel = LogMel.twfr(None)(waveform)
    image = Image(32)(waveform)
    np.testing.assert_array_equal(image[:, : log_mel.shape[1]], log_mel)
    np.testing.assert_array_equal(image[:, log_mel.shape[1] :][:, :8], log_mel)


# Losses


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [0, 0, 1, 0, 0, 1]])
def test_the_contrast_is_the_papers_formula(labels):
    views = torch.randn(6, 4).double()
    unit = F.normalize(views, dim=1)
    total = 0.0
    for i in range(6):
        others = [a for a in range(6) if a != i]
        alike = [p for p in others if labels[p] == labels[i]]
        below = sum(torch.exp(unit[i] @ unit[a] / 0.2) for a in others)
        total -= sum(torch.log(torch.exp(unit[i] @ unit[p] / 0.2) / below) for p in alike) / len(
            alike
        )
    found = supervised_contrastive(views, F.one_hot(torch.tensor(labels)).double(), 0.2)
    torch.testing.assert_close(found, total / 6)


def test_a_view_that_nothing_is_like_has_no_contrast():
    views = torch.randn(3, 4)
    targets = F.one_hot(torch.tensor([0, 0, 1])).float()
    assert torch.isfinite(supervised_contrastive(views, targets, 0.1))


def test_dimensions_that_say_the_same_or_nothing_are_penalised():
    points = torch.randn(2000, 3)
    free = collapse(1.5 * points)
    assert free < 0.05
    assert collapse(torch.cat([points, points], dim=1)) > free + 0.3
    assert collapse(0.1 * points) > 0.8


def test_views_of_a_class_are_near_only_in_the_second_part(train):
    network = MaskedAutoencoder(128, 32, patch=16, dim=16, depth=1, heads=1)
    training = CMAETraining(network, visible=0.25, weight=1.0, classes_from=3, learning_rate=1e-3)
    images, _ = Images(train, Image(32)).__getitems__(range(6))

    def loss(labels, epoch):
        type(training).current_epoch = property(lambda self: epoch)
        try:
            torch.manual_seed(0)
            return training.training_step((images, torch.tensor(labels)), 0).item()
        finally:
            del type(training).current_epoch

    same, apart = [0] * 6, [0, 1, 2, 3, 4, 5]
    assert loss(same, epoch=2) == loss(apart, epoch=2)
    assert loss(apart, epoch=3) == loss(apart, epoch=2)
    assert loss(same, epoch=3) != loss(apart, epoch=3)


def test_a_class_is_a_machine_in_a_state(factory_clips):
    clips = factory_clips.where(split="train")
    labels = Images(clips, Image(32)).labels
    states = [(clip.machine, tuple(sorted(clip.attributes.items()))) for clip in clips]
    assert len(labels.unique()) == len(set(states))
    for i in range(1, len(clips)):
        assert (labels[i] == labels[0]) == (states[i] == states[0])
    bare = Clips([replace(clip, attributes={}, raw_label="") for clip in clips], clips.cache)
    assert len(Images(bare, Image(32)).labels.unique()) == 3


# The detector


def test_the_score_is_the_sum_of_both_numbers_in_units_of_normal_clips(fitted, train, test_clips):
    network = with_arrays(lambda: MaskedAutoencoder(128, 32, patch=16, dim=16, depth=2, heads=2),
                          fitted.network_)  # fmt: skip

    def errors_and_embeddings(clips):
        for image in clips.features(Image(32)):
            batch = torch.from_numpy(image.copy())[None]
            patches = network.patches(batch)
            errors = []
            for visible in network.visible_in_turn(0.25):
                hidden = sorted(set(range(16)) - set(visible[0].tolist()))
                reconstructed = network(batch, visible)[1]
                errors.append((reconstructed - patches)[0, hidden].square().mean().item())
            states = network.encode(patches, torch.arange(16)[None])[0].mean(dim=0)
            yield np.mean(errors), (states / states.norm()).numpy()

    (errors, points), (bank_errors, bank) = (
        map(np.array, zip(*errors_and_embeddings(clips), strict=True))
        for clips in (test_clips, train)
    )
    distance = 1 - (points @ bank.T).max(axis=1)
    own = 1 - np.sort(bank @ bank.T, axis=1)[:, -2]
    expected = 0.5 * (errors - bank_errors.mean()) / bank_errors.std()
    expected += 0.5 * (distance - own.mean()) / own.std()
    np.testing.assert_allclose(fitted.score(test_clips), expected, rtol=1e-2, atol=1e-2)
    only = clone(fitted).set_params(reconstruction=1.0).fit(train).score(test_clips)
    np.testing.assert_allclose(only, (errors - bank_errors.mean()) / bank_errors.std(), rtol=1e-3)


def test_shares_of_the_two_numbers_come_from_one_training(train, test_clips, monkeypatch):
    fits = []
    fit = CMAE.fit
    monkeypatch.setattr(CMAE, "fit", lambda self, clips: fits.append(1) or fit(self, clips))
    grid = [{"reconstruction": share} for share in (0.0, 0.5, 1.0)]
    distance, both, reconstruction = CMAE(**SMALL).score_path(grid, train, test_clips)
    assert len(fits) == 1
    np.testing.assert_allclose(both, (distance + reconstruction) / 2)


def test_the_network_is_trained_once_for_all_machines(
    train, test_clips, normals, factory_clips, tmp_path, monkeypatch
):
    detector = CMAE(**SMALL).prepare(normals, tmp_path)
    monkeypatch.setattr(CMAE, "_trained", None)
    again = CMAE(**SMALL).prepare(normals, tmp_path)
    one, other = clone(detector).fit(train), again.fit(train)
    np.testing.assert_array_equal(one.score(test_clips), other.score(test_clips))
    fans = factory_clips.where(machine="fan", split="train")
    for name, array in clone(detector).fit(fans).network_.items():
        np.testing.assert_array_equal(array, one.network_[name])
    one.save(tmp_path / "saved")
    np.testing.assert_array_equal(load(tmp_path / "saved").score(test_clips), one.score(test_clips))


def test_a_folder_with_another_network_is_refused(normals, train, tmp_path):
    detector = CMAE(**longer(1)).prepare(normals, tmp_path)
    with pytest.raises(
        ValueError, match=r"trained with training__epochs=1 instead of 3: use another folder"
    ):
        CMAE(**longer(3)).prepare(normals, tmp_path)
    with pytest.raises(ValueError, match=r"dim=16 instead of 32: what networks are trained with"):
        clone(detector).set_params(dim=32).fit(train)


def test_a_grid_of_a_prepared_network_is_one_of_the_score(normals, train, test_clips, tmp_path):
    detector = CMAE(**longer(1)).prepare(normals, tmp_path)
    grid = [{"reconstruction": 0.0}, {"reconstruction": 1.0}]
    assert detector.score_path(grid, train, test_clips).shape == (2, len(test_clips))
    with pytest.raises(
        ValueError, match=r"with training__epochs=1 instead of 2: .* cannot be chosen once"
    ):
        detector.score_path([*grid, {"training__epochs": 2}], train, test_clips)
    rows = CMAE(**SMALL).score_path(
        [{"training__epochs": 1}, {"training__epochs": 2}], train, test_clips
    )
    assert not np.allclose(*rows)


def test_training_that_was_cut_goes_on_to_the_same_network(normals, tmp_path, monkeypatch):
    settings = longer(3)
    CMAE(**settings).prepare(normals, tmp_path / "whole")

    def cut(self):
        if self.current_epoch == 2:
            raise RuntimeError("power cut")

    monkeypatch.setattr(CMAETraining, "on_train_epoch_start", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        CMAE(**settings).prepare(normals, tmp_path / "cut")
    assert (tmp_path / "cut/checkpoints/last.ckpt").is_file()
    monkeypatch.undo()
    reads = []
    images = Images.__getitems__
    monkeypatch.setattr(Images, "__getitems__", lambda *asked: reads.append(1) or images(*asked))
    CMAE(**settings).prepare(normals, tmp_path / "cut")
    batches = -(-len(normals) // settings["training"].batch_size)
    assert len(reads) == (3 + SMALL["class_epochs"] - 2) * batches
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "networks.json", "shared",
    ]  # fmt: skip
    # Files are named by their content.
    one, other = (TrainedNetworks.read(tmp_path / name).files for name in ("whole", "cut"))
    assert one == other


def test_other_machines_change_the_network(fitted, train, normals, tmp_path):
    shared = CMAE(**SMALL).prepare(normals, tmp_path).fit(train)
    assert not np.allclose(shared.network_["place"], fitted.network_["place"])


def test_anomalies_are_not_trained_on(train, factory_clips, fitted, tmp_path):
    anomalies = factory_clips.where(machine="fan", label="anomaly")
    mixed = CMAE(**SMALL).prepare(Clips([*train, *anomalies], train.cache), tmp_path).fit(train)
    np.testing.assert_array_equal(mixed.network_["place"], fitted.network_["place"])


def test_the_recipe_is_what_the_network_depends_on():
    spec = CMAE(**SMALL).network_spec()
    assert spec == CMAE(reconstruction=0.1, **SMALL).network_spec()
    assert spec != CMAE(**SMALL | {"dim": 32}).network_spec()
    assert spec["class"] == "fsasd.detectors.cmae.CMAE"


def test_training_guesses_better(fitted, train):
    trained = CMAE(**longer(12) | {"reconstruction": 1.0}).fit(train)
    assert trained.moments_[0, 0] < fitted.moments_[0, 0]


def test_a_single_clip_has_no_other_to_be_far_from(train):
    with pytest.raises(TooFewClipsError, match="needs 2 clips, found 1"):
        CMAE(**SMALL).fit(train[:1])


def test_parameters_are_the_networks_and_the_banks(fitted, train):
    network = MaskedAutoencoder(128, 32, patch=16, dim=16, depth=2, heads=2)
    weights = sum(p.numel() for p in network.parameters())
    assert fitted.n_parameters() == weights + len(train) * 16
