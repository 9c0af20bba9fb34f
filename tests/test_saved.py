"""Saved detectors: what a file says is checked before anything is imported or made of it."""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline

from fsasd.detectors.autoencoder import Autoencoder
from fsasd.detectors.base import load
from fsasd.detectors.cmae import CMAE
from fsasd.detectors.flow import Flow
from fsasd.detectors.knn import KNN
from fsasd.detectors.learned import LearnedRepresentation
from fsasd.detectors.networks.classifier import Training
from fsasd.detectors.networks.training import NetworkTraining
from fsasd.detectors.outliers import Outliers
from fsasd.detectors.representations import TimeStatistics
from fsasd.detectors.saved import ARRAYS, NotAModelError, Saved, export_section, write_network
from fsasd.detectors.systems.thuee import THUEE
from fsasd.settings.objects import described, described_by_name, rebuilt


@pytest.fixture(scope="module")
def saved(factory_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    train = factory_clips.where(machine="bearing", split="train")
    Outliers(GaussianMixture(2)).fit(train).save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def alter(folder, change):
    path = folder / "detector.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(change(about) or about))


def with_class(name):
    return lambda about: about["params"].update(model={"class": name, "params": {}})


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A package that can be imported from the current folder and says so."""
    (tmp_path / "hostile.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n"
        "from sklearn.base import BaseEstimator\n"
        "from sklearn.covariance import LedoitWolf\n"
        "class Model(LedoitWolf): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "imported"
    sys.modules.pop("hostile", None)


def test_a_class_of_a_stranger_is_refused_before_it_is_imported(copy, hostile):
    alter(copy, with_class("hostile.Model"))
    message = (
        r"detector\.json: hostile\.Model is a class of neither fsasd nor sklearn: not imported"
    )
    with pytest.raises(NotAModelError, match=f"not a model of fsasd: .*{message}.*--trust hostile"):
        load(copy)
    assert "hostile" not in sys.modules
    assert not hostile.exists()


def test_a_class_of_a_trusted_package_is_made(copy, hostile):
    alter(copy, with_class("hostile.Model"))
    assert type(load(copy, ["hostile"]).model).__name__ == "Model"
    assert hostile.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "sklearn_evil.Model",
        "fsasd_evil.Model",
        "Model",
        ".Model",
        "",
        "builtins.eval",
    ],
)
def test_a_name_that_only_looks_like_ours_is_not_imported(copy, name):
    alter(copy, with_class(name))
    with pytest.raises(NotAModelError, match="neither fsasd nor sklearn: not imported"):
        load(copy)


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.base.clone",  # a function
        "sklearn.os",  # a module that another imports
        "fsasd.pipeline.runner.Runner",  # a class, but no part of a detector
        "fsasd.detectors.base.BaseEstimator",  # not where it is defined
        "sklearn.datasets.load_files",
        "sklearn.mixture.GaussianMixture.fit",
        "fsasd.nowhere.Model",
        "fsasd..Model",
        "sklearn.nothing",
    ],
)
def test_within_what_is_trusted_only_parts_of_detectors_are_made(copy, name):
    alter(copy, with_class(name))
    with pytest.raises(NotAModelError, match=r"neither a detector|not be imported"):
        load(copy)


def test_a_pipeline_reads_no_pickles(factory_clips, tmp_path):
    """Its ``memory`` is a folder of joblib's pickles, read when it is fitted, as in loading."""
    model = Pipeline([("pca", PCA(2)), ("mixture", GaussianMixture(1))])
    about = described(Outliers(model))
    assert isinstance(rebuilt(about).model, Pipeline)
    about["params"]["model"]["params"]["memory"] = str(tmp_path)
    with pytest.raises(ValueError, match="folder of pickles as its 'memory': not loaded"):
        rebuilt(about)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.pop("format") and None, "expected format 2, found none"),
        (lambda about: about.update(format=99), "expected format 2, found 99: it was written by"),
        (lambda about: about.pop("class") and None, "expected a text as 'class', found nothing"),
        (lambda about: about.update({"class": 3}), "expected a text as 'class', found 3"),
        (lambda about: about.update(params=[1]), r"expected an object as 'params', found \[1\]"),
        (lambda about: about.update(params={"k": 1}), "k: Outliers has no such argument"),
        (lambda about: about.update(detectors={"a": 1}), "class and params of the detector 'a'"),
        (lambda about: about.update(arrays=["points_"]), r"expected the arrays points_ that"),
        (lambda about: about.update(arrays=[1, 2]), r"expected the arrays 1, 2 that"),
        (lambda about: about.pop("networks") and None, "an object as 'networks', found nothing"),
        (lambda about: about.update(format=1), "expected format 2, found 1: it was written by"),
        (lambda about: [about], "expected a JSON object, found list"),
        (lambda about: about["params"]["model"], "expected format 2, found none"),
        (
            lambda about: about.update(about["params"]["model"]),
            "expected a detector or .*, found sklearn.mixture._gaussian_mixture.GaussianMixture",
        ),
        (lambda about: about["params"].update(model=7), "not a model of fsasd"),
        (lambda about: about["params"]["model"]["params"].update(n_components=-3), "n_components"),
    ],
)
def test_damaged_settings_are_named(copy, change, message):
    alter(copy, change)
    with pytest.raises(NotAModelError, match=message) as raised:
        load(copy)
    assert str(raised.value).startswith(f"not a model of fsasd: {copy / 'detector'}")


