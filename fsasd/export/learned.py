"""Detectors and representations with trained networks, exported.

Spectra that a network computes of its input are computed by ``spectra``; torch's exporter writes
what follows them.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.autoencoder import Autoencoder, baseline
from fsasd.detectors.cmae import CMAE, Image
from fsasd.detectors.confidence import Confidence
from fsasd.detectors.encoders.trainable import TrainableEncoder
from fsasd.detectors.flow import Flow, MaskedLinear
from fsasd.detectors.networks.backbones import LogMelSpectrogram
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.embedding import Embedding
from fsasd.detectors.networks.heads import Head
from fsasd.detectors.networks.masked import MaskedAutoencoder, masked_error
from fsasd.detectors.systems.fkie import DualBranch
from fsasd.detectors.systems.zeng import HighPassed
from fsasd.export.graph import Graph, NotExportableError, Value
from fsasd.export.networks import network
from fsasd.export.recording import Recording
from fsasd.export.representations import features, represented
from fsasd.export.scores import kth_lowest, scored, squared_distances, unit
from fsasd.export.spectra import dft, log_mel_of, power

# Representations


@represented.register
def discriminative(representation: Discriminative, recording: Recording) -> Value:
    """Return the embedding by one network, or the unit vectors of several in a row."""
    graph = recording.graph
    embedded = [embedding_of(one, recording) for one in representation._embeddings.values()]
    if len(embedded) == 1:
        return embedded[0]
    return graph("Concat", *(unit(graph, one) for one in embedded), axis=0)


def embedding_of(embedding: Embedding, recording: Recording) -> Value:
    """Return the (dim,) float64 embedding of a recording by a trained classifier."""
    graph, samples = recording.graph, round(embedding.seconds * SAMPLE_RATE)
    waveform = recording.waveform(SAMPLE_RATE, embedding.seconds)
    # Shorter clips are repeated.
    length = graph.size(waveform, 0)
    times = graph("Div", graph("Add", length, [samples - 1]), length)
    whole = graph.slice(graph("Tile", waveform, times), [0], [samples], 0)
    embedded = embedded_by(
        embedding.classifier.network, graph, graph("Reshape", whole, [1, samples]), samples
    )
    return graph.cast(graph("Squeeze", embedded, [0]), "float64")


@functools.singledispatch
def embedded_by(module: nn.Module, graph: Graph, waveform: Value, samples: int) -> Value:
    """Return the (1, dim) embedding of a waveform (1, samples) by a network."""
    if any(isinstance(one, TrainableEncoder) for one in module.modules()):
        raise NotExportableError(
            "a fine-tuned encoder cannot be exported, since its spectrograms are those of its own "
            "program: expected a network on waveforms or log-mels, such as those of thuee or fkie"
        )
    module = copy.deepcopy(module).cpu()
    front_ends = [one for one in module.modules() if isinstance(one, LogMelSpectrogram)]
    inputs, examples = [waveform], [torch.zeros(1, samples)]
    for front_end in front_ends:
        inputs.append(_log_mel(graph, waveform, front_end.front_end))
        examples.append(torch.from_numpy(front_end.front_end(np.zeros(samples, np.float32)))[None])
    return network(graph, _Following(module), inputs, examples)[0]


@embedded_by.register
def by_high_passed(module: HighPassed, graph: Graph, waveform: Value, samples: int) -> Value:
    """Return that of the frequencies above the cut-off."""
    transform = functools.partial(dft, graph, size=samples, half=False, dtype=np.float64)
    passed = np.abs(np.fft.fftfreq(samples, 1 / SAMPLE_RATE)) >= module.hz
    kept = passed.astype(np.float64)
    real, imaginary = transform(graph.cast(waveform, "float64"), None)
    # The inverse is the conjugate of the transform of the conjugate, divided by the length.
    left, _ = transform(graph("Mul", real, kept), graph("Mul", imaginary, -kept))
    filtered = graph.cast(graph("Div", left, np.float64(samples)), "float32")
    spectrogram = _log_mel(graph, filtered, module.log_mel.front_end)
    maps = graph("Unsqueeze", spectrogram, [1])
    example = module.log_mel.front_end(np.zeros(samples, np.float32))
    return network(graph, module.mobilefacenet, [maps], [torch.from_numpy(example)[None, None]])[0]


@embedded_by.register
def by_both_branches(module: DualBranch, graph: Graph, waveform: Value, samples: int) -> Value:
    """Return those of the spectrum and of the spectrogram."""
    real, imaginary = dft(graph, waveform, None, samples)
    strength = graph("Add", graph("Mul", real, real), graph("Mul", imaginary, imaginary))
    spectrum = graph.slice(graph("Sqrt", strength), [0], [samples // 2], 1)
    powers = power(graph, graph("Squeeze", waveform, [0]), 1024, 512)
    spectrogram = graph("Transpose", graph("Unsqueeze", graph("Sqrt", powers), [0]), perm=[0, 2, 1])
    frames = (samples - 1024) // 512 + 1
    branches = (
        network(
            graph, module.spectrum.layers, [graph("Unsqueeze", spectrum, [1])],
            [torch.zeros(1, 1, samples // 2)],
        ),
        network(
            graph, _EmbedSpectrogram(module), [spectrogram], [torch.zeros(1, 513, frames)]
        ),
    )  # fmt: skip
    return graph("Concat", *(branch[0] for branch in branches), axis=1)


def _log_mel(graph: Graph, waveform: Value, front_end: LogMel) -> Value:
    # (1, n_mels, frames) of (1, samples).
    return graph("Unsqueeze", log_mel_of(graph, graph("Squeeze", waveform, [0]), front_end), [0])


class _Given(nn.Module):
    """In the place of a front end: returns what was computed of the waveform before."""

    features: torch.Tensor

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.features


class _Following(nn.Module):
    """A network on a waveform and on what its front ends computed of it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.given: list[_Given] = []
        self.module = self._without_front_ends(module)

    def _without_front_ends(self, module: nn.Module) -> nn.Module:
        for name, child in module.named_children():
            if isinstance(child, LogMelSpectrogram):
                self.given.append(_Given())
                setattr(module, name, self.given[-1])
            else:
                self._without_front_ends(child)
        return module

    def forward(self, waveforms: torch.Tensor, *computed: torch.Tensor) -> torch.Tensor:
        for given, one in zip(self.given, computed, strict=True):
            given.features = one
        return self.module(waveforms)


