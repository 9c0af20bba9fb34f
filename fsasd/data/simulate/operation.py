"""A machine running for one clip: its operating point, its fault, its clock and chance."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.signal import lfilter

from fsasd.data.simulate.physics import Array, band, ring


@dataclass(frozen=True)
class Operation:
    """A machine running for one clip: operating point, fault, clock and chance.

    Attributes:
        attributes: the operating point as in the file name, e.g. ``{"spd": "1200"}``.
        rng: source of everything random about the clip, but for what a fault adds.
        seconds: duration.
        sample_rate: in Hz.
        fault: one of the machine's faults, or empty.
        severity: 0 (none) to 1 (obvious).

    Example:
        >>> run = Operation({"spd": "1200"}, np.random.default_rng(0), seconds=2.0)
        >>> turns = run.turns(run.number("spd") / 60)
        >>> turns.shape, round(float(turns[-1] - turns[0]))
        ((32000,), 40)
    """

    attributes: Mapping[str, str]
    rng: np.random.Generator
    seconds: float
    sample_rate: int = 16000
    fault: str = ""
    severity: float = 0.0

    @property
    def samples(self) -> int:
        """Length of the clip in samples."""
        return round(self.seconds * self.sample_rate)

    @cached_property
    def defect(self) -> "Operation":
        """The same operation with a random stream of its own, for what a fault adds.

        So a faulty clip is the normal clip of the same seed and the fault, and of two severities
        the same fault is heard louder.
        """
        return replace(self, rng=self.rng.spawn(1)[0])

    def number(self, key: str) -> float:
        """A numeric attribute, in the unit of the file name."""
        return float(self.attributes[key])

    def amount(self, fault: str) -> float:
        """How loud ``fault`` is, 0 to 1; 0 where the machine has another fault or none.

        It grows as the severity to the power 1.5, so a fault of severity 0.1 is 30 dB below one
        of severity 1.
        """
        return self.severity**1.5 if self.fault == fault else 0.0

    def drift(self, depth: float, rate: float = 2.0) -> Array:
        """A slow random curve around 1 with standard deviation ``depth`` and ``rate`` knots/s."""
        knots = self.rng.standard_normal(int(self.seconds * rate) + 2)
        at = np.arange(self.samples) * (rate / self.sample_rate)
        return 1 + depth * np.interp(at, np.arange(knots.size), knots)

    def turns(self, rate: float | Array, jitter: float = 0.004) -> Array:
        """Angle of a shaft at ``rate`` Hz, from a random start, its speed wandering slowly."""
        return self.rng.random() + np.cumsum(rate * self.drift(jitter)) / self.sample_rate

    def noise(self, low: float, high: float, slope: float = 0.0) -> Array:
        """Gaussian noise of RMS 1 with the spectrum of `band`."""
        gain = band(np.fft.rfftfreq(self.samples, 1 / self.sample_rate), low, high, slope)
        draw = self.rng.standard_normal((2, gain.size))
        noise = np.fft.irfft(gain * (draw[0] + 1j * draw[1]), self.samples)
        return noise / noise.std()

    def chance(self, rate: float, spread: float = 0.5) -> Array:
        """Impulses at random instants, ``rate`` a second on average (a Poisson process)."""
        train = np.zeros(self.samples)
        hits = self.rng.integers(self.samples, size=self.rng.poisson(rate * self.seconds))
        train[hits] = self.rng.lognormal(0.0, spread, hits.size)
        return train

    def episodes(self, rate: float, length: float) -> Array:
        """Envelope of episodes that set in within 20 ms and die away over ``length`` seconds.

        One at a random instant of every ``1 / rate`` seconds, the first within the clip's first
        half: a fault that comes and goes is never missing from its clip.
        """
        starts = np.arange(0.0, self.seconds, 1 / rate)
        starts += self.rng.uniform(0.0, min(1 / rate, self.seconds / 2), starts.size)
        at = (starts[starts < self.seconds] * self.sample_rate).astype(int)
        train = np.zeros(self.samples)
        train[at] = self.rng.uniform(0.6, 1.0, at.size)
        rise, fall = np.exp(-1 / (self.sample_rate * np.array([0.005, length])))
        envelope = lfilter([1.0], [1.0, -fall], train) - lfilter([1.0], [1.0, -rise], train)
        return np.minimum(envelope, 1.0)

    def ring(self, excitation: Array, resonance: float, decay: float) -> Array:
        """`ring` at the clip's sample rate."""
        return ring(excitation, resonance, decay, self.sample_rate)


@dataclass(frozen=True)
class Motion:
    """How a machine moves during a clip: what all of its parts have in common.

    Attributes:
        turns: angle of the main shaft (of a machine that goes back and forth: its cycle).
        rate: nominal frequency of the main shaft in Hz.
        speed: ``rate`` over the rated one.
        load: torque, weight or pressure over the rated one.
        moving: 0 (at rest) to 1 (at full speed).
        slip: how much the driving belt slips, 0 to 1.
    """

    turns: Array
    rate: float
    speed: float = 1.0
    load: float = 1.0
    moving: Array | float = 1.0
    slip: Array | float = 0.0
