"""What detectors read when a saved model scores: files, or waveforms in memory, measured once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsasd.data.audio_files import printable
from fsasd.data.check.measures import measure, require_full_scale
from fsasd.data.clips import FeatureCache
from fsasd.data.front_ends import FrontEnd, Reading
from fsasd.data.metadata import Clip
from fsasd.data.recording import header, of_samples


class ScoringCache(FeatureCache):
    """A cache of a few recordings that are scored together; it measures what it reads.

    Their features are kept by path, not by content, which would be read for it once more.

    Args:
        channel: What to take of recordings with several channels (see ``recording.read``).
    """

    def __init__(self, channel: int | str | None = None) -> None:
        super().__init__(channel=channel)
        self._measures: dict[Path, dict[str, Any]] = {}

    def read(self, clip: Clip, reading: Reading = Reading()) -> np.ndarray:
        waveform = self._waveform(clip, reading)
        require_full_scale(waveform, clip.path)
        near = np.atleast_2d(waveform)[0]
        whole = self._seconds(clip.path)
        self._measures[clip.path] = {"seconds": whole, **measure(near, reading.sampling_rate)}
        return waveform

    def _waveform(self, clip: Clip, reading: Reading) -> np.ndarray:
        return super().read(clip, reading)

    def _seconds(self, path: Path) -> float:
        return header(path).seconds

    @property
    def measures(self) -> list[dict[str, Any]]:
        """Of each recording that was read: ``path``, ``seconds`` and ``measures.measure``."""
        return [{**row, "path": printable(path)} for path, row in self._measures.items()]

    def _key(self, front_end: FrontEnd, clip: Clip) -> tuple[str, str]:
        return repr(front_end), str(clip.path)


class Waveforms(ScoringCache):
    """Waveforms in place of recordings, by the path of a clip.

    Args:
        waveforms: (samples,) or (samples, channels) each.
        rate: Their sampling rate in Hz.
        channel: See ``recording.read``.
    """

    def __init__(
        self,
        waveforms: Mapping[Path, np.ndarray],
        rate: int,
        channel: int | str | None = None,
    ) -> None:
        super().__init__(channel)
        self._waveforms, self._rate = waveforms, rate

    def _waveform(self, clip: Clip, reading: Reading) -> np.ndarray:
        return of_samples(
            self._waveforms[clip.path],
            self._rate,
            clip.path,
            channel=reading.channel or self.channel,
            seconds=reading.seconds,
            sampling_rate=reading.sampling_rate,
        )

    def _seconds(self, path: Path) -> float:
        return len(self._waveforms[path]) / self._rate
