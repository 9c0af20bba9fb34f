"""Frozen pretrained audio encoders as front ends: waveform -> states of their layers.

AST, CLAP's audio side, wav2vec 2.0, HuBERT, WavLM and data2vec come from transformers, the speech
models also from torchaudio, and any other as an exported file. No weights ship with the
package; a checkpoint is a folder or a hub id.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from torchaudio.functional import resample
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    ClapAudioModelWithProjection,
)

from fsasd.data.content import content_hash, content_hashes, digest
from fsasd.data.encoder_inputs import encoder_inputs
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.exported import load_program
from fsasd.detectors.representations import Representation
from fsasd.runtime.hub import UNREADABLE, go_offline_without_hub
from fsasd.settings.spec import spec_of

_LEAST = 0.1
"""Shortest input of a convolutional encoder, seconds."""

_loading = threading.Lock()


@dataclass(frozen=True)
class FrozenEncoder(abc.ABC):
    """A front end: waveform -> (layers, dim), each layer's states averaged over time.

    A clip longer than the encoder's input is divided into pieces that overlap just enough to cover
    it, a shorter one is repeated: nothing is cropped at random or padded.

    Args:
        bands: Concatenate the states of different frequency bands, of encoders that have them,
            instead of averaging them, too.
        spread: Append the standard deviations over time.
        device: Of the encoder; by default a GPU if there is one.
    """

    bands: bool = field(default=True, kw_only=True)
    spread: bool = field(default=False, kw_only=True)
    device: str = field(default="auto", kw_only=True, compare=False, repr=False)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (layers, dim) float32 of a (samples,) waveform at 16 kHz."""
        model = self.model
        samples = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        samples = samples.to(self._where())
        if model.rate != SAMPLE_RATE:
            samples = resample(samples, SAMPLE_RATE, model.rate)
        with torch.inference_mode():
            states_of_pieces = [
                model(piece) for piece in _pieces(samples, model.rate, model.window)
            ]
        layers = [torch.cat(states, dim=1) for states in zip(*states_of_pieces, strict=True)]
        return np.stack([self._pooled(states.float()).cpu().numpy() for states in layers])

    def n_parameters(self) -> int:
        """Return the number of the encoder's parameters."""
        return sum(p.numel() for p in self.model.network.parameters())

    @property
    @abc.abstractmethod
    def model(self) -> Model:
        """The loaded encoder, cached."""

    @abc.abstractmethod
    def _files(self) -> list[Path]:
        """Return the files of its weights on this machine."""

    def __repr__(self) -> str:
        # The key of the feature cache: other weights in the same place are another front end.
        values = [(f.name, getattr(self, f.name)) for f in fields(self) if f.repr]
        settings = ", ".join(f"{name}={spec_of(value, content_hash)!r}" for name, value in values)
        weights = digest(content_hashes(self._files()))
        return f"{type(self).__name__}({settings}, weights={weights[:12]})"

    def _pooled(self, states: torch.Tensor) -> torch.Tensor:
        if not self.bands:
            states = states.mean(dim=0, keepdim=True)
        statistics = [states.mean(dim=1)]
        if self.spread:
            statistics.append(states.std(dim=1, correction=0))
        return torch.cat(statistics).flatten()

    def _where(self) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, repr=False)
class Encoder(FrozenEncoder):
    """A pretrained encoder of transformers or torchaudio.

    Args:
        checkpoint: A hub id, a folder in transformers' layout, or ``torchaudio:`` and the name of
            a pipeline, such as ``torchaudio:WAVLM_BASE_PLUS``.

    AST's layers have states of 12 frequency bands; layer 0 is the input of the first block, as in
    transformers' ``hidden_states`` (torchaudio has none). CLAP has one layer, the projected
    embedding.
    """

    checkpoint: str

    @property
    def model(self) -> Model:
        with _loading:
            return _load(self.checkpoint, self._where(), repr(self))

    def _files(self) -> list[Path]:
        folder = Path(self.checkpoint)
        return sorted(path for path in folder.glob("*") if path.is_file())


