"""Recordings: one reader for every file that holds sound."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
import torchaudio

log = logging.getLogger(__name__)

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