class _EmbedSpectrogram(nn.Module):
    def __init__(self, module: DualBranch) -> None:
        super().__init__()
        self.module = module

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        return self.module.embed_spectrogram(spectrograms)


# Detectors


@scored.register
def confidence(detector: Confidence, recording: Recording) -> Value:
    """Return -log p or 1 - p of the classes of the machine's normal clips."""
    graph = recording.graph
    (embedding,) = detector.representation_._embeddings.values()
    point = graph("Unsqueeze", embedding_of(embedding, recording), [0])
    head = _Surprisal(embedding._head, detector.classes_)
    dim = embedding.classifier(
        torch.zeros(1, round(embedding.seconds * SAMPLE_RATE), device=embedding.device)
    ).shape[1]
    example = torch.zeros(1, dim, dtype=torch.float64)
    surprisal = graph("Squeeze", network(graph, head, [point], [example])[0], [0])
    if detector.scored_by == "probability":
        return surprisal
    return graph("Sub", np.float64(1), graph("Exp", graph("Neg", surprisal)))


class _Surprisal(nn.Module):
    classes: torch.Tensor

    def __init__(self, head: Head, classes: np.ndarray) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("classes", torch.from_numpy(np.asarray(classes)).double())

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.head.surprisal(points, self.classes)


def windows_of(graph: Graph, spectrogram: Value, size: int) -> Value:
    """Return the (windows, size, bands) of a spectrogram (bands, frames) (``windows.windows``)."""
    frames = graph.size(spectrogram, 1)
    # One with fewer frames is repeated.
    times = graph("Div", graph("Add", frames, [size - 1]), frames)
    rows = graph(
        "Tile", graph("Transpose", spectrogram, perm=[1, 0]), graph("Concat", times, [1], axis=0)
    )
    count = graph("Squeeze", graph("Sub", graph.size(rows, 0), [size - 1]), [0])
    places = graph("Add", graph("Unsqueeze", graph("Range", 0, count, 1), [1]), np.arange(size))
    return graph("Gather", rows, places, axis=0)