@dataclass(frozen=True, repr=False)
class ExportedEncoder(FrozenEncoder):
    """An encoder that the user exported, such as BEATs.

    Args:
        path: File of ``torch.jit.save`` (``.pt``) or ``torch.export.save`` (``.pt2``): a
            function of (1, samples) waveforms that returns (1, dim), (1, frames, dim) or
            (1, layers, frames, dim).
        rate: Sampling rate of its input, Hz.
        seconds: Length of its input, if it was exported with a fixed shape; any by default.
    """

    path: str
    rate: int = SAMPLE_RATE
    seconds: float | None = None

    @property
    def model(self) -> Model:
        with _loading:
            return _load_exported(self.path, self.rate, self.seconds, self._where(), repr(self))

    def _files(self) -> list[Path]:
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"exported encoder {self.path} does not exist")
        return [Path(self.path)]


@dataclass(frozen=True)
class Layer(Representation):
    """One layer of an encoder, or several concatenated.

    Args:
        front_end: Waveform -> (layers, dim).
        layer: Its number, from the end where it is negative; or several numbers.

    >>> Layer(abs, layer=-1).pool(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([3., 4.])
    """

    layer: int | tuple[int, ...] = -1

    def __post_init__(self) -> None:
        if not isinstance(self.layer, int):
            object.__setattr__(self, "layer", tuple(self.layer))

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return (dim,), or (layers x dim,).

        Raises:
            ValueError: The encoder has no such layer.
        """
        asked = [self.layer] if isinstance(self.layer, int) else list(self.layer)
        count = len(features)
        if wrong := [number for number in asked if not -count <= number < count]:
            raise ValueError(f"layer {wrong[0]}: the encoder has {count}, 0 to {count - 1}")
        return features[asked].flatten()

    def n_parameters(self) -> int:
        """Return the number of the encoder's parameters."""
        return self.front_end.n_parameters() if isinstance(self.front_end, FrozenEncoder) else 0


class Model(abc.ABC):
    """A loaded encoder: (samples,) at its rate -> (bands, frames, dim) of each layer.

    Attributes:
        network: The network.
        rate: Sampling rate, Hz.
        window: Largest number of input samples; ``None`` if it has no limit.
    """

    network: Any
    rate: int
    window: int | None = None

    @abc.abstractmethod
    def __call__(self, samples: torch.Tensor) -> list[torch.Tensor]:
        """Return the states of each layer."""


