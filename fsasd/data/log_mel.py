"""Log-mel spectrograms: one definition of each front end."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio

from fsasd.data.recording import SAMPLE_RATE


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