@pytest.mark.parametrize("text", ["", "{", "\x00\xff", "[" * 100_000, "nul", '{"a": 1}{'])
def test_settings_that_are_no_json_are_named(copy, text):
    (copy / "detector.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(NotAModelError, match=r"detector\.json: expected JSON"):
        load(copy)


@pytest.mark.parametrize("size", [0, 4, 8, 50, -8])
def test_damaged_arrays_are_named(copy, size):
    path = copy / "detector.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(NotAModelError, match=r"detector\.safetensors: expected safetensors"):
        load(copy)


def test_missing_arrays_are_named(copy):
    (copy / "detector.safetensors").unlink()
    with pytest.raises(NotAModelError, match=r"detector\.safetensors: the file is missing"):
        load(copy)


def rename(folder, names, **more):
    """Give arrays other names, in both files alike."""
    arrays = load_file(folder / "detector.safetensors")
    arrays = {names.get(name, name): array for name, array in arrays.items()} | more
    save_file(arrays, folder / "detector.safetensors")
    alter(folder, lambda about: about.update(arrays=list(arrays)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"points_": "score"}, "score is not a fitted attribute of fsasd"),
        ({"points_": "__class__"}, "__class__ is not a fitted attribute"),
        ({"points_": "model"}, "model is not a fitted attribute"),
        ({"points_": "others_"}, "points_"),
        ({"points_": "sizes_/a"}, "sizes_"),
    ],
)
def test_arrays_of_other_names_are_refused(copy, names, message):
    rename(copy, names)
    with pytest.raises(NotAModelError, match=message):
        load(copy)


