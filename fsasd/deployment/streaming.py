"""Streams of samples: raw PCM, as of arecord or ffmpeg, or a sound card, cut into windows."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fsasd.data.recording import RATES, AudioError
from fsasd.deployment.model import Model
from fsasd.deployment.waveforms import Waveforms

log = logging.getLogger(__name__)

FORMATS = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}
"""Samples of a stream, by the names of ffmpeg, and their NumPy types."""

LAG = 30.0
"""Seconds of sound from a device that may wait to be scored; then some are lost."""

_BLOCK = 0.1
"""Seconds that a device hands over at a time."""


class Source(Protocol):
    """Where bytes come from: a file that is opened for reading, such as standard input."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


class Window(NamedTuple):
    """A piece of a stream."""

    start: float
    """Seconds from the beginning of the stream."""
    waveform: np.ndarray
    """(samples, channels) float32, full scale is 1."""


@dataclass(frozen=True)
class Stream:
    """What a stream consists of, and the windows that it is cut into.

    Args:
        rate: Sampling rate in Hz.
        channels: Interleaved in it.
        samples: One of ``FORMATS``.
        window: Length of a window in seconds.
        hop: Seconds from one window to the next; a gap between windows is not scored.

    Raises:
        ValueError: A value is out of its range.
    """

    rate: int = 16_000
    channels: int = 1
    samples: str = "s16le"
    window: float = 10.0
    hop: float = 1.0

    def __post_init__(self) -> None:
        lowest, highest = RATES
        if not lowest <= self.rate <= highest:
            raise ValueError(f"rate: expected {lowest} to {highest} Hz, found {self.rate}")
        if self.channels < 1:
            raise ValueError(f"channels: expected 1 or more, found {self.channels}")
        if self.samples not in FORMATS:
            raise ValueError(f"samples: expected {', '.join(FORMATS)}, found {self.samples}")
        for name in ("window", "hop"):
            value = getattr(self, name)
            if not round(value * self.rate) >= 1:
                raise ValueError(f"{name}: expected seconds, 1 sample or more, found {value}")

    def windows(self, source: Source) -> Iterator[Window]:
        """Yield the windows of a stream; memory is that of one window.

        Args:
            source: Its bytes. A frame that is not whole at the end, and a last window that is not,
                are left out.

        >>> import io
        >>> stream = Stream(rate=1000, window=0.004, hop=0.002)
        >>> samples = io.BytesIO(np.arange(7, dtype="<i2").tobytes())
        >>> [(w.start, (w.waveform[:, 0] * 2**15).tolist()) for w in stream.windows(samples)]
        [(0.0, [0.0, 1.0, 2.0, 3.0]), (0.002, [2.0, 3.0, 4.0, 5.0])]
        """
        length, hop = round(self.window * self.rate), round(self.hop * self.rate)
        kept = np.empty((0, self.channels), np.float32)
        start = 0
        while True:
            block = self._frames(source, length - len(kept))
            kept = np.concatenate([kept, block])
            if len(kept) < length:
                return
            yield Window(start / self.rate, kept)
            start += hop
            kept = kept[hop:].copy()
            if hop > length and len(self._frames(source, hop - length)) < hop - length:
                return

    def _frames(self, source: Source, count: int) -> np.ndarray:
        """Read (count, channels) float32, fewer at the end of the stream."""
        kind = np.dtype(FORMATS[self.samples])
        wanted = count * self.channels * kind.itemsize
        parts = []
        while wanted and (part := source.read(wanted)):
            parts.append(part)
            wanted -= len(part)
        data = b"".join(parts)
        frame = self.channels * kind.itemsize
        samples = np.frombuffer(data[: len(data) // frame * frame], kind)
        scale = 1.0 if kind.kind == "f" else 2.0 ** (1 - 8 * kind.itemsize)
        return samples.reshape(-1, self.channels).astype(np.float32) * np.float32(scale)


def score_window(
    models: Sequence[Model], window: Window, rate: int, name: str
) -> tuple[list[tuple[Model, float | AudioError]], list[Sequence[Mapping[str, Any]]]]:
    """Score a window by each model.

    Args:
        models: The models.
        window: Of a stream.
        rate: Its sampling rate in Hz.
        name: Of the stream, which errors name.

    Returns:
        Each model with its score, or the reason why the window cannot be scored; and for each the
        measures of what it read of the window.
    """
    path = Path(name)
    caches: dict[Any, Waveforms] = {}
    scores: list[tuple[Model, float | AudioError]] = []
    measures: list[Sequence[Mapping[str, Any]]] = []
    for model in models:
        cache = caches.setdefault(
            model.channel, Waveforms({path: window.waveform}, rate, model.channel)
        )
        try:
            scores.append((model, float(model.score_clips([path], cache)[0])))
        except AudioError as error:
            scores.append((model, error))
        measures.append(cache.measures)
    return scores, measures


class Device:
    """The sound card as a source of bytes, through ``sounddevice``.

    Args:
        name: Of the device or part of it, its number, or ``default``.
        stream: What to record; 16-bit samples.

    Raises:
        ImportError: ``sounddevice`` is not installed.
        ValueError: There is no such device, or it cannot record so.
    """

    def __init__(self, name: str, stream: Stream) -> None:
        try:
            import sounddevice
        except (ImportError, OSError) as error:
            raise ImportError(
                f"--device needs sounddevice and PortAudio ({error}): pip install 'fsasd[device]'"
            ) from error
        self._blocks: queue.Queue[bytes] = queue.Queue(round(LAG / _BLOCK))
        self._rest = b""
        number: int | str | None = None if name == "default" else name
        try:
            self._input = sounddevice.RawInputStream(
                samplerate=stream.rate, device=int(name) if name.isdigit() else number,
                channels=stream.channels, dtype="int16", callback=self._receive,
                blocksize=round(_BLOCK * stream.rate),
            )  # fmt: skip
            self._input.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise ValueError(f"device {name}: {error}") from error

    def read(self, size: int) -> bytes:
        """Wait for sound; return up to ``size`` bytes."""
        if not self._rest:
            self._rest = self._blocks.get()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """Stop recording."""
        self._input.stop()
        self._input.close()

    def _receive(self, data: Any, frames: int, time: Any, status: Any) -> None:
        if status:
            log.warning("device: %s", status)
        try:
            self._blocks.put_nowait(bytes(data))
        except queue.Full:
            log.warning("device: scoring is too slow: %d samples are lost", frames)
