"""Frozen encoders as front ends: waveform -> pooled states of their layers, which are cached."""

from __future__ import annotations

import abc
import functools
import threading
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import resample

from fsasd.data.content import content_hash, content_hashes, digest
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.encoders.exported import Exported
from fsasd.detectors.encoders.loaded import LoadedEncoder
from fsasd.detectors.encoders.loading import load, local
from fsasd.detectors.encoders.pooling import pool, require_statistics
from fsasd.detectors.representations import Representation
from fsasd.runtime.hub import require_hub_id
from fsasd.settings.spec import spec_of

_LEAST = 0.1
"""Shortest input of a convolutional encoder, seconds."""

_TOGETHER = 4
"""Pieces of a clip that are encoded at a time: of each all layers are in memory."""

_loading = threading.Lock()


@dataclass(frozen=True)
class FrozenEncoder(abc.ABC):
    """A front end: waveform -> (layers, dim), each layer's states pooled over time.

    A clip longer than the encoder's input is divided into pieces that overlap just enough to cover
    it, whose states are pooled together; a shorter one is repeated: nothing is cropped at random or
    padded. Tokens of the whole clip are left out.

    Args:
        pool: Statistics over time (see ``pooling.pool``).
        bands: Pool the states of different frequency bands apart, of encoders that have them,
            instead of averaging the bands first.
        power: Of the generalised mean (``gem``).
        sampling_rate: At which recordings are read, Hz; an encoder of another rate resamples. It is
            16 kHz, as DCASE's recordings are, for encoders of a higher rate, too: a higher one
            refuses recordings and synthetic clips that lack its bands. Of recordings at 48 kHz,
            48000 keeps the high frequencies for CLAP and PE-A-Frame.
        device: Of the encoder; by default a GPU if there is one.

    Raises:
        ValueError: A statistic is not known.
    """

    pool: str = field(default="mean", kw_only=True)
    bands: bool = field(default=True, kw_only=True)
    power: float = field(default=3.0, kw_only=True)
    sampling_rate: int = field(default=SAMPLE_RATE, kw_only=True)
    device: str = field(default="auto", kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        require_statistics(self.pool)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (layers, dim) float32 of a (samples,) waveform at ``sampling_rate``."""
        model = self.model
        samples = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        samples = samples.to(self._where())
        with torch.inference_mode():
            if model.rate != self.sampling_rate:
                samples = resample(samples, self.sampling_rate, model.rate)
            return self._pooled(model, _pieces(samples, model)).cpu().numpy()

    def n_parameters(self) -> int:
        """Return the number of the encoder's parameters."""
        return sum(p.numel() for p in self.model.network.parameters())

    @property
    @abc.abstractmethod
    def model(self) -> LoadedEncoder:
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

    def _pooled(self, model: LoadedEncoder, pieces: torch.Tensor) -> torch.Tensor:
        """Return (layers, dim) of (count, samples)."""
        layers = []
        for some in pieces.split(_TOGETHER):
            states = model.features(some)
            layers.append([self._grid(model, layer.float()) for layer in states])
        grids = [torch.cat(parts, dim=1)[None] for parts in zip(*layers, strict=True)]
        return torch.cat([pool(grid, self.pool, power=self.power) for grid in grids])

    def _grid(self, model: LoadedEncoder, states: torch.Tensor) -> torch.Tensor:
        """Return (bands, frames of all pieces, dim) of (count, steps, dim)."""
        grid = model.steps.grid(states)
        if not self.bands:
            grid = grid.mean(dim=1, keepdim=True)
        return grid.transpose(0, 1).flatten(1, 2)

    def _where(self) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, repr=False)
class Encoder(FrozenEncoder):
    """A pretrained encoder of any family.

    Args:
        checkpoint: See ``loading.load``.
        revision: Of the hub's repository: a commit, a tag or a branch; its main branch by default.

    Layer 0 is the input of the first block, as in transformers' ``hidden_states`` (torchaudio has
    none). CLAP has one layer, the projected embedding.
    """

    checkpoint: str
    # Not in the key of the feature cache, which has the weights' content.
    revision: str | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_hub_id("encoder", self.checkpoint, self.revision)

    @property
    def model(self) -> LoadedEncoder:
        with _loading:
            return _load(self.checkpoint, self.revision, self._where(), repr(self._plain()))

    def _plain(self) -> Encoder:
        # Poolings share the network.
        return Encoder(self.checkpoint, revision=self.revision)

    def _files(self) -> list[Path]:
        path = Path(local(self.checkpoint, self.revision))
        return [path] if path.is_file() else sorted(p for p in path.glob("*") if p.is_file())


@dataclass(frozen=True, repr=False)
class ExportedEncoder(FrozenEncoder):
    """An encoder that the user exported.

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
    def model(self) -> LoadedEncoder:
        with _loading:
            return _load_exported(self.path, self.rate, self.seconds, self._where(), repr(self))

    def _files(self) -> list[Path]:
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"exported encoder {self.path} does not exist")
        return [Path(self.path)]


@dataclass(frozen=True)
class Layer(Representation):
    """One layer of an encoder, or several, concatenated or averaged.

    Args:
        front_end: Waveform -> (layers, dim).
        layer: Its number, from the end where it is negative; or several numbers.
        average: Whether several layers are averaged instead of concatenated.

    >>> Layer(abs, layer=-1).pool(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([3., 4.])
    >>> Layer(abs, layer=(0, 1), average=True).pool(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([2., 3.])
    """

    layer: int | tuple[int, ...] = -1
    average: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.layer, int):
            object.__setattr__(self, "layer", tuple(self.layer))

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return (dim,), or (layers x dim,) of several that are concatenated.

        Raises:
            ValueError: The encoder has no such layer.
        """
        asked = [self.layer] if isinstance(self.layer, int) else list(self.layer)
        count = len(features)
        if wrong := [number for number in asked if not -count <= number < count]:
            raise ValueError(f"layer {wrong[0]}: the encoder has {count}, 0 to {count - 1}")
        chosen = features[asked]
        return chosen.mean(axis=0) if self.average else chosen.flatten()

    def n_parameters(self) -> int:
        """Return the number of the encoder's parameters."""
        return self.front_end.n_parameters() if isinstance(self.front_end, FrozenEncoder) else 0


@functools.lru_cache(maxsize=4)
def _load(checkpoint: str, revision: str | None, device: str, key: str) -> LoadedEncoder:
    return _frozen(load(checkpoint, device, revision))


@functools.lru_cache(maxsize=4)
def _load_exported(
    path: str, rate: int, seconds: float | None, device: str, key: str
) -> LoadedEncoder:
    return Exported(Path(path), rate, seconds, device)


def _frozen(encoder: LoadedEncoder) -> LoadedEncoder:
    encoder.network.requires_grad_(False)
    return encoder


def _pieces(samples: torch.Tensor, model: LoadedEncoder) -> torch.Tensor:
    """Return (count, length) pieces that cover (samples,)."""
    window = model.window
    least = model.least or window or round(_LEAST * model.rate)
    if len(samples) < least:
        samples = samples.repeat(-(-least // len(samples)))[:least]
    if window is None or len(samples) <= window:
        return samples[None]
    count = -(-len(samples) // window)
    starts = np.linspace(0, len(samples) - window, count).round().astype(int)
    return torch.stack([samples[start : start + window] for start in starts])