def test_arrays_that_are_no_numbers_are_refused(copy):
    rename(copy, {}, points_=np.full((4, 3), np.nan))
    with pytest.raises(NotAModelError, match=r"safetensors: array points_ holds NaN"):
        load(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class", "params", "model", "k", "", "memory"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


def places(about, path=()):
    """Every place in a JSON value."""
    yield path
    items = about.items() if isinstance(about, dict) else []
    for key, value in items:
        yield from places(value, (*path, key))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_stands_in_the_file_is_loaded_or_named(saved, tmp_path_factory, data):
    about = json.loads((saved / "detector.json").read_text())
    path = data.draw(st.sampled_from(list(places(about))))
    value = data.draw(JSON)
    if path:
        at = about
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
    else:
        about = value
    folder = tmp_path_factory.mktemp("fuzzed")
    shutil.copy(saved / "detector.safetensors", folder)
    (folder / "detector.json").write_text(json.dumps(about))
    try:
        found = load(folder)
    except NotAModelError as error:
        found = str(error)
    assert isinstance(found, Outliers) or str(folder) in found


def test_names_of_a_file_are_those_of_the_detector():
    detector = Outliers(GaussianMixture(3))
    known = detector.get_params()
    found = dict(described_by_name(described(detector)["params"]))
    assert found.keys() == known.keys()
    assert found["model__n_components"] == 3
    assert found["representation__front_end__n_mels"] == known["representation__front_end__n_mels"]


def test_a_saved_detector_has_its_format(factory_clips, tmp_path):
    KNN().fit(factory_clips.where(machine="bearing", split="train")).save(tmp_path)
    assert json.loads((tmp_path / "detector.json").read_text())["format"] == 2


def test_a_system_that_was_saved_with_its_back_end_is_refused(copy):
    def older(about):
        about["class"] = "fsasd.detectors.systems.thuee.THUEE"
        about["params"] = {"channels": 48, "back_end": "knn", "k": 1}

    alter(copy, older)
    with pytest.raises(
        NotAModelError, match="before detectors scored learned representations: fit"
    ):
        load(copy)


class Mean(LearnedRepresentation):
    """Spectra without their mean over the clips that it is fitted to."""

    def fit(self, clips):
        self.mean_ = TimeStatistics()(clips).mean(axis=0)
        return self

    def __call__(self, clips):
        return TimeStatistics()(clips) - self.mean_

    def n_parameters(self):
        return self.mean_.size


def test_a_learned_representation_is_saved_with_the_detector_that_scores_it(
    factory_clips, tmp_path
):
    train, test = (factory_clips.where(machine="bearing", split=s) for s in ("train", "test"))
    detector = KNN(Mean(), metric="cosine").fit(train)
    detector.save(tmp_path)
    again = load(tmp_path, [Mean.__module__])
    np.testing.assert_array_equal(again.score(test), detector.score(test))
    assert again.n_parameters() == detector.n_parameters() == again.points_.size + 256
    # The representation that the fit had is not that of another one.
    plain = detector.set_params(representation=TimeStatistics()).fit(train)
    np.testing.assert_array_equal(plain.score(test), KNN(metric="cosine").fit(train).score(test))


def test_a_class_under_its_former_name_is_read(factory_clips, tmp_path):
    train, test = (factory_clips.where(machine="bearing", split=s) for s in ("train", "test"))
    system = THUEE(channels=4, dim=8, training=Training(epochs=1, seconds=0.5, classes="domain"))
    detector = KNN(system).fit(train)
    detector.save(tmp_path)
    path = tmp_path / "detector.json"
    text = path.read_text()
    former = text.replace("detectors.systems.", "detectors.").replace(".networks.c", ".c")
    assert former.count("fsasd.detectors.thuee.THUEE") == 2
    assert former.count("fsasd.detectors.classifier.Training") == 2
    path.write_text(former)
    assert load(tmp_path).score(test).tolist() == detector.score(test).tolist()


@pytest.mark.parametrize("kind", [Autoencoder, CMAE, Flow])
def test_settings_of_a_training_are_read_where_they_once_were(kind, tmp_path):
    """As of fsasd before ``training``: beside the detector's other arguments."""
    flat = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "seed": 7}
    name = f"{kind.__module__}.{kind.__qualname__}"
    written = Saved({"class": name, "params": {"frames": 2, **flat}}, {}, {})
    written.write(tmp_path)
    expected = kind(frames=2, training=NetworkTraining(**flat))
    assert described(load(tmp_path)) == described(expected)
    # Those of today are where they belong.
    alter(tmp_path, lambda about: about["params"].update(training=None))
    with pytest.raises(NotAModelError, match=r"epochs: \w+ has no such argument.*training"):
        load(tmp_path)


def test_a_representation_alone_is_no_detector(factory_clips, tmp_path):
    Mean().fit(factory_clips.where(machine="bearing", split="train")).save(tmp_path)
    with pytest.raises(NotAModelError, match=r"expected a detector, found .*Mean"):
        load(tmp_path, [Mean.__module__])


# Networks that sections share


class Averaged(KNN):
    """A detector with a network of its own, as far as saving is concerned."""

    network_attributes = frozenset({"network_"})

    def prepare(self, clips, folder, trainer=None):
        self._prepared = folder
        return self

    def fit(self, clips):
        self.network_ = {"weight": np.arange(6.0), "bias": np.zeros(2)}
        return super().fit(clips)


@pytest.fixture
def averaged(factory_clips):
    train = factory_clips.where(machine="bearing", split="train")
    return Averaged().prepare(train, "anywhere").fit(train)


@pytest.fixture
def section(averaged, tmp_path):
    folder = tmp_path / "models" / "bearing" / "section_00"
    averaged.save(folder, shared=tmp_path / "models" / "shared")
    return folder


def loaded(folder, **options):
    return load(folder, [Averaged.__module__], **options)


def test_a_network_is_saved_once_by_its_content(averaged, section, tmp_path):
    (network,) = (tmp_path / "models" / "shared").iterdir()
    assert network.name == f"{hashlib.sha256(network.read_bytes()).hexdigest()}.safetensors"
    before = network.stat().st_mtime_ns
    averaged.save(tmp_path / "models" / "fan" / "section_00", tmp_path / "models" / "shared")
    assert network.stat().st_mtime_ns == before
    assert list((tmp_path / "models" / "shared").iterdir()) == [network]
    assert not any(name.startswith("network_") for name in load_file(section / ARRAYS))
    np.testing.assert_array_equal(loaded(section).network_["weight"], np.arange(6.0))
    assert list(loaded(section).network_) == ["weight", "bias"]