class _Transformers(Model):
    def __init__(self, checkpoint: str, device: str) -> None:
        self.extractor = AutoFeatureExtractor.from_pretrained(checkpoint, trust_remote_code=False)
        self.network = self._network(checkpoint).to(device).eval().requires_grad_(False)
        self.rate = self.extractor.sampling_rate

    def _network(self, checkpoint: str) -> torch.nn.Module:
        return AutoModel.from_pretrained(checkpoint, trust_remote_code=False)

    def _inputs(self, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        return encoder_inputs(self.extractor, samples.to(self.network.device)[None])

    def __call__(self, samples: torch.Tensor) -> list[torch.Tensor]:
        return list(self.network(**self._inputs(samples), output_hidden_states=True).hidden_states)


class _AST(_Transformers):
    def __init__(self, checkpoint: str, device: str) -> None:
        super().__init__(checkpoint, device)
        # Frames of 25 ms, 10 ms apart.
        self.window = (self.extractor.max_length - 1) * self.rate // 100 + self.rate // 40

    def __call__(self, samples: torch.Tensor) -> list[torch.Tensor]:
        bands, frames = self.network.embeddings.get_shape(self.network.config)
        # The first two tokens are no patches.
        return [states[0, 2:].unflatten(0, (bands, frames)) for states in super().__call__(samples)]


class _Clap(_Transformers):
    def __init__(self, checkpoint: str, device: str) -> None:
        super().__init__(checkpoint, device)
        # Its extractor would crop longer pieces at random.
        self.window = self.extractor.nb_max_samples

    def _network(self, checkpoint: str) -> torch.nn.Module:
        return ClapAudioModelWithProjection.from_pretrained(checkpoint)

    def __call__(self, samples: torch.Tensor) -> list[torch.Tensor]:
        inputs = self._inputs(samples)
        # Its extractor sets the same for a single clip.
        inputs["is_longer"].fill_(self.extractor.truncation == "fusion")
        return [self.network(**inputs).audio_embeds[None]]


class _Torchaudio(Model):
    def __init__(self, name: str, device: str) -> None:
        bundle = getattr(torchaudio.pipelines, name, None)
        if not isinstance(bundle, torchaudio.pipelines.Wav2Vec2Bundle):
            raise ValueError(
                f"torchaudio has no encoder {name!r}: expected one such as HUBERT_BASE"
            )
        self.network = bundle.get_model().to(device).requires_grad_(False)
        self.rate = int(bundle.sample_rate)

    def __call__(self, samples: torch.Tensor) -> list[torch.Tensor]:
        device = next(self.network.parameters()).device
        return self.network.extract_features(samples[None].to(device))[0]


class _Exported(Model):
    def __init__(self, path: Path, rate: int, seconds: float | None, device: str) -> None:
        if path.suffix == ".pt2":
            self.network = load_program(path).module().to(device)
        else:
            self.network = _load_scripted(path, device)
        self.path = path
        self.device = device
        self.rate = rate
        self.window = None if seconds is None else round(seconds * rate)

    def __call__(self, samples: torch.Tensor) -> list[torch.Tensor]:
        states = self.network(samples[None].to(self.device))
        if not isinstance(states, torch.Tensor) or not 2 <= states.ndim <= 4 or len(states) != 1:
            shape = tuple(states.shape) if isinstance(states, torch.Tensor) else type(states)
            raise ValueError(
                f"{self.path}: expected (1, dim), (1, frames, dim) or (1, layers, frames, dim) of "
                f"(1, samples), found {shape}"
            )
        layers = states[0] if states.ndim == 4 else states.reshape(1, -1, states.shape[-1])
        return [layer[None] for layer in layers]


def _load_scripted(path: Path, device: str) -> torch.nn.Module:
    try:
        # TorchScript has its own interpreter and runs no Python.
        return torch.jit.load(path, map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: expected what torch.jit.save wrote ({str(error).partition(chr(10))[0]})"
        ) from error


@contextlib.contextmanager
def reading(checkpoint: str) -> Iterator[None]:
    """Turn the libraries' errors of reading an encoder into one that says what was expected.

    Raises:
        FileNotFoundError: The encoder could not be read.
    """
    go_offline_without_hub(checkpoint)
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        why = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"encoder '{checkpoint}' could not be read: expected a folder with config.json, weights"
            " and preprocessor_config.json, or the id of such a one on the hub; without a network, "
            f"give a folder ({why})"
        ) from error


@functools.lru_cache(maxsize=4)
def _load(checkpoint: str, device: str, key: str) -> Model:
    with reading(checkpoint):
        if checkpoint.startswith("torchaudio:"):
            return _Torchaudio(checkpoint.removeprefix("torchaudio:"), device)
        kind = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).model_type
        if kind not in _KINDS:
            raise ValueError(f"{checkpoint} is a {kind} model: expected one of {', '.join(_KINDS)}")
        return _KINDS[kind](checkpoint, device)


@functools.lru_cache(maxsize=4)
def _load_exported(path: str, rate: int, seconds: float | None, device: str, key: str) -> Model:
    return _Exported(Path(path), rate, seconds, device)


_KINDS: dict[str, type[_Transformers]] = {
    "audio-spectrogram-transformer": _AST,
    "clap": _Clap,
    "clap_audio_model": _Clap,
    "data2vec-audio": _Transformers,
    "hubert": _Transformers,
    "wav2vec2": _Transformers,
    "wavlm": _Transformers,
}


def _pieces(samples: torch.Tensor, rate: int, window: int | None) -> Iterator[torch.Tensor]:
    least = window or round(_LEAST * rate)
    if len(samples) < least:
        samples = samples.repeat(-(-least // len(samples)))[:least]
    if window is None:
        yield samples
        return
    count = -(-len(samples) // window)
    for start in np.linspace(0, len(samples) - window, count).round().astype(int).tolist():
        yield samples[start : start + window]
