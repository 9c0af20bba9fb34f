"""Waveforms and log-mel spectrograms: one reader, one definition of each front end, one cache."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import joblib
import numpy as np
import soundfile
import torch
import torchaudio
from threadpoolctl import threadpool_limits

from fsasd.data.metadata import Clip
from fsasd.data.table import ClipTable

log = logging.getLogger(__name__)

T = TypeVar("T")

SAMPLE_RATE = 16_000
"""Hz; every DCASE Task 2 edition and AudioLDM use it."""

CHANNELS = {"near": 0, "far": 1}
"""Of DCASE 2026: the microphone near the machine is the left channel, the far one the right
(github.com/nttcslab/dcase2023_task2_baseline_ae, README)."""

_rates_told: set[int] = set()


class AudioError(ValueError):
    """A recording cannot be used; the message names the file."""


def read(path: str | Path, *, channel: int | str | None = None) -> np.ndarray:
    """Read a recording at 16 kHz.

    Args:
        path: A file that soundfile reads (wav, flac, ...).
        channel: What to take of several channels: an index, ``near`` (0), ``far`` (1) or
            ``mean``. ``None`` expects mono.

    Returns:
        (samples,) float32 in [-1, 1]. Other sampling rates are resampled, which is logged once
        per rate.

    Raises:
        FileNotFoundError: The file does not exist.
        AudioError: It is unreadable, empty, cut short, holds NaN or infinities, or
            has channels to choose from.
    """
    path = Path(path)
    samples, rate = decode(path)
    waveform = one_channel(samples, channel, path)
    require_finite(waveform, path)
    if rate != SAMPLE_RATE:
        waveform = _resample(waveform, rate, path)
    return waveform


def require_finite(waveform: np.ndarray, path: Path) -> None:
    """Raise if some samples are no numbers.

    Raises:
        AudioError: Says how many; names ``path``.
    """
    # A sum is NaN or infinite if a sample is, and quicker than a look at each.
    finite = np.isfinite(waveform.sum())
    if not finite and (bad := np.count_nonzero(~np.isfinite(waveform))):
        raise AudioError(f"{path}: {bad} samples are NaN or infinite")


class Header(NamedTuple):
    """What a recording's file says of itself."""

    seconds: float
    rate: int
    channels: int


