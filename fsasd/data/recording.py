"""Recordings: one reader for every file that holds sound."""

from __future__ import annotations

import contextlib
import logging
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from fsasd.data import containers
from fsasd.data.audio_files import printable
from fsasd.data.containers import Extent
from fsasd.data.resampling import ZEROS, resample

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
"""Hz, at which recordings are read unless another rate is asked for; every DCASE Task 2 edition and
AudioLDM use it."""

RATES = (1_000, 400_000)
"""Lowest and highest sampling rate in Hz that is resampled; beyond, a header is wrong."""

CHANNELS = {"near": 0, "far": 1}
"""Of DCASE 2026: the microphone near the machine is the left channel, the far one the right
(github.com/nttcslab/dcase2023_task2_baseline_ae, README)."""

BOTH = "both"
"""The near channel and the far one."""

READER = 2
"""Version of what ``read`` returns: part of what determines features."""

_LARGEST = 2.0**31
"""No format has larger samples, also if floats are on the scale of its integers."""

_BLOCK = 1 << 20
"""Samples that are decoded at a time."""

_MOST_COMPRESSED = 8192
"""Samples of each channel in a byte; the longest silent FLAC frame has fewer."""

_REACH = 1.1 * ZEROS / RATES[0]
"""Seconds on either side of a sample that resampling looks at, at most."""

_rates_logged: set[tuple[int, int]] = set()


class AudioError(ValueError):
    """A recording cannot be used; the message names the file."""


def read(
    path: str | Path,
    *,
    channel: int | str | None = None,
    seconds: float | None = None,
    sampling_rate: int = SAMPLE_RATE,
) -> np.ndarray:
    """Read a recording at a sampling rate, by default 16 kHz.

    Args:
        path: A wav (RIFF, RF64, W64), AIFF, AU, CAF, FLAC, Ogg or MP3 file.
        channel: What to take of several channels: an index, ``near`` (0), ``far`` (1), ``mean``,
            or ``both`` of two. ``None`` expects mono.
        seconds: How much to return, from the start; what lies behind is not decoded. All of it
            without.
        sampling_rate: Of the waveform, in Hz.

    Returns:
        (samples,) float32, (2, samples) of ``both``; in [-1, 1] unless the file holds floats. Other
        sampling rates are resampled as ``scipy.signal.resample_poly`` does, which is logged once
        per rate.

    Raises:
        FileNotFoundError: The file does not exist.
        AudioError: It is unreadable, empty, cut short, holds NaN, infinities or samples on no
            format's scale, has a sampling rate out of ``RATES``, one below ``sampling_rate`` (see
            ``has_bands``), or channels to choose from.
    """
    path = Path(path)
    samples, rate = decode(path, None if seconds is None else seconds + _REACH)
    return of_samples(
        samples, rate, path, channel=channel, seconds=seconds, sampling_rate=sampling_rate
    )


def of_samples(
    samples: np.ndarray,
    rate: int,
    path: Path,
    *,
    channel: int | str | None = None,
    seconds: float | None = None,
    sampling_rate: int = SAMPLE_RATE,
) -> np.ndarray:
    """Return samples as ``read`` returns those of a recording.

    Args:
        samples: (samples,) or (samples, channels).
        rate: Their sampling rate in Hz.
        path: What errors name.
        channel: See ``read``.
        seconds: See ``read``.
        sampling_rate: See ``read``.

    Raises:
        AudioError: See ``read``.

    >>> of_samples(np.zeros((8000, 2)), 8000, Path("-"), channel="mean").shape
    (16000,)
    """
    samples = samples.astype(np.float32, copy=False).reshape(len(samples), -1)
    if seconds is not None:
        samples = samples[: math.ceil((seconds + _REACH) * rate)]
    if not len(samples):
        raise AudioError(f"{printable(path)}: holds no samples")
    _require_rate(rate, printable(path))
    if not has_bands(rate, sampling_rate):
        raise AudioError(f"{printable(path)}: {without_bands(rate, sampling_rate)}")
    waveform = (
        both_channels(samples, path) if channel == BOTH else one_channel(samples, channel, path)
    )
    require_finite(waveform, path)
    if rate != sampling_rate:
        if (rate, sampling_rate) not in _rates_logged:
            _rates_logged.add((rate, sampling_rate))
            log.info(
                "%s and others have %d Hz: resampling to %d Hz", printable(path), rate,
                sampling_rate,
            )  # fmt: skip
        waveform = resample(waveform, rate, sampling_rate)
    return waveform if seconds is None else waveform[..., : round(seconds * sampling_rate)]


