"""Every detector of the config group keeps every rule; then the base class, and TWFR-GMM."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import fsasd.conf
import hydra
import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture

import fsasd.cli.main
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip, read_clips
from fsasd.detectors import available
from fsasd.detectors.base import Detector, TooFewClipsError, load
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.knn import KNN
from fsasd.detectors.outliers import Outliers
from fsasd.detectors.representations import TimeStatistics, TimeWeighted
from fsasd.detectors.scoring.gaussian_mixture import fit_gaussian_mixtures
from fsasd.detectors.scoring.time_weighting import time_weights, twfr
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.thresholds import held_out_scores
from fsasd.testing import DetectorCase, check_export, detector_checks

pytestmark = pytest.mark.slow

BRIEF = [
    "representation.training.seconds=0.5",
    "representation.training.batch_size=16",
    "representation.training.epochs=6",
]
SMALL_FKIE = [
    *BRIEF,
    "representation.networks=2",
    "representation.dim=8",
    "representation.channels=2",
    "representation.clusters=2",
]
CLASSES = "representation.training.classes=machine+section+attributes+domain"
LEARNED = {
    "anopatch": [*BRIEF, "representation.dim=8"],
    "guan_heu_attributes": [*BRIEF, "representation.dim=8"],
    "lv_huakong": [*BRIEF, "representation.dim=8"],
    # These two ask how sure the network is: as little training as above makes it sure of nothing,
    # and white noise is then no more anomalous than a normal clip.
    "clp_scf": [
        *BRIEF,
        "representation.training.epochs=20",
        "representation.width=0.125",
        "representation.first_epochs=3",
        "representation.training.learning_rate=2e-3",
    ],
    "stgram_mfn": [
        *BRIEF,
        "representation.training.epochs=30",
        "representation.width=0.125",
        "representation.training.learning_rate=2e-3",
    ],
    "fkie": SMALL_FKIE,
    "ibm_confidence": [*BRIEF, CLASSES, "representation.width=0.125"],
    "mdam": [*BRIEF, "representation.channels=4", "representation.dim=8"],
    "statex": SMALL_FKIE,
    "thuee": [*BRIEF, "representation.channels=8", "representation.dim=32"],
    "zeng": [
        *BRIEF,
        "representation.width=0.125",
        "representation.dim=8",
        "representation.first_epochs=3",
    ],
}
"""What makes a learned representation of the config group quick to try."""

TINY = {
    **LEARNED,
    "fkie": [*SMALL_FKIE, "detector.each.k=4"],
    "statex": [*SMALL_FKIE, "detector.each.k=4"],
    "centres": ["detector.k=4"],
    # With larger steps, last bits of a processor decide what it has learnt.
    "autoencoder": [
        "detector.training.epochs=24",
        "detector.training.batch_size=32",
        "detector.training.learning_rate=3e-3",
    ],
    "cmae": [
        "detector.frames=32",
        "detector.dim=32",
        "detector.depth=2",
        "detector.training.epochs=3",
        "detector.class_epochs=1",
        "detector.training.batch_size=8",
        "detector.training.learning_rate=2e-3",
    ],
    "ensemble": ["detector.folds=2"],
    "guan_heu": ["detector.folds=2", *LEARNED["guan_heu_attributes"]],
    "flow": [
        "detector.blocks=2",
        "detector.hidden=64",
        "detector.training.epochs=4",
        "detector.training.batch_size=64",
    ],
}
"""What makes a detector of the config group quick to try; the yaml's settings are for use."""


FINE_TUNED = ("anopatch", "guan_heu_attributes", "lv_huakong")
ENCODERS = (
    "ast", "beats", "ced", "clap", "dasheng", "data2vec", "eat", "exported", "hubert", "pe_audio",
    "wav2vec2", "wavlm",
)  # fmt: skip


def small(representation, tiny_encoders):
    """Overrides that put an encoder with random weights in the place of a pretrained one."""
    if representation in FINE_TUNED:
        return [f"representation.encoder={tiny_encoders('ast')}"]
    if representation not in ENCODERS:
        return []
    where = "path" if representation == "exported" else "checkpoint"
    path = tiny_encoders(representation)
    shorter = ["representation.front_end.seconds=0.5"] if representation == "exported" else []
    return [f"representation.front_end.{where}={path}", "representation.layer=-1", *shorter]


