"""An ONNX file scores as the detector does that it was written from (see also ``check_export``)."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import stats
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.svm import OneClassSVM

import fsasd.cli.score
import fsasd.export.comparison
from fsasd.cli.export import main
from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import read_clips
from fsasd.data.recording import read
from fsasd.detection.section import run_section
from fsasd.detectors.autoencoder import Autoencoder
from fsasd.detectors.base import Detector
from fsasd.detectors.centres import Centres
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.flow import Flow
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.training import NetworkTraining
from fsasd.detectors.outliers import Outliers, PCAResidual
from fsasd.detectors.representations import NearFar, Patches, TimeStatistics, TimeWeighted
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.calibration import Calibration
from fsasd.evaluation.gamma import Gamma
from fsasd.export.comparison import TOLERANCE, compare, drawn_input, read_input, session
from fsasd.export.graph import Graph, NotExportableError, Value
from fsasd.export.model_file import OUTPUTS, Exported, export
from fsasd.export.recording import INPUT, Recording
from fsasd.export.spectra import dft, log_mel
from fsasd.selection.selector import Selector

CALIBRATION = Calibration({"a": 1.0, "b": 2.0, "c": 3.0}, (), 0.1, 2.5)


def ran(graph, outputs, **inputs):
    """What a graph computes of float32 or float64 inputs."""
    import onnx
    import onnxruntime

    helper = onnx.helper
    kinds = {
        np.dtype("float32"): onnx.TensorProto.FLOAT,
        np.dtype("float64"): onnx.TensorProto.DOUBLE,
    }
    nodes = [
        helper.make_node(n.op, n.inputs, n.outputs, domain=n.domain, **n.attributes)
        for n in graph.nodes
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [
                helper.make_tensor_value_info(name, kinds[value.dtype], [None] * value.ndim)
                for name, value in inputs.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    running = onnxruntime.InferenceSession(model.SerializeToString())
    return running.run(list(outputs), inputs)


def difference(detector, clips, channel=None):
    """The largest difference between scores of ONNX and of Python, relative above 1."""
    exported = export(detector, CALIBRATION, channel)
    return compare(
        exported, detector, {clip.path: read_input(exported, clip.path) for clip in clips}
    ).difference


# Front ends


@pytest.mark.parametrize(
    "front_end",
    [
        LogMel.twfr(),
        LogMel.twfr(0.5),
        LogMel.twfr(sampling_rate=48_000),
        LogMel.twfr(sampling_rate=22_050),
        LogMel.audioldm(),
        LogMel(scale="slaney", norm="slaney", floor=float(np.finfo(float).eps)),
    ],
    ids=["16 kHz", "half a second", "48 kHz", "22 kHz", "audioldm", "baseline"],
)
@pytest.mark.parametrize("samples", [3, 1000, 5000, 32_000])
def test_log_mels_are_those_of_python(front_end, samples):
    rng = np.random.default_rng(samples)
    waveform = (0.1 * rng.standard_normal(samples)).astype(np.float32)
    recording = Recording(Graph())
    value = log_mel(front_end, recording)
    (found,) = ran(recording.graph, [value], **{INPUT: waveform})
    expected = front_end(waveform)
    assert found.shape == expected.shape
    # The loudest bands differ by rounding; the quiet ones by the rounding of the loud.
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(found - expected).mean() < 3e-5


@pytest.mark.parametrize("size", [12, 97, 706, 3072])
@pytest.mark.parametrize("half", [True, False])
def test_spectra_are_those_of_numpy(size, half):
    rng = np.random.default_rng(0)
    rows, others = rng.standard_normal((2, 3, size))
    graph = Graph()
    parts = dft(graph, Value("rows"), None, size, half=half, dtype=np.float64)
    found = np.array(ran(graph, parts, rows=rows))
    expected = np.fft.fft(rows)[:, : size // 2 + 1 if half else size]
    np.testing.assert_allclose(found[0] + 1j * found[1], expected, atol=1e-11)
    graph = Graph()
    parts = dft(graph, Value("rows"), Value("others"), size, half=half, dtype=np.float64)
    found = np.array(ran(graph, parts, rows=rows, others=others))
    expected = np.fft.fft(rows + 1j * others)[:, : size // 2 + 1 if half else size]
    np.testing.assert_allclose(found[0] + 1j * found[1], expected, atol=1e-11)


# Decisions


@pytest.mark.slow
@pytest.mark.parametrize("shape", [0.3, 1.0, 1.7, 12.0, 4e3, 1e7])
def test_p_values_are_those_of_the_gamma_distribution(shape):
    from fsasd.export.decision import gamma_tail

    gamma = Gamma(shape, -3.0, 0.25)
    probabilities = np.concatenate([np.geomspace(1e-300, 1e-3, 60), np.linspace(0.002, 0.999, 60)])
    scores = -3 + 0.25 * stats.gamma.isf(probabilities, shape)
    graph = Graph()
    value = gamma_tail(graph, Value("score"), gamma)
    found = [ran(graph, [value], score=np.array(score))[0] for score in scores]
    calibration = replace(CALIBRATION, gamma=gamma)
    np.testing.assert_allclose(found, calibration.p_values(scores), rtol=1e-4)
    far = [ran(graph, [value], score=np.array(score))[0] for score in (-1e9, -3.0, 1e12)]
    np.testing.assert_allclose(far, calibration.p_values([-1e9, -3.0, 1e12]), rtol=1e-9)


def test_a_score_that_is_no_number_is_anomalous():
    from fsasd.export.decision import anomalous

    graph = Graph()
    value = anomalous(graph, Value("score"), CALIBRATION)
    found = [ran(graph, [value], score=np.array(score))[0] for score in (2.5, 2.6, np.nan)]
    assert found == [False, True, True]


# Detectors


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def scored_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


BOTH = {"gmm": TWFRGMM(), "near": KNN()}
EXPORTED = {
    "r": TWFRGMM(r=0.9),
    "r above 1": TWFRGMM(r=1.05, covariance="full"),
    "another rate": TWFRGMM(sampling_rate=12_000),
    "the first half second": TWFRGMM(max_seconds=0.5),
    "k": KNN(k=3),
    "two banks": KNN(k=2, metric="cosine", domains="separate"),
    "density": KNN(density=4, domains="separate"),
    "bands": KNN(Patches(), bands=32, metric="cosine", density=2),
    "lowest and highest": KNN(TimeStatistics(pool_by="max+min")),
    "time weights": KNN(TimeWeighted(r=0.95)),
    "patches": KNN(Patches(bands=5, segments=3)),
    "centres": Centres(k=4),
    "mean": Ensemble(BOTH, folds=2, weights={"near": 3.0}),
    "max": Ensemble(BOTH, folds=2, combine="max", weights={"gmm": 0.0}),
    "ranks": Ensemble(BOTH, folds=2, combine="rank"),
    "centred": Outliers(domains="centred", unit=True),
    "envelope": Outliers(EllipticEnvelope(support_fraction=1.0), Patches(bands=2, segments=2)),
    "whitened": Outliers(PCAResidual(5, whiten=True)),
    "trees": Outliers(IsolationForest(n_estimators=20, max_features=0.5)),
    "outlier factor": Outliers(LocalOutlierFactor(n_neighbors=4, novelty=True), standardise=True),
    "support vectors": Outliers(OneClassSVM(nu=0.2), standardise=True),
    **{
        kind: Outliers(GaussianMixture(2, covariance_type=kind, reg_covar=1e-3), TimeWeighted())
        for kind in ("full", "tied", "diag", "spherical")
    },
}


@pytest.mark.parametrize("name", EXPORTED)
def test_scores_are_those_of_python(name, train, scored_clips):
    detector = EXPORTED[name].fit(train)
    assert difference(detector, scored_clips) < TOLERANCE


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("settings", [{"official": True}, {"official": False}, {"frames": 80}])
def test_the_autoencoder_by_mahalanobis(settings, train, scored_clips):
    detector = Autoencoder("mahalanobis", training=NetworkTraining(epochs=1), **settings).fit(train)
    assert difference(detector, scored_clips) < TOLERANCE


def test_both_channels(two_microphones):
    clips = Clips(read_clips(two_microphones)).where(machine="bearing")
    detector = KNN(NearFar(TimeStatistics())).fit(clips.where(split="train"))
    exported = export(detector, CALIBRATION)
    assert (exported.metadata["channel"], exported.metadata["channels"]) == ("both", "2")
    assert drawn_input(exported).shape == (2, 160_000)
    assert difference(detector, clips.where(split="test")) < TOLERANCE


def test_the_channel_of_the_run_is_read(train, make_wav):
    pair = 0.1 * np.random.default_rng(0).standard_normal((8_000, 2))
    path = make_wav("pair.wav", pair, subtype="FLOAT")
    detector = KNN().fit(train)
    for channel in (1, "near", "mean"):
        exported = export(detector, CALIBRATION, channel)
        assert exported.metadata["channel"] == str(channel)
        np.testing.assert_array_equal(read_input(exported, path), read(path, channel=channel))


def test_a_waveform_that_is_no_sound_gives_no_silent_decision(train):
    running = session(export(TWFRGMM().fit(train), CALIBRATION))
    with pytest.raises(Exception, match="zero"):
        running.run(None, {INPUT: np.zeros(0, np.float32)})
    score, _, anomalous = running.run(None, {INPUT: np.full(16_000, np.nan, np.float32)})
    assert np.isnan(score)
    assert anomalous


DETECTORS = {
    "twfr_gmm": TWFRGMM(r=0.96),
    "knn": KNN(density=4),
    "autoencoder": Autoencoder(training=NetworkTraining(epochs=2)),
    "flow": Flow(outliers=0.0, blocks=2, hidden=32, training=NetworkTraining(epochs=1)),
}


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_real_clips_have_the_scores_of_python(name, real):
    clips = Clips(read_clips(real))
    clips = clips.where(machine=clips[0].machine)
    detector = DETECTORS[name].fit(clips.where(split="train")[:20])
    assert difference(detector, clips[:40]) < TOLERANCE


# Refusals


class Loudness(Detector):
    """A detector of another package."""

    def fit(self, clips):
        self.level_ = np.zeros(1)
        return self

    def score(self, clips):
        return np.zeros(len(clips))


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (Loudness(), "the detector Loudness cannot be exported: expected one of Autoencoder, CMAE"),
        (Outliers(KernelDensity()), "the model KernelDensity cannot be exported: expected one of"),
        (
            Outliers(LocalOutlierFactor(4, novelty=True, metric="manhattan")),
            "LocalOutlierFactor with metric='manhattan'.* cannot be exported: expected Euclidean",
        ),
        (
            Outliers(OneClassSVM(kernel="linear")),
            "OneClassSVM with kernel='linear' cannot be exported: expected rbf",
        ),
        (
            KNN(lambda clips: np.ones((len(clips), 2))),
            "the representation function cannot be exported: expected one of Discriminative",
        ),
        (
            Ensemble({"a": TWFRGMM(), "b": TWFRGMM(sampling_rate=8_000)}, folds=2),
            r"different sampling rates \(16000 and 8000\)",
        ),
    ],
)
def test_what_cannot_be_exported_says_what_can(detector, message, train):
    with pytest.raises(NotExportableError, match=message):
        export(detector.fit(train), CALIBRATION)


def test_a_front_end_that_is_not_known_is_refused(train):
    detector = KNN(TimeStatistics()).fit(train)
    detector.representation = TimeStatistics(front_end=np.atleast_2d)
    with pytest.raises(
        NotExportableError, match=r"the front end \w+ cannot be exported: expected LogMel"
    ):
        export(detector, CALIBRATION)


# The command


@pytest.fixture(scope="module")
def model(factory_clips, tmp_path_factory):
    clips = factory_clips.where(machine="bearing")
    train, test = clips.where(split="train"), clips.where(split="test")
    result = run_section(TWFRGMM(), Selector({}), train, test)
    folder = tmp_path_factory.mktemp("run") / "models" / "bearing" / "section_00"
    result.detection.save_model(folder)
    return folder


def run(*arguments):
    return main([str(argument) for argument in arguments])


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("onnx") / "new" / "bearing.onnx"
    assert run("--onnx", out, "--model", model.parent) == 0
    return out


def test_the_file_scores_as_the_command_does(written, model, scored_clips, capsys):
    paths = [clip.path for clip in scored_clips]
    assert fsasd.cli.score.main(["--model", str(model), *map(str, paths)]) == 0
    expected = rows(capsys.readouterr().out)
    exported = Exported(written.read_bytes(), metadata_of(written))
    running = session(exported)
    for path, row in zip(paths, expected, strict=True):
        score, p_value, anomalous = running.run(list(OUTPUTS), {INPUT: read(path)})
        assert float(score) == pytest.approx(float(row["score"]), rel=1e-4)
        assert float(p_value) == pytest.approx(float(row["p_value"]), rel=1e-3)
        assert int(anomalous) == int(row["decision"])
    assert {row["decision"] for row in expected} == {"0", "1"}


def metadata_of(path):
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_metadata_say_what_it_is(written, model):
    about = metadata_of(written)
    decision = json.loads((model / "decision.json").read_text())
    assert (about["machine"], about["section"]) == ("bearing", "00")
    assert float(about["threshold"]) == decision["threshold"]
    assert float(about["false_alarm_rate"]) == 0.1
    assert (about["sampling_rate"], about["seconds"], about["channels"]) == ("16000", "10.0", "1")
    assert about["channel"] == ""
    assert json.loads(about["detector"])["class"].endswith("TWFRGMM")
    normal = json.loads(about["calibration"])["normal_scores"]
    assert normal == sorted(normal)
    assert set(normal) <= set(decision["held_out"].values())
    assert set(json.loads(about["provenance"])["sha256"]) >= {"detector.json", "decision.json"}


def test_the_command_reports_size_times_and_equality(model, scored_clips, tmp_path, capsys):
    out = tmp_path / "bearing.onnx"
    paths = [clip.path for clip in scored_clips[:3]]
    assert run("--onnx", out, "--model", model, "--check", *paths) == 0
    printed = capsys.readouterr().out
    size, apart, onnx, python = re.search(
        r"(\d+) kilobytes\nscores of 3 recordings: (\S+) from .*\n"
        r"a clip of 10 s: (\S+) ms with onnxruntime on one thread, (\S+) ms with Python\n",
        printed,
    ).groups()
    assert int(size) == round(out.stat().st_size / 1000)
    assert float(apart) < TOLERANCE
    assert 0.1 < float(onnx) < 1e4
    assert 0.1 < float(python) < 1e4


def test_a_file_whose_scores_differ_is_not_written(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fsasd.export.comparison, "TOLERANCE", -1.0)
    assert run("--onnx", tmp_path / "out.onnx", "--model", model) == 1
    assert "not written: the scores of a waveform that was drawn differ" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_detector_differs(model, train, scored_clips):
    exported = export(TWFRGMM().fit(train), CALIBRATION)
    waveforms = {clip.path: read_input(exported, clip.path) for clip in scored_clips[:2]}
    assert compare(exported, TWFRGMM(r=0.5).fit(train), waveforms).difference > TOLERANCE


def test_a_file_that_is_there_is_kept_unless_forced(model, tmp_path, capsys):
    out = tmp_path / "out.onnx"
    out.write_text("mine")
    assert run("--onnx", out, "--model", model) == 2
    assert f"{out} is there already: name another, or use --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run("--onnx", out, "--model", model, "--force") == 0
    assert out.stat().st_size > 10_000


def test_what_cannot_be_written_leaves_nothing(model, tmp_path, capsys):
    out = tmp_path / "out.onnx"
    out.mkdir()
    assert run("--onnx", out, "--model", model, "--force") == 2
    assert str(out) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named(package, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert run("--onnx", tmp_path / "out.onnx", "--model", model) == 2
    error = capsys.readouterr().err
    assert f"the package {package} is missing" in error
    assert "pip install 'fsasd[export]'" in error


def test_a_folder_without_a_model_is_named(tmp_path, capsys):
    assert run("--onnx", tmp_path / "out.onnx", "--model", tmp_path) == 2
    assert f"{tmp_path} holds no saved detector" in capsys.readouterr().err


def test_a_model_of_several_sections_asks_for_one(model, tmp_path, capsys):
    for section in ("section_00", "section_01"):
        shutil.copytree(model, tmp_path / "bearing" / section)
    assert run("--onnx", tmp_path / "out.onnx", "--model", tmp_path / "bearing") == 2
    assert "several sections: name one of section_00, section_01" in capsys.readouterr().err


def test_a_detector_that_cannot_be_exported_is_refused(model, train, tmp_path, capsys):
    Outliers(KernelDensity()).fit(train).save(tmp_path / "fan")
    shutil.copy(model / "decision.json", tmp_path / "fan")
    assert run("--onnx", tmp_path / "out.onnx", "--model", tmp_path / "fan") == 2
    error = capsys.readouterr().err
    assert error.startswith("the model KernelDensity cannot be exported: expected one of")
    assert error.count("\n") == 1


def test_a_recording_that_cannot_be_read_is_named(model, tmp_path, capsys):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    assert run("--onnx", tmp_path / "o.onnx", "--model", model, "--check", broken) == 2
    assert str(broken) in capsys.readouterr().err


# The example of the documentation


EXAMPLE = Path(__file__).parents[1] / "docs" / "how-to" / "onnx.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    (code,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text("utf-8"), re.DOTALL)
    path = tmp_path_factory.mktemp("example") / "score_onnx.py"
    path.write_text(code)
    return path


def test_the_example_needs_neither_torch_nor_this_package(
    example, written, model, scored_clips, tmp_path, capsys
):
    assert len(example.read_text().splitlines()) <= 30
    paths = []
    for clip in scored_clips[:4]:
        paths.append(tmp_path / clip.path.name)
        soundfile.write(paths[-1], read(clip.path), 16_000, subtype="PCM_16")
    code = (
        "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__'); "
        "loaded = {name.split('.')[0] for name in sys.modules}; "
        "assert not loaded & {'fsasd', 'torch', 'scipy', 'sklearn'}, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, example, written, *paths],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert fsasd.cli.score.main(["--model", str(model), *map(str, paths)]) == 0
    expected, found = rows(capsys.readouterr().out), rows(done.stdout)
    assert list(found[0]) == list(expected[0])[:5]
    for one, other in zip(found, expected, strict=True):
        assert one["decision"] == other["decision"]
        for name in ("score", "threshold", "p_value"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-3)


def test_the_example_refuses_another_sampling_rate(example, written, make_wav):
    path = make_wav("other.wav", rate=8_000, subtype="PCM_16")
    done = subprocess.run(
        [sys.executable, example, written, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "expected 16000 Hz, 16 bits, mono" in done.stderr


def test_the_notebook_has_the_example(example):
    notebook = json.loads((EXAMPLE.parents[2] / "notebooks" / "deploy.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert f"%%writefile score_onnx.py\n{example.read_text()}".strip() in cells