@scored.register
def autoencoder(detector: Autoencoder, recording: Recording) -> Value:
    """Return the mean squared residual, or the selective squared Mahalanobis distance."""
    graph, front_end = recording.graph, baseline(detector.sampling_rate)
    bands = front_end.n_mels
    examples = windows_of(graph, features(front_end, recording), detector.frames)
    module, example = detector._fitted_network(), torch.zeros(3, detector.frames, bands)
    (guessed,) = network(graph, module, [examples], [example], batches=True)
    residual = graph.cast(graph("Sub", examples, guessed), "float64")
    if detector.scored_by == "mse":
        return graph("ReduceMean", graph("Mul", residual, residual), keepdims=0)
    rows = graph("Reshape", residual, [-1, bands])
    if detector.official:
        rows = graph("ReduceMean", rows, [0], keepdims=1)
    # (domains, rows, bands)
    whitened = graph("MatMul", graph("Unsqueeze", rows, [0]), detector._inverse_factors())
    distances = graph.mean(graph.total(graph("Mul", whitened, whitened), 2), 1)
    return graph.lowest(distances, 0)


@scored.register
def flow(detector: Flow, recording: Recording) -> Value:
    """Return the mean negative log-likelihood of the windows."""
    graph, front_end = recording.graph, detector._front_end
    size = detector.frames * front_end.n_mels
    examples = windows_of(graph, features(front_end, recording), detector.frames)
    rows = graph("Reshape", examples, [-1, size])
    module = _masked_once(detector._fitted_network())
    (likelihoods,) = network(graph, module, [rows], [torch.zeros(3, size)], batches=True)
    return graph.mean(graph.cast(likelihoods, "float64"), 0)


def _masked_once(module: nn.Module) -> nn.Module:
    """Return a network whose masked layers are plain ones of the masked weights."""
    for name, child in module.named_children():
        if isinstance(child, MaskedLinear):
            plain = nn.Linear(child.in_features, child.out_features)
            weights = {"weight": child.weight * child.mask, "bias": child.bias}
            plain.load_state_dict(weights)
            setattr(module, name, plain)
        else:
            _masked_once(child)
    return module


@scored.register
def cmae(detector: CMAE, recording: Recording) -> Value:
    """Return the weighted sum of the reconstruction error and the distance to normal clips."""
    graph = recording.graph
    image = Image(detector.frames)
    waveform = recording.waveform(SAMPLE_RATE, image.max_seconds)
    rows = graph("Transpose", log_mel_of(graph, waveform, LogMel.twfr(None)), perm=[1, 0])
    count = graph.size(rows, 0)
    # The first frames; of a shorter clip they are repeated.
    places = graph("Mod", np.arange(detector.frames), count)
    spectrogram = graph("Transpose", graph("Gather", rows, places, axis=0), perm=[1, 0])
    module = _ErrorAndState(detector._fitted_network(), detector.visible)
    example = torch.zeros(1, 128, detector.frames)
    error, state = network(graph, module, [graph("Unsqueeze", spectrogram, [0])], [example])
    squared = squared_distances(graph, state, detector.bank_[None])
    distance = graph("Div", kth_lowest(graph, squared, 1), np.float64(2))
    values = graph("Concat", graph("Reshape", error, [1]), distance, axis=0)
    mean, deviation = np.asarray(detector.moments_, dtype=np.float64)
    shares = np.array([detector.reconstruction, 1 - detector.reconstruction])
    standardised = graph("Div", graph("Sub", values, mean), deviation)
    return graph.total(graph("Mul", standardised, shares), 0)


class _ErrorAndState(nn.Module):
    """The reconstruction error and the mean state, of length 1, of a spectrogram."""

    def __init__(self, module: MaskedAutoencoder, visible: float) -> None:
        super().__init__()
        self.module = module
        self.turns = module.visible_in_turn(visible)

    def forward(self, spectrograms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self.module.patches(spectrograms)
        errors = [
            masked_error(self.module(spectrograms, turn)[1], patches, turn) for turn in self.turns
        ]
        everything = torch.arange(self.module.n_patches)[None]
        states = self.module.encode(patches, everything).double().mean(dim=1)
        return torch.cat(errors).double().mean(), F.normalize(states, dim=1)