def composed(name, *overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", [f"detector={name}", *TINY.get(name, []), *overrides])


def configured(name, *overrides):
    return hydra.utils.instantiate(composed(name, *overrides).detector, _convert_="all")


FURTHER = {
    "autoencoder", "clp_scf", "cmae", "fkie", "guan_heu_attributes", "guan_heu_system2",
    "ibm_confidence", "lv_huakong", "mdam", "statex", "stgram_mfn", "thuee", "twfr_gmm_max",
    "twfr_gmm_mean", "twfr_gmm_paper", "zeng",
}  # fmt: skip
"""Other settings of a class, or other networks, than those of a detector that is tried in each
``make test``. There, networks of these are trained, scored and saved (test_discriminative.py has
one, test_pretrained.py, test_autoencoder.py, test_cmae.py), and all are made by name."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.nightly if name in FURTHER else ())
        for name in available()
    ],
)
def case(request, factory_clips, tiny_encoders, tmp_path_factory):
    name = request.param
    overrides = small("ast", tiny_encoders) if name == "genrep" else []
    if name in (*FINE_TUNED, "guan_heu"):
        overrides = small("anopatch", tiny_encoders)
    cfg = composed(name, *overrides)
    detector = hydra.utils.instantiate(cfg.detector, _convert_="all")
    settings = hydra.utils.instantiate(cfg.selection, _convert_="all").settings()
    folder = tmp_path_factory.mktemp(name)
    if detector.network_spec():
        quiet = {"accelerator": "cpu", "enable_progress_bar": False}
        detector.prepare(factory_clips.where(split="train"), folder / "prepared", quiet)
    clips = factory_clips.where(machine="bearing")
    # The small encoders have no layers but these.
    grid = [
        {key: min(value, 2) if key.endswith("__layer") else value for key, value in params.items()}
        for params in (settings[0], settings[-1])
    ]
    return DetectorCase(detector, clips, folder, grid)


@pytest.mark.parametrize("check", detector_checks(), ids=lambda check: check.__name__)
def test_every_detector_keeps_every_rule(case, check):
    check(case)


def test_every_detector_but_those_of_pretrained_encoders_is_exported(case, request):
    name = request.node.callspec.params["case"]
    assert check_export(case) == (name not in {*FINE_TUNED, "genrep", "guan_heu"})


HEARS_POLARITY = {"clp_scf", "stgram_mfn"}
"""Their network has the waveform itself as an input, beside its log-mel."""


def test_a_recording_of_the_other_polarity_has_the_same_score(case, request):
    flipped = [
        case.recording(f"flipped-{i}", -case.test.cache.read(clip), like=clip)
        for i, clip in enumerate(case.test)
    ]
    scores = case.fitted.score(Clips(flipped, case.test.cache))
    same = np.abs(scores - case.scores).max() <= 1e-6 * np.ptp(case.scores)
    assert same == (request.node.callspec.params["case"] not in HEARS_POLARITY)


def test_what_is_available_is_the_config_group():
    assert {"knn", "lof", "twfr_gmm"} <= set(available())
    assert available() == sorted(available())


REPRESENTATIONS = sorted(
    path.stem for path in (Path(fsasd.conf.__file__).parent / "representation").glob("*.yaml")
)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_detector_takes_any_representation(representation, two_microphones, tiny_encoders):
    # Some take both channels.
    cache = FeatureCache(channel="near")
    clips = Clips(read_clips(two_microphones), cache).where(machine="bearing")
    overrides = [*LEARNED.get(representation, []), *small(representation, tiny_encoders)]
    if representation in LEARNED:
        # On the clips of one machine.
        overrides += ["representation.training.epochs=1", CLASSES]
    cfg = composed("lof", f"representation={representation}", *overrides)
    detector = hydra.utils.instantiate(cfg.detector, _convert_="all")
    assert type(detector.representation).__name__ in cfg.representation._target_
    selector = hydra.utils.instantiate(cfg.selection, _convert_="all")
    selector.check(detector)
    varied = any(key.startswith("representation__") for grid in selector.grids for key in grid)
    # What networks are trained with is no setting to choose for a machine.
    assert varied == (representation not in LEARNED)
    train, test = clips.where(split="train"), clips.where(split="test")
    assert np.isfinite(detector.fit(train).score(test)).all()


def test_a_representation_that_the_detector_does_not_take_is_refused():
    cfg = composed("twfr_gmm", "representation=patches")
    selector = hydra.utils.instantiate(cfg.selection, _convert_="all")
    with pytest.raises(ValueError, match="TWFRGMM has no parameter representation__segments"):
        selector.check(TWFRGMM())


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


# The base class


GRIDS = {
    TWFRGMM: [
        {"r": 0.0},
        {"r": 1.1, "n_components": 1},
        {"r": 1.0},
        {"n_components": 1},
        {"r": 0.46, "n_components": 1},
        {"r": 0.97, "covariance": "shrunk"},
    ],
    KNN: [
        {"k": 2, "representation__pool_by": "max"},
        {"representation": TimeWeighted(r=0.9)},
        {"k": 3},
        {"density": 2, "k": 2},
        {"k": 2},
    ],
}


@pytest.mark.parametrize("kind", GRIDS, ids=lambda kind: kind.__name__)
def test_a_score_path_equals_fitting_one_by_one(kind, train, test_clips):
    grid, detector = GRIDS[kind], kind()
    rows = detector.score_path(grid, train, test_clips)
    assert rows.shape == (len(grid), len(test_clips))
    for row, params in zip(rows, grid, strict=True):
        one = clone(detector).set_params(**params).fit(train)
        # So few clips make covariances nearly singular, which magnifies rounding.
        np.testing.assert_allclose(row, one.score(test_clips), rtol=1e-7)
    with pytest.raises(NotFittedError):
        detector.score(test_clips)


def test_settings_that_only_scoring_looks_at_share_a_fit(train, test_clips, monkeypatch):
    fits = []
    fit = KNN.fit
    monkeypatch.setattr(
        KNN, "fit", lambda self, clips: fits.append(self.density) or fit(self, clips)
    )
    KNN(k=3).score_path([{}, {"k": 1}, {"density": 2}, {"k": 1, "density": 2}], train, test_clips)
    assert fits == [0, 2]


def test_the_fallback_of_the_base_class_gives_the_same_path(train, test_clips):
    grid = GRIDS[TWFRGMM]
    np.testing.assert_allclose(
        Detector.score_path(TWFRGMM(), grid, train, test_clips),
        TWFRGMM().score_path(grid, train, test_clips),
        rtol=1e-7,
    )


@dataclass(frozen=True)
class Nested:
    inner: TimeWeighted = field(default_factory=TimeWeighted)


class Loose(Detector):
    """A detector of settings only."""

    def __init__(self, part=None):
        self.part = part

    def fit(self, clips):
        self.learnt_ = np.zeros(1)
        return self

    def score(self, clips):
        return np.zeros(len(clips))


def test_parameters_of_parts_are_reached_by_two_underscores():
    detector = Loose({"a": Nested(), "b": GaussianMixture(3)})
    params = detector.get_params()
    assert params["part__a__inner__r"] == 1.0
    assert params["part__b__n_components"] == 3
    before = detector.part
    detector.set_params(part__a__inner__r=0.5, part__b__n_components=2)
    assert detector.get_params()["part__a__inner__r"] == 0.5
    assert detector.part["b"].n_components == 2
    assert before["a"] == Nested(), "frozen parts are replaced, not altered"
    assert "part__a" not in detector.get_params(deep=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("parts", "Loose has no parameter 'parts': it has part"),
        ("b__x", "Loose has no parameter 'b': it has part"),
        ("part__x", "dict has no parameter 'x': it has a"),
        ("part__a__x", "TimeWeighted has no parameter 'x': it has front_end, r"),
    ],
)
def test_an_unknown_nested_parameter_is_refused_with_the_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        Loose({"a": TimeWeighted()}).set_params(**{name: 1})


def test_detectors_in_a_mapping_go_by_their_names():
    detector = Ensemble(
        {"near": KNN(), "inner": Ensemble({"far": KNN(k=3)})}, weights={"near": 2.0}
    )
    params = detector.get_params()
    assert params["near__k"] == 1
    assert params["inner__far__k"] == 3
    assert params["weights__near"] == 2.0
    detector.set_params(near__k=2, inner__far__representation__pool_by="max", weights__near=0.5)
    assert detector.detectors["near"].k == 2
    assert detector.get_params()["inner__far__representation"] == TimeStatistics(pool_by="max")
    detector.set_params(near=TWFRGMM(r=0.5))
    assert detector.get_params()["near__r"] == 0.5


class Shared(Loose):
    """Learns something of all machines."""

    def network_spec(self):
        return {"part": self.part}

    def prepare(self, clips, folder, trainer=None):
        folder.mkdir(parents=True)
        (folder / "n_clips").write_text(str(len(clips)))
        return self


def test_nested_detectors_are_prepared_in_separate_folders(train, tmp_path):
    detector = Ensemble({"a": Shared(1), "knn": KNN(), "in": Ensemble({"b": Shared(2)})})
    assert detector.network_spec() == {"a": {"part": 1}, "in": {"b": {"part": 2}}}
    assert detector.prepare(train, tmp_path) is detector
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("n_clips"))] == [
        "network_0/n_clips",
        "network_1/n_clips",
    ]


def test_nested_settings_are_saved(train, tmp_path):
    parts = {"part": [Nested(TimeWeighted(r=0.25)), GaussianMixture(3), None, {"b": (1, True)}]}
    Loose(**parts).fit(train).save(tmp_path)
    loaded = load(tmp_path, [__name__])
    assert loaded.part[0] == Nested(TimeWeighted(r=0.25))
    assert loaded.part[1].get_params() == GaussianMixture(3).get_params()
    assert loaded.part[2:] == [None, {"b": [1, True]}]


def test_detectors_within_detectors_are_saved(train, test_clips, tmp_path):
    inner = Ensemble({"knn": KNN(), "outliers": Outliers()}, folds=2)
    outer = Ensemble({"inner": inner, "knn": KNN(k=2)}, folds=2).fit(train)
    outer.save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.members_["inner"].members_["knn"].k == 1
    np.testing.assert_array_equal(loaded.score(test_clips), outer.score(test_clips))


def test_a_parameter_that_is_no_json_is_named(train, tmp_path):
    with pytest.raises(TypeError, match=r"parameter part\.f=<.*> cannot be saved: expected JSON"):
        Loose({"f": len}).fit(train).save(tmp_path)


def test_only_detectors_and_their_settings_are_made_from_a_file(train, tmp_path):
    Loose(None).fit(train).save(tmp_path)
    about = json.loads((tmp_path / "detector.json").read_text())
    about["params"]["part"] = {"class": "os.system", "params": {}}
    (tmp_path / "detector.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"os\.system is a class of neither"):
        load(tmp_path, [__name__])


def test_loading_from_a_folder_without_a_detector_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name} holds no saved detector"):
        load(tmp_path)


def test_a_detector_without_both_methods_cannot_be_made():
    class Deaf(Detector):
        def fit(self, clips):
            return self

    with pytest.raises(TypeError, match="score"):
        Deaf()


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


def test_fewer_clips_than_components_are_refused(train):
    with pytest.raises(TooFewClipsError, match=r"4 components need as many clips, found 3"):
        TWFRGMM(n_components=4).fit(train[:3])


def test_copies_of_fewer_clips_than_components_are_refused(train, test_clips):
    """A component without a clip would have its mean at 0 dB, and such a sound be normal."""
    with pytest.raises(TooFewClipsError, match=r"need as many different clips, found 1 among 4$"):
        TWFRGMM().fit(train[[2, 2, 2, 2]])
    one, copies = (TWFRGMM(n_components=1).fit(train[rows]) for rows in ([2], [2, 2, 2]))
    np.testing.assert_allclose(one.score(test_clips), copies.score(test_clips), rtol=1e-9)


def test_a_negative_time_weight_is_no_lack_of_clips(train, test_clips):
    for clips in (train, train[:1]):
        with pytest.raises(ValueError, match=r"r: expected 0 or more, found -0\.1") as error:
            TWFRGMM(r=-0.1).fit(clips)
        assert not isinstance(error.value, TooFewClipsError)
    with pytest.raises(ValueError, match=r"r: expected 0 or more, found -0\.5"):
        TWFRGMM().score_path([{"r": 1.0}, {"r": -0.5}], train, test_clips)


def test_an_unknown_covariance_is_refused(train):
    with pytest.raises(ValueError, match="covariance 'diag': expected 'auto', 'full' or 'shrunk'"):
        TWFRGMM(covariance="diag").fit(train)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "auto"),
        (["detector=guan_heu_system2"], "full"),
        *([[f"experiment=table{number}"], "full"] for number in range(2, 7)),
    ],
)
def test_what_reproduces_the_paper_has_its_covariance(overrides, expected):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        assert compose("config", overrides).detector.covariance == expected


def test_few_clips_have_scores_on_one_scale(train, test_clips):
    """16 clips in 128 bins: a full covariance has training clips at -600 and others at 1e7."""
    detector = TWFRGMM().fit(train)
    normal = test_clips.where(label="normal")
    known, held_out, new = (
        detector.score(train),
        held_out_scores(detector.resolved(), train),
        detector.score(normal),
    )
    assert np.ptp(np.concatenate([known, held_out, new])) < 1000
    assert abs(np.median(new) - np.median(held_out)) < 3 * held_out.std()
    full = clone(detector).set_params(covariance="full").fit(train)
    assert np.median(full.score(normal)) - np.median(full.score(train)) > 1e6


@pytest.mark.parametrize(("clips_per_bin", "expected"), [(1 / 128, "full"), (9 / 128, "shrunk")])
def test_the_covariance_is_one_along_r(train, test_clips, monkeypatch, clips_per_bin, expected):
    """Of two components of 16 clips the smaller has 1 to 8 where EM starts."""
    monkeypatch.setattr("fsasd.detectors.scoring.gaussian_mixture.CLIPS_PER_BIN", clips_per_bin)
    grid = [{"r": r} for r in (0.0, 0.3, 0.7, 0.98, 1.0, 1.1)]
    rows = TWFRGMM().score_path(grid, train, test_clips)
    stated = TWFRGMM(covariance=expected).score_path(grid, train, test_clips)
    np.testing.assert_array_equal(rows, stated)
    for params, row in zip(grid, rows, strict=True):
        one = TWFRGMM(**params).fit(train)
        assert one.resolved_params() == {"covariance": expected}
        np.testing.assert_allclose(one.score(test_clips), row, rtol=1e-7)


def test_the_order_of_the_training_clips_moves_no_score(train, test_clips):
    grid = [{"r": r} for r in (0.0, 0.5, 1.0)]
    expected = TWFRGMM(covariance="full").score_path(grid, train, test_clips)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(train))
        rows = TWFRGMM(covariance="full").score_path(grid, train[order], test_clips)
        np.testing.assert_array_equal(rows, expected)


def test_a_clip_is_scored_up_to_max_seconds(train, make_wav):
    detector = TWFRGMM(max_seconds=0.5).fit(train)
    rng = np.random.default_rng(0)
    start = 0.1 * rng.standard_normal(8000)
    quiet, loud = (
        Clip(make_wav(f"{gain}.wav", np.r_[start, gain * rng.standard_normal(8000)]), "fan")
        for gain in (0.01, 0.3)
    )
    scores = detector.score(Clips([quiet, loud]))
    assert scores[0] == scores[1]


def test_mixed_waveforms_join_the_target_domain(train, test_clips):
    """4 target clips to 12 source clips; one each makes 8 more, so other covariances."""
    plain, mixed = (TWFRGMM(n_components=1, smote=share).fit(train) for share in (0.0, 1.0))
    target, source = (train.where(domain=domain) for domain in ("target", "source"))
    share = len(source) / len(train)
    means = [
        np.mean([twfr(x, 1.0)[0] for x in clips.features(LogMel.twfr())], axis=0)
        for clips in (source, target)
    ]
    expected = share * means[0] + (1 - share) * means[1]
    np.testing.assert_allclose(plain.means_[0, 0], expected)
    towards = (mixed.means_[0, 0] - expected) @ (means[1] - means[0])
    assert towards > 0
    fewer = train.where(domain="source")
    scores = [TWFRGMM(smote=share).fit(fewer).score(test_clips) for share in (0.0, 0.2)]
    np.testing.assert_array_equal(*scores)


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
    published = TWFRGMM(covariance="full")
    for params, scores in zip(grid, published.score_path(grid, train, test), strict=True):
        key = f"{machine}/score/r={params['r']:.2f}/k={params['n_components']}"
        # In 128 bins with 92 clips, what rounding the log-mel in single precision is magnified to.
        np.testing.assert_allclose(scores, golden[key], rtol=1e-5, err_msg=key)


def test_the_partition_of_the_means_is_followed_to_the_maxima(make_wav):
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
    detector = TWFRGMM(r=0.0, covariance="full")
    np.testing.assert_allclose(detector.fit(clips).score(clips), scores, rtol=1e-7)
    other = fit_gaussian_mixtures(loudest[None], 2, start=own)
    assert not np.allclose(-other.component_log_density(loudest[None])[0].max(axis=1), scores)


def test_a_mixture_starts_where_that_of_the_step_before_ended(make_wav):
    rng = np.random.default_rng(0)
    clips = Clips(
        [
            Clip(make_wav(f"{i}.wav", rng.normal(size=16_000) * (0.1, 0.02)[i % 2]), "fan")
            for i in range(16)
        ]
    )
    log_mels = clips.features(LogMel.twfr())
    X = np.stack([twfr(x, [1.0, 0.95, 0.9, 0.93]) for x in log_mels], axis=1)
    start = KMeans(2, n_init=1, random_state=0).fit_predict(X[0])
    expected = fit_gaussian_mixtures(X, 2, start=start, after=[None, 0, 1, 1])
    scores = -expected.component_log_density(X).max(axis=-1)
    for r, own in ((0.9, scores[2]), (0.93, scores[3])):
        detector = TWFRGMM(r=r, covariance="full")
        np.testing.assert_allclose(detector.fit(clips).score(clips), own, rtol=1e-7)