def test_a_network_whose_channels_lie_last_in_memory_is_written_in_order(tmp_path):
    weights = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last)
    name = write_network({"weight": weights.numpy(), "scale": np.float32(2.0)}, [tmp_path])
    written = load_file(tmp_path / name)
    np.testing.assert_array_equal(written["weight"], np.arange(24.0).reshape(2, 3, 2, 2))
    assert written["scale"].shape == ()


def test_a_detector_that_was_not_prepared_shares_nothing(factory_clips, tmp_path):
    Averaged().fit(factory_clips.where(machine="bearing", split="train")).save(
        tmp_path / "section", shared=tmp_path / "shared"
    )
    assert not (tmp_path / "shared").exists()
    assert "network_" in vars(loaded(tmp_path / "section"))


def test_a_section_that_was_copied_alone_names_what_is_missing(section, tmp_path):
    alone = shutil.copytree(section, tmp_path / "elsewhere" / "a" / "b")
    expected = rf"network shared/[0-9a-f]+\.safetensors, .* none of .*{alone / 'shared'}.* holds it"
    with pytest.raises(FileNotFoundError, match=f"{expected}.*fsasd-store export"):
        loaded(alone)
    assert loaded(alone, shared=tmp_path / "models" / "shared").network_


def test_a_section_behind_a_link_has_the_networks_beside_the_link(section, tmp_path):
    (tmp_path / "run" / "models" / "bearing").mkdir(parents=True)
    shutil.copytree(tmp_path / "models" / "shared", tmp_path / "run" / "models" / "shared")
    shutil.rmtree(tmp_path / "models" / "shared")
    link = tmp_path / "run" / "models" / "bearing" / "section_00"
    link.symlink_to(section)
    assert loaded(link).network_


@pytest.mark.parametrize(
    "reference",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "shared/a",
        3,
        [],
        f"shared/../{'a' * 64}.safetensors",
    ],
)
def test_a_reference_that_leaves_the_models_is_not_followed(section, reference):
    alter(section, lambda about: about.update(networks={"network_": reference}))
    with pytest.raises(NotAModelError, match=r"expected shared/<sha256>\.safetensors .* followed"):
        loaded(section)


def test_a_network_further_up_is_not_searched(section, tmp_path):
    shutil.move(tmp_path / "models" / "shared", tmp_path / "shared")
    with pytest.raises(FileNotFoundError, match="none of"):
        loaded(section)


@pytest.mark.parametrize("change", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:9]])
def test_a_network_of_other_content_is_refused(section, tmp_path, change):
    (network,) = (tmp_path / "models" / "shared").iterdir()
    network.write_bytes(change(network.read_bytes()))
    with pytest.raises(NotAModelError, match="expected content with the sha256 of its name, found"):
        loaded(section)


def test_arrays_of_a_network_that_are_not_listed_are_refused(section):
    alter(section, lambda about: about.update(arrays=about["arrays"][:-1]))
    with pytest.raises(NotAModelError, match="expected the arrays"):
        loaded(section)


def test_an_exported_section_stands_alone(section, tmp_path):
    (section / "decision.json").write_text("{}")
    export_section(section, tmp_path / "alone")
    shutil.rmtree(tmp_path / "models")
    assert loaded(tmp_path / "alone").network_
    assert (tmp_path / "alone" / "decision.json").is_file()
    with pytest.raises(FileExistsError, match="expected an empty folder"):
        export_section(tmp_path / "alone", tmp_path / "alone")


def test_sections_are_exported_into_a_folder_of_models(section, tmp_path):
    written = set()
    for name in ("section_00", "section_01"):
        export_section(section, tmp_path / "new" / "bearing" / name, alone=False)
        (network,) = (tmp_path / "new" / "shared").iterdir()
        written.add(network.stat().st_mtime_ns)
    assert len(written) == 1
    shutil.rmtree(tmp_path / "models")
    assert loaded(tmp_path / "new" / "bearing" / "section_01").network_


def test_a_damaged_network_is_not_exported(section, tmp_path):
    (network,) = (tmp_path / "models" / "shared").iterdir()
    network.write_bytes(b"")
    with pytest.raises(NotAModelError, match="expected content with the sha256"):
        export_section(section, tmp_path / "alone")