def header(path: Path) -> Header:
    """Read what a recording announces, without its samples.

    Raises:
        AudioError: It is unreadable or cut short.
    """
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path}: not readable as audio: {error}") from error
    _require_whole(path, not _riff_is_cut(path))
    return Header(info.frames / info.samplerate, info.samplerate, info.channels)


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Read a recording as it is.

    Returns:
        (samples, channels) float32, and the sampling rate in Hz.

    Raises:
        FileNotFoundError: The file does not exist.
        AudioError: It is unreadable, empty or cut short.
    """
    if not path.is_file():
        raise FileNotFoundError(f"recording {path} does not exist")
    try:
        with soundfile.SoundFile(path) as file:
            rate, announced = file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path}: not readable as audio: {error}") from error
    _require_whole(path, len(samples) >= announced and not _riff_is_cut(path))
    if not samples.size:
        raise AudioError(f"{path}: holds no samples")
    return samples, rate


@dataclass(frozen=True)
class LogMel:
    """A log-mel spectrogram; hashable, so that it names its own place in the cache.

    Calling it turns a (samples,) waveform into (n_mels, frames) float32.

    >>> LogMel.twfr()(np.zeros(160_000, np.float32)).shape
    (128, 313)
    >>> LogMel.audioldm()(np.zeros(163_840, np.float32)).shape
    (64, 1024)
    """

    n_fft: int = 1024
    hop: int = 512
    n_mels: int = 128
    max_hz: float = 8000.0
    power: float = 2.0
    scale: str = "htk"
    norm: str | None = None
    decibel: bool = True
    floor: float = 1e-10
    pad: int | None = None
    """Samples of reflection on either side; ``None`` centres the first frame on sample 0."""
    max_seconds: float | None = None

    @classmethod
    def twfr(cls, max_seconds: float | None = 10.0) -> LogMel:
        """TWFR-GMM's: 128 mels in dB, 1024/512, first 10 s (github.com/liuyoude/TWFR-GMM)."""
        return cls(max_seconds=max_seconds)

    @classmethod
    def audioldm(cls) -> LogMel:
        """AudioLDM's: 64 mels, natural log of the magnitude (github.com/haoheliu/AudioLDM)."""
        return cls(
            hop=160, n_mels=64, power=1.0, scale="slaney", norm="slaney",
            decibel=False, floor=1e-5, pad=432,
        )  # fmt: skip

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        if self.max_seconds is not None:
            waveform = waveform[: round(self.max_seconds * SAMPLE_RATE)]
        samples = torch.from_numpy(np.ascontiguousarray(waveform))
        reach = self.n_fft // 2 if self.pad is None else self.pad
        # Reflection needs more samples than it mirrors: a click of a clip is repeated until it has.
        if len(samples) <= reach:
            samples = samples.repeat(reach // len(samples) + 1)
        samples = torch.nn.functional.pad(samples[None], (reach, reach), mode="reflect")[0]
        with torch.inference_mode():
            mel = _mel_transform(self)(samples).clamp(min=self.floor)
            return (10 * mel.log10() if self.decibel else mel.log()).numpy()


FrontEnd = Callable[[np.ndarray], np.ndarray]
"""Waveform (samples,) -> features; hashable, with a ``repr`` that says all its settings."""


class FeatureCache:
    """Features that were computed once, under a key that an altered recording does not have.

    The key holds the front end's settings and the recording's path, size and time of change.

    Args:
        folder: Where to keep them, one file per front end and recording; without a folder they
            stay in memory as long as the cache lives.
        channel: What to take of real recordings with several channels (see ``read``).
    """

    def __init__(self, folder: str | Path | None = None, channel: int | str | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.channel = channel
        self._memory: dict[tuple[str, str], np.ndarray] = {}

    def read(self, clip: Clip) -> np.ndarray:
        """Return a recording's waveform (see ``read``)."""
        return read(clip.path, channel=self._channel(clip))

    def get(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        """Return ``front_end(waveform)`` of a clip, computed only if it is not yet there."""
        key = self._key(front_end, clip)
        if self.folder is None:
            if key not in self._memory:
                self._memory[key] = front_end(self.read(clip))
            return self._memory[key]
        path = self._path(key)
        if path.is_file():
            return _load(path)
        features = front_end(self.read(clip))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
        try:
            with partial.open("wb") as file:
                np.save(file, features)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"features could not be written to {self.folder} ({error.strerror}): make room, or "
                "give another folder as data.cache; what is there already is used again",
            ) from error
        return features

    def holds(self, front_end: FrontEnd, clip: Clip) -> bool:
        """Say whether the features of a clip, as it is now, are there."""
        key = self._key(front_end, clip)
        return key in self._memory if self.folder is None else self._path(key).is_file()

    def _key(self, front_end: FrontEnd, clip: Clip) -> tuple[str, str]:
        return f"{front_end!r}, channel {self._channel(clip)}", identity(clip.path)

    def _channel(self, clip: Clip) -> int | str | None:
        return None if clip.synthetic else self.channel

    def _path(self, key: tuple[str, str]) -> Path:
        assert self.folder is not None
        return self.folder / _digest(key[0]) / f"{_digest(key[1])}.npy"


# A header is a Python expression, and Python 3.11 may fail to parse several at a time
# (github.com/python/cpython/issues/106905).
_one_header = threading.Lock()


def _load(path: Path) -> np.ndarray:
    """Return what ``np.save`` wrote, in any number of threads."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        with _one_header:
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        return np.fromfile(file, dtype).reshape(shape, order="F" if by_column else "C")


class Clips(Sequence[Clip]):
    """Recordings with their metadata and features: what a detector is given.

    Indexing with an int gives a ``Clip``; a slice, a mask or a list of indices gives ``Clips``,
    which are rows of the same table.

    >>> clips = Clips([Clip(Path("a.wav"), "fan"), Clip(Path("b.wav"), "pump")])
    >>> [clip.machine for clip in clips[[1]]]
    ['pump']
    """

    def __init__(self, clips: Iterable[Clip], cache: FeatureCache | None = None) -> None:
        self._table: ClipTable
        self._rows: np.ndarray
        if isinstance(clips, Clips):
            self._table, self._rows = clips._table, clips._rows
        else:
            self._table = ClipTable(clips)
            self._rows = np.arange(len(self._table))
        self.cache = cache or FeatureCache()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Clips: ...
    def __getitem__(self, index):
        if isinstance(index, (int, np.integer)):
            return self._table[self._rows[index]]
        chosen = Clips(self, self.cache)
        chosen._rows = self._rows[index]
        return chosen

    def features(self, front_end: FrontEnd) -> Iterator[np.ndarray]:
        """Yield each recording's features in order, so that a detector keeps only what it needs.

        A few recordings are read ahead, one on each core.
        """
        if len(self) == 1:
            # Threads would take longer to start than it takes to read.
            yield self.cache.get(front_end, self[0])
            return
        workers = joblib.cpu_count()
        ahead: deque[Future[np.ndarray]] = deque()
        # One clip is too small to share: an OpenMP thread for each of several clips is faster.
        with ThreadPoolExecutor(workers, "features", threadpool_limits, (1, "openmp")) as threads:
            for clip in self:
                ahead.append(threads.submit(self.cache.get, front_end, clip))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def where(self, **known: str | None) -> Clips:
        """Return the clips whose fields equal ``known``, e.g. ``where(split="train")``."""
        return self.that(lambda clip: all(getattr(clip, k) == v for k, v in known.items()))

    def that(self, fit: Callable[[Clip], bool]) -> Clips:
        """Return the clips that fit, by anything but their paths (see ``by_kind``)."""
        return self[np.array(self.by_kind(fit), dtype=bool)]

    @property
    def kinds(self) -> list[Clip]:
        """The different clips there are, if they had no path."""
        return self._table.kinds(self._rows)

    def by_kind(self, say: Callable[[Clip], T]) -> list[T]:
        """Return what ``say`` says of each clip, of which it sees everything but the path.

        Clips that differ in nothing else are one question, however many they are.
        """
        return self._table.by_kind(say, self._rows)

    @property
    def labels(self) -> np.ndarray:
        """(n,) 1 for anomaly, 0 for normal.

        Raises:
            ValueError: A clip has no label.
        """
        labels = self.by_kind(lambda clip: clip.label)
        if None in labels:
            unknown = self[labels.index(None)]
            raise ValueError(f"{unknown.path} has no label: no ground truth was found for it")
        return np.array([label == "anomaly" for label in labels], dtype=int)

    @property
    def domains(self) -> np.ndarray:
        """(n,) ``source`` or ``target``; clips of editions without domains count as source."""
        return np.array(self.by_kind(lambda clip: clip.domain or "source"))


def identity(path: Path) -> str:
    """Return what tells a file's content without reading it: path, size, time of change.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    stat = path.stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _riff_is_cut(path: Path) -> bool:
    """Say whether a wav file is shorter than its header announces (other files never are)."""
    # libsndfile mends the length of a truncated wav in silence; its header still tells.
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != b"RIFF":
        return False
    (announced,) = struct.unpack("<I", head[4:])
    # Writers to a pipe cannot know the length, and say 0 or the largest number.
    return announced not in (0, 0xFFFFFFFF) and path.stat().st_size < announced + 8


def _require_whole(path: Path, holds: bool) -> None:
    if not holds:
        raise AudioError(f"{path}: cut short: its header announces more audio than the file holds")


def one_channel(samples: np.ndarray, channel: int | str | None, path: Path) -> np.ndarray:
    """Take of (samples, channels) what ``channel`` says (see ``read``).

    Raises:
        AudioError: It does not say which; names ``path``.
    """
    n_channels = samples.shape[1]
    index = CHANNELS.get(channel, channel) if isinstance(channel, str) else channel
    if n_channels == 1 and isinstance(index, int) and index > 0:
        raise AudioError(
            f"{path}: expected several channels, of which to take {channel}, found mono"
        )
    if n_channels == 1:
        return samples[:, 0]
    if channel == "mean":
        return samples.mean(axis=1)
    if isinstance(index, int) and 0 <= index < n_channels:
        return np.ascontiguousarray(samples[:, index])
    raise AudioError(
        f"{path}: expected mono, found {n_channels} channels, and channel={channel} chooses none "
        f"of them: say data.channel=near, far, mean or an index below {n_channels}"
    )


def _resample(waveform: np.ndarray, rate: int, path: Path) -> np.ndarray:
    if rate not in _rates_told:
        _rates_told.add(rate)
        log.warning("%s and others have %d Hz: resampling to %d Hz", path, rate, SAMPLE_RATE)
    samples = torch.from_numpy(np.ascontiguousarray(waveform))
    return torchaudio.functional.resample(samples, rate, SAMPLE_RATE).numpy()


@functools.cache
def _mel_transform(front_end: LogMel) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop,
        f_max=front_end.max_hz,
        n_mels=front_end.n_mels,
        power=front_end.power,
        center=False,
        norm=front_end.norm,
        mel_scale=front_end.scale,
    )
