"""Every system whose networks are trained on all machines: its representation, and its scores."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from omegaconf import OmegaConf
from sklearn.base import clone
from small_systems import EACH, SCORED, SMALL, brief, mahalanobis, nearest
from test_pretrained import tiny

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.detectors.base import Detector, load
from fsasd.detectors.centres import Centres
from fsasd.detectors.cmae import CMAE
from fsasd.detectors.confidence import Confidence
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.augment import TRANSFORMS, transform
from fsasd.detectors.networks.classifier import Recordings
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.trained_networks import TrainedNetworks, load_networks
from fsasd.detectors.networks.training import NetworkTraining
from fsasd.detectors.one_of import OneOf
from fsasd.detectors.outliers import Outliers
from fsasd.detectors.pooled import Pooled
from fsasd.detectors.scoring.bank import unit
from fsasd.detectors.systems.fkie import FKIE
from fsasd.detectors.systems.mdam import MDAM
from fsasd.detectors.systems.pretrained import Pretrained
from fsasd.detectors.systems.statex import StatEx
from fsasd.detectors.systems.stgram_mfn import STgramMFN
from fsasd.detectors.systems.thuee import THUEE
from fsasd.settings.objects import described
from fsasd.testing import DetectorCase, check_export

pytestmark = pytest.mark.slow

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
CONF = Path(__file__).parents[1] / "conf"


def discriminative():
    for path in sorted((CONF / "representation").glob("*.yaml")):
        module, _, name = OmegaConf.load(path)["representation"]["_target_"].rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        # Pretrained encoders: test_pretrained.py.
        if isinstance(kind, type) and issubclass(kind, Discriminative) and kind is not Pretrained:
            yield path.stem


def quick(name, epochs=1, **settings):
    """A small representation of one network, trained for few epochs."""
    one = {"networks": 1} if "networks" in SMALL[name].get_params() else {}
    return clone(SMALL[name]).set_params(training__epochs=epochs, **one, **settings)


@pytest.fixture(scope="module")
def all_train(factory_clips):
    return factory_clips.where(split="train")


@pytest.fixture(scope="module")
def train(all_train):
    return all_train.where(machine="bearing")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


@pytest.fixture(scope="module", params=EACH)
def prepared(request, all_train, tmp_path_factory):
    """A detector whose representation is prepared."""
    folder = tmp_path_factory.mktemp(request.param)
    representation = clone(SMALL[request.param]).prepare(all_train, folder, QUIET)
    return SCORED[request.param](representation)


def of(detector):
    """The representation that a detector scores."""
    return detector.each.representation if isinstance(detector, Pooled) else detector.representation


@pytest.fixture(scope="module")
def fitted(prepared, train):
    return clone(prepared).fit(train)


@pytest.fixture(scope="module")
def fkie(all_train, tmp_path_factory):
    """The representation, prepared."""
    return clone(SMALL["fkie"]).prepare(all_train, tmp_path_factory.mktemp("fkie"), QUIET)


def test_every_one_of_the_config_group_is_tested_here():
    assert set(discriminative()) == set(SMALL)


@pytest.mark.nightly
def test_the_order_of_the_clips_does_not_change_a_prepared_detector(
    fitted, prepared, train, test_clips
):
    order = np.random.default_rng(0).permutation(len(train))
    again = clone(prepared).fit(train[order])
    np.testing.assert_allclose(again.score(test_clips), fitted.score(test_clips), rtol=1e-6)


# Every detector, beyond the rules that test_detectors.py has all of them keep


def test_two_fits_are_equal(fitted, prepared, train, test_clips):
    again = clone(prepared).fit(train)
    np.testing.assert_array_equal(again.score(test_clips), fitted.score(test_clips))


def test_any_clip_has_a_score(fitted, make_wav):
    rng = np.random.default_rng(0)
    recordings = {
        "silent": np.zeros(16_000),
        "clipped": np.sign(rng.standard_normal(16_000)),
        "click": np.ones(1),
        "short": 0.1 * rng.standard_normal(501),
        "long": 0.1 * rng.standard_normal(16_000 * 7 + 3),
    }
    clips = [Clip(make_wav(f"{name}.wav", x), "bearing") for name, x in recordings.items()]
    assert np.isfinite(fitted.score(Clips(clips))).all()


def test_a_saved_detector_scores_the_same_wherever_it_is_moved(fitted, train, test_clips, tmp_path):
    fitted.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "detector.json",
        "detector.safetensors",
    ]
    shutil.move(tmp_path / "model", tmp_path / "moved")
    loaded = load(tmp_path / "moved")
    assert described(loaded) == described(fitted)
    np.testing.assert_allclose(loaded.score(test_clips), fitted.score(test_clips), rtol=1e-6)
    assert loaded.n_parameters() == fitted.n_parameters()


def test_saved_detectors_of_several_sections_share_one_network(
    fitted, prepared, all_train, test_clips, tmp_path
):
    models = tmp_path / "models"
    other = clone(prepared).fit(all_train.where(machine="fan"))
    for machine, detector in (("bearing", fitted), ("fan", other)):
        detector.save(models / machine / "section_00", shared=models / "shared")
    trained = TrainedNetworks.read(of(prepared)._prepared)
    assert {path.name for path in (models / "shared").iterdir()} == {*trained.files}
    shutil.move(models, tmp_path / "moved")
    loaded = load(tmp_path / "moved" / "bearing" / "section_00")
    np.testing.assert_allclose(loaded.score(test_clips), fitted.score(test_clips), rtol=1e-6)
    assert loaded.n_parameters() == fitted.n_parameters()


def test_a_section_refers_to_the_networks_where_they_were_trained(fitted, test_clips, tmp_path):
    places = [tmp_path / "section" / "shared", of(fitted)._prepared / "shared"]
    fitted.save(tmp_path / "section", places)
    assert sorted(path.name for path in (tmp_path / "section").iterdir()) == [
        "detector.json",
        "detector.safetensors",
    ]
    loaded = load(tmp_path / "section", shared=places)
    np.testing.assert_allclose(loaded.score(test_clips), fitted.score(test_clips), rtol=1e-6)


# In make test, test_detectors.py exports one of them.
@pytest.mark.nightly
@pytest.mark.parametrize("prepared", SMALL, indirect=True)
def test_it_is_exported(prepared, factory_clips, tmp_path):
    assert check_export(DetectorCase(prepared, factory_clips.where(machine="bearing"), tmp_path))


def test_a_saved_detector_holds_no_path(fitted, tmp_path):
    fitted.save(tmp_path)
    assert str(of(fitted)._prepared) not in (tmp_path / "detector.json").read_text()


def test_the_spec_is_what_networks_depend_on(prepared):
    representation = of(prepared)
    before = representation.network_spec()
    assert before["training__epochs"] == 6
    assert clone(representation).set_params(training__seed=7).network_spec() != before
    assert clone(representation).set_params(training__epochs=1).network_spec() != before


def test_parameters_are_those_of_the_networks_and_the_scoring(fitted):
    representation = of(fitted)
    n_classes = len(TrainedNetworks.read(representation._prepared).classes)
    members = [representation.classifier(i, n_classes) for i in range(representation.networks)]
    networks = sum(p.numel() for member in members for p in member.network.parameters())
    assert networks < fitted.n_parameters() < networks + 100_000


@pytest.mark.parametrize("name", EACH)
def test_another_machine_is_more_anomalous(name, all_train, factory_clips, tmp_path):
    """What these detectors are trained to hear; after 75 steps they know little else."""
    detector = SCORED[name](quick(name, epochs=25))
    detector.prepare(all_train, tmp_path, QUIET)
    normal = factory_clips.where(split="test", label="normal")
    bearing, fan = (normal.where(machine=machine) for machine in ("bearing", "fan"))
    for own, other in ((bearing, fan), (fan, bearing)):
        detector.fit(all_train.where(machine=own[0].machine))
        assert np.median(detector.score(other)) > np.median(detector.score(own))


@pytest.mark.parametrize(("kind", "millions"), [(MDAM, 3.0), (THUEE, 6.0), (StatEx, 2.7)])
def test_networks_are_as_large_as_the_systems_that_they_follow(kind, millions):
    network = kind().classifier(0, 14).network
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1e6 * millions, rel=0.12)


# Preparing


def test_networks_that_are_there_are_not_trained_again(fkie, all_train):
    before = {path: path.stat().st_mtime_ns for path in fkie._prepared.iterdir()}
    again = clone(SMALL["fkie"]).prepare(Clips([]), fkie._prepared)
    assert {path: path.stat().st_mtime_ns for path in fkie._prepared.iterdir()} == before
    assert again._prepared == fkie._prepared


def test_an_interrupted_ensemble_trains_the_missing_networks(fkie, all_train, tmp_path):
    whole = TrainedNetworks.read(fkie._prepared)
    first, _ = load_networks(fkie._prepared, whole.files)
    replace(whole, folder=tmp_path, files=()).with_network(first)
    (path,) = (tmp_path / "shared").iterdir()
    stamp = path.stat().st_mtime_ns
    clone(SMALL["fkie"]).prepare(all_train, tmp_path, QUIET)
    assert path.stat().st_mtime_ns == stamp
    assert TrainedNetworks.read(tmp_path).files == whole.files
    assert len({path.name for path in (tmp_path / "shared").iterdir()} & {*whole.files}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["networks.json", "shared"]


def test_networks_that_are_gone_are_named(all_train, train, tmp_path):
    detector = quick("stgram_mfn").prepare(all_train, tmp_path, QUIET)
    (tmp_path / "networks.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"networks\.json is missing: .* Prepare the detector again"
    ):
        clone(detector).fit(train)


def test_a_folder_with_other_networks_is_refused(fkie):
    with pytest.raises(ValueError, match=r"trained with dim=8 instead of 4: use another"):
        clone(SMALL["fkie"]).set_params(dim=4).prepare(Clips([]), fkie._prepared)


@pytest.mark.parametrize(
    "change", [{"training__epochs": 1}, {"training__mixup": 0.0}, {"channels": 3}]
)
def test_what_networks_were_trained_with_cannot_be_chosen_any_more(fkie, train, test_clips, change):
    ((name, value),) = change.items()
    message = (
        rf"trained with {name}={fkie.get_params()[name]} instead of {value}: what networks are "
        "trained with cannot be chosen once it is prepared. Leave it out of the grid, or prepare"
    )
    with pytest.raises(ValueError, match=message):
        clone(fkie).set_params(**change).fit(train)
    grid = [{"k": 2}, {f"representation__{name}": value}]
    with pytest.raises(ValueError, match=message):
        KNN(fkie).score_path(grid, train, test_clips)


def test_a_grid_trains_a_detector_that_is_not_prepared(train, test_clips, monkeypatch):
    trained = []
    monkeypatch.setattr(
        FKIE, "_train", lambda *args: trained.append(args[1]) or Discriminative._train(*args)
    )
    detector = KNN(quick("fkie"))
    grid = [{}, {"representation__training__epochs": 2}, {"density": 1}, {"density": 0}]
    one, two, dense, same = detector.score_path(grid, train, test_clips)
    assert not np.allclose(one, two)
    assert not np.allclose(one, dense)
    np.testing.assert_array_equal(one, same)
    assert trained == [0, 0], "settings with equal networks share one training"
    np.testing.assert_allclose(clone(detector).fit(train).score(test_clips), one, rtol=1e-6)


def test_a_process_that_is_not_the_first_waits_for_no_file(all_train, tmp_path, monkeypatch):
    """The first writes it when it is done, which may be later."""
    monkeypatch.setattr("fsasd.detectors.networks.discriminative.rank", lambda: 1)
    monkeypatch.setattr("fsasd.detectors.cmae.rank", lambda: 1)
    small = CMAE(
        frames=32, dim=16, depth=2, heads=2, class_epochs=1, training=NetworkTraining(1, 8, 5e-4)
    )
    for name, detector in (("stgram", quick("stgram_mfn")), ("cmae", small)):
        detector.prepare(all_train, tmp_path / name, QUIET)
        assert not list((tmp_path / name).glob("*.json"))
        assert detector._prepared == tmp_path / name


def test_machines_share_one_network_in_memory(fkie, train, all_train):
    one = clone(fkie).fit(train)
    two = clone(fkie).alone(1).fit(all_train.where(machine="fan"))
    assert one._embeddings[1] is two._embeddings[1]


def test_preparing_leaves_the_random_state_to_the_caller(all_train, tmp_path):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    quick("stgram_mfn").prepare(all_train, tmp_path, QUIET)
    assert torch.equal(state, torch.get_rng_state())


def test_without_preparing_a_detector_trains_on_what_it_is_fitted_to(train, test_clips):
    detector = KNN(quick("fkie")).fit(train)
    assert int(detector.representation_.n_classes_) == len(
        {(c.domain, str(c.attributes)) for c in train}
    )
    assert np.isfinite(detector.score(test_clips)).all()
    again = clone(detector).fit(train)
    np.testing.assert_array_equal(again.score(test_clips), detector.score(test_clips))


def test_one_machine_is_one_class(train):
    with pytest.raises(ValueError, match=r"of class 'bearing\|00' only: give prepare\(\)"):
        STgramMFN().fit(train)


def test_a_machine_that_was_not_trained_on_is_named(all_train, tmp_path, train):
    others = all_train[[clip.machine != "bearing" for clip in all_train]]
    detector = Confidence(quick("stgram_mfn", training__classes="machine"))
    with pytest.raises(ValueError, match=r"class 'bearing' was not trained on.*known are fan, "):
        detector.prepare(others, tmp_path, QUIET).fit(train)


def test_no_clip_is_refused(prepared, train):
    with pytest.raises(ValueError, match="found 0"):
        clone(prepared).fit(train[[]])


def test_anomalies_are_classes_only_with_outlier_exposure(all_train, tmp_path):
    made = Clips([replace(clip, label="anomaly") for clip in all_train[:4]], all_train.cache)
    clips = Clips([*all_train, *made], all_train.cache)
    alone = quick("stgram_mfn", training__classes="machine")
    alone.prepare(clips, tmp_path / "without", QUIET)
    found = json.loads((tmp_path / "without" / "networks.json").read_text())["classes"]
    assert found == ["bearing", "fan", "valve"]
    exposed = alone.set_params(training__outlier_exposure=True)
    assert exposed.synthetic_labels() == {"anomaly"}
    clone(exposed).prepare(clips, tmp_path / "with", QUIET)
    found = json.loads((tmp_path / "with" / "networks.json").read_text())["classes"]
    assert found == ["bearing", "fan", "fan|anomaly", "valve"]


# What scores mean


def test_the_mean_or_the_highest_of_the_networks_scores_counts(fkie, train, test_clips):
    mean = Pooled(Centres(fkie, k=4)).fit(train)
    each = [Centres(fkie.alone(i), k=4).fit(train).score(test_clips) for i in range(2)]
    np.testing.assert_array_equal(mean.score(test_clips), np.mean(each, axis=0))
    highest = clone(mean).set_params(pool="max").fit(train).score(test_clips)
    np.testing.assert_array_equal(highest, np.max(each, axis=0))
    assert (highest > np.mean(each, axis=0)).any()
    assert mean.n_parameters() == sum(
        detector.n_parameters() for detector in mean.detectors_.values()
    )


def test_a_clip_is_decoded_once_for_all_pooled_networks(fkie, train, test_clips, tmp_path):
    class Noting(FeatureCache):
        def __init__(self):
            super().__init__()
            self.decoded = []

        def read(self, clip, reading):
            self.decoded.append(clip.path)
            return super().read(clip, reading)

    cache = Noting()
    pooled = Pooled(Centres(fkie, k=4)).fit(Clips(list(train), cache))
    assert sorted(cache.decoded) == sorted(clip.path for clip in train)
    expected = pooled.score(test_clips)
    pooled.save(tmp_path)
    cache = Noting()
    scores = load(tmp_path).score(Clips(list(test_clips), cache))
    assert sorted(cache.decoded) == sorted(clip.path for clip in test_clips)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_what_cannot_be_pooled_is_refused(fkie, train):
    with pytest.raises(ValueError, match="each: expected a detector on a learned representation"):
        Pooled(KNN()).fit(train)
    with pytest.raises(ValueError, match="pool 'min': expected one of max, mean"):
        Pooled(KNN(fkie), pool="min").fit(train)


def test_a_detector_sees_unit_vectors_of_all_networks_as_one(fkie, train, test_clips):
    each = [clone(fkie).alone(i).fit(train)(test_clips) for i in range(2)]
    together = clone(fkie).fit(train)(test_clips)
    np.testing.assert_allclose(together, np.concatenate([unit(one) for one in each], axis=1))
    scores = [nearest(fkie.alone(i)).fit(train).score(test_clips) for i in range(2)]
    # A cosine of concatenated unit vectors is the mean of their cosines; here for the same clip.
    assert (nearest(fkie).fit(train).score(test_clips) >= np.mean(scores, axis=0) - 1e-9).all()


def test_confidence_asks_one_network_that_classifies(fkie, train):
    with pytest.raises(ValueError, match="expected a representation by one network, found 2"):
        Confidence(fkie).fit(train)
    with pytest.raises(ValueError, match="expected a representation by a network that classifies"):
        Confidence(KNN().representation).fit(train)


def test_fkie_is_one_of_the_two_published_versions():
    """main_old.py: all examples mixed, 16 k-means centres, the sum of ten networks."""
    representation = FKIE()
    training = representation.training
    assert (representation.networks, training.epochs, training.batch_size) == (10, 10, 64)
    assert training.mixup == 1.0
    assert "main_old.py" in FKIE.__doc__
    shipped = OmegaConf.load(CONF / "representation" / "fkie.yaml").representation
    for name, value in representation.get_params().items():
        if name not in ("training", "training__seed"):
            assert OmegaConf.select(shipped, name.replace("__", ".")) == value, name
    detector = OmegaConf.load(CONF / "detector" / "fkie.yaml").detector
    assert (detector.pool, detector.each.k) == ("mean", 16)
    assert detector.each._target_ == "fsasd.detectors.centres.Centres"


def test_a_training_clip_of_the_target_domain_has_no_distance_to_itself(fkie, train):
    target = train.where(domain="target")
    np.testing.assert_allclose(Pooled(Centres(fkie)).fit(train).score(target), 0, atol=1e-6)


def test_stgram_scores_are_minus_log_p_of_the_machines_class(
    all_train, train, test_clips, tmp_path
):
    representation = quick("stgram_mfn", training__classes="machine")
    detector = Confidence(representation).prepare(all_train, tmp_path, QUIET).fit(train)
    member = detector.representation_._embeddings[0].classifier
    waveform = torch.from_numpy(test_clips.cache.read(test_clips[0])[:8000])[None]
    cosines = torch.nn.functional.linear(
        torch.nn.functional.normalize(member.network(waveform)),
        torch.nn.functional.normalize(member.head.centres[:, 0]),
    )[0]
    angle = cosines[0].acos() + 0.7
    logits = 30 * torch.stack([angle.cos(), *cosines[1:]])
    expected = -logits.log_softmax(dim=0)[0].item()
    assert detector.score(test_clips[[0]])[0] == pytest.approx(expected, rel=1e-4)


# Several GPUs


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_was_normalised_together_is_the_same_network(name):
    """Lightning exchanges layers for the training on several GPUs, and back."""
    torch.manual_seed(0)
    classifier = SMALL[name].classifier(0, 5)
    waveforms = 0.1 * torch.randn(4, 8000)
    expected, kept = classifier.eval()(waveforms), classifier.weights()
    sync = TorchSyncBatchNorm()
    trained = sync.apply(classifier)
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in trained.modules())
    back = sync.revert(trained)
    assert back.weights().keys() == kept.keys()
    again = SMALL[name].classifier(0, 5)
    again.load_weights(back.weights())
    torch.testing.assert_close(again.eval()(waveforms), expected)


# Half precision, deterministic algorithms


@pytest.mark.nightly
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    "name", [*EACH, "cmae", "ast", pytest.param("clap", marks=pytest.mark.nightly)]
)
def test_every_network_trains_in_half_precision_and_with_deterministic_algorithms(
    name, all_train, train, test_clips, tmp_path
):
    if name == "cmae":
        detector = CMAE(
            frames=32,
            dim=16,
            depth=2,
            heads=2,
            class_epochs=1,
            training=NetworkTraining(1, 8, 5e-4),
        )
    elif name in SMALL:
        # Up to a second, a last convolution halves maps of two frames, and oneDNN's bfloat16
        # kernels, on a CPU, then read what was never written: NaN now and then.
        detector = SCORED[name](quick(name, epochs=4, training__seconds=2.0))
    else:
        for part in tiny(name):
            part.save_pretrained(tmp_path / "encoder")
        encoder = str(tmp_path / "encoder")
        settings = {"dim": 8, "mask_bins": 4, "mask_frames": 4}
        detector = nearest(brief(Pretrained, encoder=encoder, **settings))
    detector.prepare(all_train, tmp_path / "prepared", {**QUIET, "precision": "bf16-mixed"})
    assert np.isfinite(detector.fit(train).score(test_clips)).all()


# Detectors of detectors


class Pair(Detector):
    """Adds the scores of two detectors."""

    def __init__(self, members=None):
        self.members = members

    def fit(self, clips):
        self.fitted = [clone(member).fit(clips) for member in self.members.values()]
        return self

    def score(self, clips):
        return sum(member.score(clips) for member in self.fitted)


def test_networks_within_detectors_are_trained_once_each(all_train, train, test_clips, tmp_path):
    one, other = quick("stgram_mfn"), quick("stgram_mfn", training__seed=1)
    pair = Pair(
        {"one": nearest(one), "two": Pair({"a": KNN(other), "b": Outliers(), "c": KNN(one)})}
    )
    assert set(pair.network_spec()) == {"one", "two"}
    assert [part.network_spec() for part in pair.to_prepare()] == [
        one.network_spec(), other.network_spec(), one.network_spec(),
    ]  # fmt: skip
    copy = clone(pair.prepare(all_train, tmp_path, QUIET))
    assert {path.name for path in tmp_path.iterdir()} == {"network_0", "network_1"}
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert np.isfinite(copy.fit(train).score(test_clips)).all()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps
    assert [part._prepared.name for part in copy.to_prepare()] == [
        "network_0", "network_1", "network_0",
    ]  # fmt: skip


def test_a_network_has_the_same_spec_whatever_detector_scores_it():
    """So that a sweep over detectors, or a grid over several, trains it once."""
    representation = SMALL["stgram_mfn"]
    detectors = [
        KNN(representation, density=4),
        mahalanobis(representation),
        Confidence(representation),
        Pooled(Centres(representation)),
        OneOf({"a": KNN(representation), "b": Confidence(representation)}, use="a"),
        Ensemble({"a": KNN(), "b": KNN(representation)}),
    ]
    for detector in detectors:
        for part in detector.to_prepare():
            assert part.network_spec() == representation.network_spec()
        assert detector.to_prepare()
        assert not detector.trains_network


@pytest.mark.parametrize("settings", [{"density": 2}, {"domains": "separate"}, {"smote": 0.5}])
def test_any_setting_of_knn_applies_to_learned_embeddings(fkie, train, test_clips, settings):
    detector = nearest(fkie).set_params(**settings)
    (row,) = nearest(fkie).score_path([settings], train, test_clips)
    fitted = detector.fit(train)
    np.testing.assert_array_equal(fitted.score(test_clips), row)
    points = detector.representation_(train)
    plain = KNN(lambda clips: points if clips is train else detector.representation_(clips))
    plain.set_params(metric="cosine", **settings)
    np.testing.assert_array_equal(plain.fit(train).score(test_clips), row)


def test_a_detector_without_networks_has_nothing_to_prepare(all_train, tmp_path):
    pair = Pair({"one": Pair({})})
    assert pair.network_spec() == {}
    pair.prepare(all_train, tmp_path)
    assert not list(tmp_path.iterdir())


# Systems


def loss_of(detector, all_train, n=8):
    """A classifier with the examples of the clips, and a batch of them."""
    torch.manual_seed(0)
    examples = Recordings(all_train, detector.training.classes, 0.5)
    model = detector.classifier(0, len(examples.classes))
    model.set_examples(examples, seed=0)
    asked = [(i, 0.0) for i in range(0, len(examples), len(examples) // n)][:n]
    waveforms, labels = zip(*(examples[a] for a in asked), strict=True)
    targets = torch.nn.functional.one_hot(torch.tensor(labels), len(examples.classes))
    return model, torch.stack(waveforms), targets.float()


def test_zeng_depends_on_no_low_frequencies():
    torch.manual_seed(0)
    network = clone(SMALL["zeng"]).set_params(high_pass=1000.0).classifier(0, 3).network
    network.mobilefacenet = torch.nn.Identity()
    sound, t = torch.randn(1, 8000), torch.arange(8000) / 16_000
    plain, hum, whistle = (
        network(sound + 10 * torch.sin(2 * torch.pi * hz * t)) for hz in (0, 500, 2000)
    )
    # Below, both are what rounding leaves.
    audible = plain > -40
    assert audible.float().mean() > 0.5
    torch.testing.assert_close(hum[audible], plain[audible], atol=0.1, rtol=0)
    assert (hum[~audible] < -40).all()
    assert (whistle - plain).max() > 20


@pytest.mark.parametrize("name", ["zeng", "clp_scf"])
def test_a_second_stage_follows_the_first(name, all_train, monkeypatch):
    model, waveforms, targets = loss_of(SMALL[name], all_train)
    embeddings = model.network.eval()(waveforms)
    stages = [model.first_loss(embeddings, targets), model.head(embeddings, targets).mean()]
    assert stages[0].item() != pytest.approx(stages[1].item())
    for epoch, expected in ((0, stages[0]), (2, stages[0]), (3, stages[1]), (5, stages[1])):
        monkeypatch.setattr(type(model), "current_epoch", epoch)
        torch.testing.assert_close(model.loss(waveforms, targets), expected)
    # Several processes wait for the gradients of all weights, whatever the stage.
    model.loss(waveforms, targets).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_zengs_first_stage_classifies_machines(all_train):
    model, _, targets = loss_of(SMALL["zeng"], all_train)
    assert model.machine.shape == (targets.shape[1], 3)
    names = model.examples.classes
    for row, name in zip(model.machine, names, strict=True):
        machine = ["bearing", "fan", "valve"][int(row.argmax())]
        assert name.startswith(f"{machine}|")


def test_zengs_margin_and_scale_are_those_of_both_stages(all_train):
    model, _, _ = loss_of(clone(SMALL["zeng"]).set_params(margin=0.2, scale=8.0), all_train)
    for head in (model.machines, model.head):
        assert (head.margin, head.scale) == (0.2, 8.0)


def test_statex_needs_its_exchanges_for_training_only(all_train):
    model, waveforms, targets = loss_of(SMALL["statex"], all_train)
    assert model.exchanges.centres.shape[0] == 9 * targets.shape[1]
    assert model.exchanges.centres.requires_grad
    assert not model.head.centres.requires_grad
    assert not any("exchanges" in name for name in model.weights())
    model.loss(waveforms, targets).backward()
    assert model.exchanges.centres.grad.abs().sum() > 0


def test_statex_without_exchanges_has_targets_in_the_first_ninth(all_train, monkeypatch):
    detector = clone(SMALL["statex"]).set_params(statex=0.0, featex=0.0, training__mixup=0.0)
    model, waveforms, targets = loss_of(detector, all_train)
    received = []
    monkeypatch.setattr(
        model.exchanges,
        "forward",
        lambda embeddings, y: received.append(y) or embeddings.sum(dim=1),
    )
    model.loss(waveforms, targets)
    n = targets.shape[1]
    assert torch.equal(received[0][:, :n], targets)
    assert not received[0][:, n:].any()


def test_ibms_second_classifier_has_the_untransformed_class(all_train, train, test_clips, tmp_path):
    representation = quick("ibm_confidence")
    first, second = (representation.classifier(i, 30) for i in (0, 1))
    assert first.head.linear.out_features == 30
    assert second.head.linear.out_features == len(TRANSFORMS)
    detector = SCORED["ibm_confidence"](representation)
    detector.prepare(all_train, tmp_path, QUIET).fit(train)
    untransformed = detector.detectors_["1"].classes_
    assert untransformed.tolist() == [True] + [False] * (len(TRANSFORMS) - 1)
    p = []
    for i, one in detector.detectors_.items():
        head = one.representation_._embeddings[int(i)].classifier.head
        points = torch.from_numpy(one.representation_(test_clips)).float()
        probabilities = head.linear(points).softmax(dim=1).numpy()
        p.append(probabilities[:, one.classes_].sum(axis=1))
    np.testing.assert_allclose(detector.score(test_clips), 1 - np.mean(p, axis=0), rtol=1e-4)


def test_ibms_second_classifier_is_not_trained_on_anomalies(all_train):
    made = [replace(clip, label="anomaly") for clip in all_train[:2]]
    examples = Recordings(Clips([*all_train[2:], *made], all_train.cache), "machine", 0.5)
    assert [name for name in examples.classes if "anomaly" in name] == ["fan|anomaly"]
    torch.manual_seed(0)
    model = SMALL["ibm_confidence"].classifier(1, len(examples.classes))
    model.set_examples(examples, seed=0)
    targets = torch.nn.functional.one_hot(torch.tensor([0, 2, 3, 1]), 4).float()

    def gradients(waveforms, targets):
        torch.manual_seed(1)
        model.zero_grad()
        # In training, batches are normalised together.
        loss = model.eval().loss(waveforms, targets)
        loss.backward()
        return loss, [p.grad.clone() for p in model.parameters()]

    waveforms = 0.1 * torch.randn(4, 8000)
    other = torch.where(targets[:, [2]] > 0, torch.randn(4, 8000), waveforms)
    (loss, before), (same, after) = (gradients(x, targets) for x in (waveforms, other))
    assert loss == same
    assert all(map(torch.equal, before, after))
    # Of normal clips alone it is the mean over all, to the last bit.
    targets = torch.eye(4)[[0, 1, 3, 0]]
    torch.manual_seed(1)
    kinds = torch.randint(len(TRANSFORMS), (4,))
    done = torch.nn.functional.one_hot(kinds, len(TRANSFORMS)).float()
    expected = model.head(model.network(transform(waveforms, kinds)), done).mean()
    assert gradients(waveforms, targets)[0] == expected


def test_mdam_blends_domains_in_training_only(all_train):
    model, _, _ = loss_of(clone(SMALL["mdam"]).set_params(blend=1.0), all_train)
    blend = model.network[1].shallow[1]
    maps = torch.rand(4, 3, 5, 6)
    assert torch.equal(blend.eval()(maps), maps)
    blended = blend.train()(maps)
    assert not torch.equal(blended, maps)