def has_bands(rate: int, sampling_rate: int) -> bool:
    """Return whether a recording of a rate may be read at a sampling rate.

    A rate above 16 kHz is asked for because of its bands, which a recording of a lower one does
    not have: resampled, it would be scored by the rounding in empty bands. Kaldi refuses it, too
    (``allow-upsample``, kaldi-asr.org). Up to 16 kHz any recording is resampled, and checks warn.

    >>> has_bands(44_100, 48_000), has_bands(96_000, 48_000), has_bands(8_000, 16_000)
    (False, True, True)
    """
    return rate >= sampling_rate or sampling_rate <= SAMPLE_RATE


def without_bands(rate: int, sampling_rate: int) -> str:
    """Return what is wrong with a recording of a rate that has not the bands of another."""
    return (
        f"expected {sampling_rate} Hz or more, at which the detector reads recordings, found "
        f"{rate} Hz: there is nothing above {rate / 2:g} Hz to detect anomalies by. Set the "
        f"detector's sampling_rate to {max(rate, SAMPLE_RATE)} at most"
    )


def require_finite(waveform: np.ndarray, path: Path) -> None:
    """Raise if samples are not finite, or too large for a spectrum.

    Raises:
        AudioError: Says how many, or the peak; names ``path``.
    """
    low, high = waveform.min(), waveform.max()
    if low >= -_LARGEST and high <= _LARGEST:
        return
    if bad := np.count_nonzero(~np.isfinite(waveform)):
        raise AudioError(f"{printable(path)}: {bad} samples are NaN or infinite")
    raise AudioError(
        f"{printable(path)}: expected samples in [-1, 1], or on the scale of 32-bit integers at "
        f"most, found a peak of {max(high, -low):g}"
    )


class Header(NamedTuple):
    """The header of a recording's file."""

    seconds: float
    """NaN where it is not known before decoding, as for streamed FLAC and MP3."""
    rate: int
    channels: int


def header(path: Path) -> Header:
    """Read the header of a recording, without its samples.

    Raises:
        FileNotFoundError: The file does not exist.
        AudioError: It is unreadable, is cut short or has a sampling rate out of ``RATES``.
    """
    with _opened(path) as (sound, frames):
        seconds = math.nan if frames is None else frames / sound.samplerate
        return Header(seconds, sound.samplerate, sound.channels)


def decode(path: Path, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Read a recording at its sampling rate, with all of its channels.

    Args:
        path: The file.
        seconds: How much of it to decode, from the start; all of it without.

    Returns:
        (samples, channels) float32, and the sampling rate in Hz.

    Raises:
        FileNotFoundError: The file does not exist.
        AudioError: It is unreadable, empty, cut short or has a sampling rate out of ``RATES``.
    """
    with _opened(path) as (sound, frames):
        rate, wanted = sound.samplerate, _wanted(sound, frames, seconds)
        samples = _samples(sound, wanted, path)
    _require_whole(path, frames, wanted, len(samples))
    return samples, rate


def blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Read a recording as ``decode`` does, a million samples at a time.

    Yields:
        (samples, channels) float32, and the sampling rate in Hz; at least once.

    Raises:
        FileNotFoundError: The file does not exist.
        AudioError: As in ``decode``; that it is cut short may be known at its end only.
    """
    count = 0
    with _opened(path) as (sound, frames):
        wanted = _wanted(sound, frames)
        for block in _blocks(sound, wanted):
            count += len(block)
            yield block, sound.samplerate
    _require_whole(path, frames, wanted, count)


def _wanted(sound: _Forward, frames: int | None, seconds: float | None = None) -> float:
    wanted = math.inf if seconds is None else math.ceil(seconds * sound.samplerate)
    return wanted if frames is None else min(frames, wanted)


def _require_whole(path: Path, frames: int | None, wanted: float, count: int) -> None:
    if frames is not None and count < wanted:
        raise AudioError(
            f"{printable(path)}: cut short: its header announces more audio than the file holds: "
            f"{frames} samples, found {count}"
        )
    if not count:
        raise AudioError(f"{printable(path)}: holds no samples")


class _Forward(soundfile.SoundFile):
    """Read from start to end: not all codecs can return, and soundfile would after each block."""

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[_Forward, int | None]]:
    """Open a recording; yield it and the number of samples that it announces, if any."""
    name = printable(path)
    try:
        with contextlib.ExitStack() as stack:
            size = require_file(path)
            file = stack.enter_context(path.open("rb", buffering=0))
            extent = containers.extent(file)
            if extent is not None and extent.cut:
                raise AudioError(f"{name}: cut short: {extent.cut}")
            estimated = extent is None and not containers.mp3_tells_its_length(file)
            file.seek(0)
            source: int | containers.Mended = file.fileno()
            if extent is not None and extent.sizes:
                source = stack.enter_context(containers.Mended(path, extent.sizes))
            sound = stack.enter_context(_Forward(source, closefd=False))
            if extent is None and sound.format not in ("FLAC", "MP3"):
                raise AudioError(
                    f"{name}: expected a wav, AIFF, AU, CAF, FLAC, Ogg or MP3 file, found "
                    f"{sound.format_info}: whether one is cut short is not known"
                )
            _require_rate(sound.samplerate, name)
            frames = _announced(sound, extent, size, name)
            yield sound, None if estimated and sound.format == "MP3" else frames
    except FileNotFoundError:
        raise
    except soundfile.SoundFileError as error:
        message = getattr(error, "error_string", error)
        raise AudioError(f"{name}: not readable as audio: {message}") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror}") from error


