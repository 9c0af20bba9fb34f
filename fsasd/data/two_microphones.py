"""Front ends of recordings by two microphones: one near the machine, one far from it (DCASE 2026).

Both have what is around in common, and the machine is louder in the near one. Waveforms are
(2, samples), near and far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fsasd.data.front_ends import FrontEnd, Reading
from fsasd.data.recording import BOTH

_SECONDS = 0.064
"""Of the frames in which the far channel is taken from the near one."""


@dataclass(frozen=True)
class _OfBoth:
    """What front ends of both channels have of the front end within them."""

    channel: ClassVar[str] = BOTH

    front_end: FrontEnd

    @property
    def max_seconds(self) -> float | None:
        """How much of a recording is decoded."""
        return getattr(self.front_end, "max_seconds", None)

    @property
    def sampling_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return Reading.of(self.front_end).sampling_rate


@dataclass(frozen=True)
class EachChannel(_OfBoth):
    """The features of each channel, stacked: (2, ...).

    Args:
        front_end: Waveform (samples,) -> features.

    >>> EachChannel(np.abs)(np.array([[1.0, -2.0], [-3.0, 4.0]]))
    array([[1., 2.],
           [3., 4.]])
    """

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        """Return the features of the near channel and of the far one."""
        return np.stack([self.front_end(waveform) for waveform in waveforms])


@dataclass(frozen=True)
class Denoised(_OfBoth):
    """The features of the near channel, from which the power of the far one is subtracted.

    Where the near power is X and the far one N, of a frame of 64 ms at a frequency, the share
    ``max(1 - noise * N / X, floor)`` of X is the machine's. ``subtraction`` multiplies the near
    spectrum by its root (power spectral subtraction), ``wiener`` by the share itself (Lim and
    Oppenheim, "Enhancement and bandwidth compression of noisy speech", Proc. IEEE 67(12), 1979);
    factor and floor are those of Berouti, Schwartz and Makhoul, "Enhancement of speech corrupted
    by acoustic noise" (ICASSP 1979), whose noise is of the pauses of speech. A machine has none:
    here it is the far channel's, averaged over some frames since its phases are others.

    The far microphone records the machine, too. What it has of it is subtracted as well, and what
    is as loud in both goes.

    Args:
        front_end: Waveform (samples,) -> features.
        rule: ``wiener`` or ``subtraction``; at the same floor, the first lowers noise twice as many
            decibels.
        noise: Factor of the far power; 0 leaves the near channel as it is.
        floor: Share of the near power that is kept at least.
        frames: Over which the far power is averaged.

    Raises:
        ValueError: The rule is unknown, or a number out of range.

    >>> noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    >>> silent = Denoised(np.abs, floor=0.0, frames=1)(np.stack([noise, noise]))
    >>> float(silent.max()) < 1e-5
    True
    """

    rule: Literal["wiener", "subtraction"] = "wiener"
    noise: float = 1.0
    floor: float = 0.01
    frames: int = 5

    def __post_init__(self) -> None:
        if self.rule not in ("subtraction", "wiener"):
            raise ValueError(f"rule '{self.rule}': expected 'wiener' or 'subtraction'")
        if self.noise < 0 or not 0 <= self.floor <= 1 or self.frames < 1:
            raise ValueError(
                "expected noise of 0 or more, floor from 0 to 1 and 1 frame or more, found "
                f"noise={self.noise}, floor={self.floor}, frames={self.frames}"
            )

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        """Return the features of the near channel without what the far one has."""
        return self.front_end(self.denoise(waveforms))

    def denoise(self, waveforms: np.ndarray) -> np.ndarray:
        """Return the near channel without what the far one has, (samples,) float32."""
        # Its import takes longer than to read a recording.
        from scipy import signal
        from scipy.ndimage import uniform_filter1d

        samples, size = waveforms.shape[-1], round(_SECONDS * self.sampling_rate)
        padded = np.pad(waveforms, ((0, 0), (0, max(size - samples, 0))))
        near, far = signal.stft(padded, nperseg=size, noverlap=size // 2)[2]
        noise = uniform_filter1d(np.abs(far) ** 2, self.frames, axis=-1, mode="nearest")
        power = np.abs(near) ** 2
        gain = self.gain(power, noise)
        changed = signal.istft(near * gain, nperseg=size, noverlap=size // 2)[1]
        return changed[:samples].astype(np.float32)

    def gain(self, power: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return by what the near spectrum is multiplied, given the powers of both channels.

        >>> Denoised(abs, noise=0.5).gain(np.array([4.0, 1.0]), np.array([2.0, 9.0]))
        array([0.75, 0.01])
        """
        left = np.divide(noise, power, out=np.zeros_like(power), where=power > 0)
        share = np.maximum(1 - self.noise * left, self.floor)
        return np.sqrt(share) if self.rule == "subtraction" else share
