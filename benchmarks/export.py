"""ONNX files of detectors: their size, and the time of a ten-second clip on one thread.

Networks have their default sizes and little training: how much they learnt costs no time. Before
them, the ways to compute the power spectrogram, of which
``fsasd.export.spectra`` has the last.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import LocalOutlierFactor

from benchmarks.recordings import write_recordings
from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.autoencoder import Autoencoder
from fsasd.detectors.base import Detector
from fsasd.detectors.centres import Centres
from fsasd.detectors.confidence import Confidence
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.flow import Flow
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.training import NetworkTraining
from fsasd.detectors.outliers import Outliers
from fsasd.detectors.pooled import Pooled
from fsasd.detectors.systems.fkie import FKIE
from fsasd.detectors.systems.stgram_mfn import STgramMFN
from fsasd.detectors.systems.thuee import THUEE
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.calibration import Calibration
from fsasd.export.comparison import compare, read_input
from fsasd.export.graph import OPSET, Graph, Value
from fsasd.export.model_file import export
from fsasd.export.spectra import frames, power

CLIPS, NETWORK_CLIPS, SCORED, ROUNDS = 200, 8, 20, 15
ONCE = NetworkTraining(epochs=1)


def main() -> None:
    """Print a row for each way to compute a spectrogram, then for each detector."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    for rate in (16_000, 48_000):
        _spectra(rate)
    with tempfile.TemporaryDirectory() as name:
        paths = write_recordings(Path(name) / "wav", CLIPS)
        clips = [
            Clip(
                path,
                "fan",
                domain="target" if i % 10 == 9 else "source",
                attributes={"part": str(i % 2)},
            )
            for i, path in enumerate(paths)
        ]
        for label, detector in _detectors().items():
            few = bool(detector.network_spec())
            _row(label, detector, Clips(clips[: NETWORK_CLIPS if few else CLIPS]))


def _detectors() -> dict[str, Detector]:
    def brief(kind: Any) -> Any:
        return kind(
            training=replace(kind.training, classes="machine+attributes", epochs=1, batch_size=4)
        )

    return {
        "TWFR-GMM, r=1": TWFRGMM(),
        "TWFR-GMM, r=0.95": TWFRGMM(r=0.95),
        "k-NN": KNN(),
        "k-NN, cosine, local density": KNN(metric="cosine", density=4),
        "selective Mahalanobis": Outliers(LedoitWolf(), domains="separate"),
        "LOF": Outliers(LocalOutlierFactor(n_neighbors=8, novelty=True), standardise=True),
        "ensemble of TWFR-GMM and k-NN": Ensemble({"a": TWFRGMM(), "b": KNN()}, folds=2),
        "autoencoder": Autoencoder(training=ONCE),
        "flow": Flow(outliers=0.0, training=ONCE),
        "thuee": KNN(brief(THUEE), metric="cosine"),
        "stgram_mfn": Confidence(brief(STgramMFN)),
        "fkie, ten networks": Pooled(Centres(brief(FKIE))),
    }


def _row(label: str, detector: Detector, clips: Clips) -> None:
    detector.fit(clips)
    scores = {str(i): score for i, score in enumerate(detector.score(clips).tolist())}
    calibration = Calibration.of(scores, clips.domains.tolist(), clips.states)
    exported = export(detector, calibration)
    scored = clips[:SCORED]
    compared = compare(
        exported, detector, {clip.path: read_input(exported, clip.path) for clip in scored}
    )
    print(
        f"{label}: {len(exported.content) / 1000:.0f} kB, {compared.onnx_milliseconds:.1f} ms with "
        f"onnxruntime, {compared.python_milliseconds:.1f} ms with Python, scores differ by "
        f"{compared.difference:.0e} at most",
        flush=True,
    )


def _spectra(rate: int) -> None:
    """Print size, time and error of three power spectrograms of ten seconds of noise."""
    size = round(0.064 * rate)
    hop = size // 2
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    waveform = (0.1 * np.random.default_rng(0).standard_normal(10 * rate)).astype(np.float32)
    rows = np.lib.stride_tricks.sliding_window_view(waveform, size)[::hop]
    exact = np.abs(np.fft.rfft(rows * window.astype(float), axis=1)) ** 2
    angle = 2 * np.pi * np.outer(np.arange(size), np.arange(size // 2 + 1)) / size

    def by_operator(graph: Graph) -> Value:
        batch = graph("Unsqueeze", Value("x"), [0])
        spectrum = graph("STFT", batch, np.array(hop), window, np.array(size), onesided=1)
        return graph("Squeeze", graph.total(graph("Mul", spectrum, spectrum), -1), [0])

    def by_matrix(graph: Graph) -> Value:
        windowed = graph("Mul", frames(graph, Value("x"), size, hop), window)
        parts = [
            graph("MatMul", windowed, matrix.astype(np.float32))
            for matrix in (np.cos(angle), np.sin(angle))
        ]
        return graph("Add", *(graph("Mul", part, part) for part in parts))

    ways = {
        "STFT": by_operator,
        "product with the DFT matrix": by_matrix,
        "products with two small matrices": lambda graph: power(graph, Value("x"), size, hop),
    }
    for label, way in ways.items():
        content, found, taken = _ran(way, waveform)
        error = np.abs(10 * np.log10((found + 1e-10) / (exact + 1e-10))).max()
        print(
            f"spectrogram at {rate} Hz, {label}: {len(content) / 1000:.0f} kB, "
            f"{1e3 * taken:.1f} ms, off by {error:.0e} dB at most",
            flush=True,
        )


def _ran(way: Any, waveform: np.ndarray) -> tuple[bytes, np.ndarray, float]:
    graph, helper = Graph(), onnx.helper
    value = way(graph)
    nodes = [helper.make_node(n.op, n.inputs, n.outputs, **n.attributes) for n in graph.nodes]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "spectrogram",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["samples"])],
            [helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [None, None])],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model.SerializeToString()
    running = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        (found,) = running.run(None, {"x": waveform})
        taken.append(time.perf_counter() - started)
    return content, found, min(taken)


if __name__ == "__main__":
    main()