def require_file(path: Path) -> int:
    """Return a file's size in bytes; pipes, devices and folders have none.

    Raises:
        FileNotFoundError: It does not exist.
        AudioError: It is no file, or its status may not be read.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        link = f": it is a link to {printable(path.readlink())}" if path.is_symlink() else ""
        raise FileNotFoundError(f"recording {printable(path)} does not exist{link}") from None
    except OSError as error:
        raise AudioError(f"{printable(path)}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise AudioError(f"{printable(path)}: expected a file, found {kind}")
    return status.st_size


def _require_rate(rate: int, name: str) -> None:
    lowest, highest = RATES
    if not lowest <= rate <= highest:
        raise AudioError(
            f"{name}: expected a sampling rate of {lowest} to {highest} Hz, found {rate}"
        )


def _announced(sound: _Forward, extent: Extent | None, size: int, name: str) -> int | None:
    frames = sound.frames
    if frames >= 1 << 62:
        # FLAC that was written to a pipe.
        return None
    if frames > _MOST_COMPRESSED * size:
        raise AudioError(
            f"{name}: its header announces {frames} samples, more than its {size} bytes can hold"
        )
    if extent is not None and extent.frames and 0 < frames - extent.frames < _MOST_COMPRESSED:
        # The last block of a codec is not full; of GSM 6.10, libsndfile decodes a pad byte, too.
        return extent.frames
    return frames


def _samples(sound: _Forward, wanted: float, path: Path) -> np.ndarray:
    if wanted * sound.channels <= path.stat().st_size:
        # A header that claims no more than a sample for each byte of the file claims little.
        return sound.read(int(wanted), dtype="float32", always_2d=True)
    parts = list(_blocks(sound, wanted)) or [np.empty((0, sound.channels), np.float32)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _blocks(sound: _Forward, wanted: float) -> Iterator[np.ndarray]:
    size, count = max(_BLOCK // sound.channels, 1), 0
    while count < wanted:
        asked = int(min(size, wanted - count))
        block = sound.read(asked, dtype="float32", always_2d=True)
        count += len(block)
        if len(block):
            yield block
        if len(block) < asked:
            break


def one_channel(samples: np.ndarray, channel: int | str | None, path: Path) -> np.ndarray:
    """Return the channel of (samples, channels) that ``channel`` names (see ``read``).

    Raises:
        AudioError: ``channel`` does not choose one; names ``path``.
    """
    n_channels = samples.shape[1]
    index = CHANNELS.get(channel, channel) if isinstance(channel, str) else channel
    if n_channels == 1 and isinstance(index, int) and index > 0:
        raise AudioError(
            f"{printable(path)}: expected several channels, of which to take {channel}, found mono"
        )
    if n_channels == 1:
        return samples[:, 0]
    if channel == "mean":
        return samples.mean(axis=1)
    if isinstance(index, int) and 0 <= index < n_channels:
        return np.ascontiguousarray(samples[:, index])
    raise AudioError(
        f"{printable(path)}: expected mono, found {n_channels} channels, and "
        f"channel={channel} chooses none of them: say "
        f"data.channel=near, far, mean or an index below {n_channels}"
    )


def both_channels(samples: np.ndarray, path: Path) -> np.ndarray:
    """Return (2, samples) the near and the far channel of (samples, 2).

    Raises:
        AudioError: There are not two; names ``path``.
    """
    if samples.shape[1] != 2:
        raise AudioError(
            f"{printable(path)}: expected two channels, near and far, which the detector takes, "
            f"found {samples.shape[1]}"
        )
    return np.ascontiguousarray(samples.T)
