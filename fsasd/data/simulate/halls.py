"""Halls: what sounds around a machine, from steady ventilation to hammering, vehicles, voices.

A machine stands in one of a few halls, as machines of a factory share a room and a noise level.
Noise that is steady hides faults from a mean over time, whose level it sets, and noise that comes
and goes hides them from a maximum: which of them detects a fault depends on the hall as well as
on the fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fsasd.data.simulate.operation import Operation
from fsasd.data.simulate.physics import Array, harmonics


@dataclass(frozen=True)
class Hall:
    """Noise around a machine; levels are relative to a machine's RMS of 1 at one metre.

    Attributes:
        level: RMS of the ventilation.
        slope: its tilt in dB per octave.
        hum: amplitude of the mains' hum over the level.
        hammering: blows on metal per second on average.
        vehicles: vehicles that pass, per second on average.
        voices: words that are called, per second on average.
    """

    level: float
    slope: float = -4.0
    hum: float = 0.3
    hammering: float = 0.0
    vehicles: float = 0.0
    voices: float = 0.0

    def sound(self, run: Operation, target: bool = False) -> Array:
        """Noise of one clip, shape ``(samples,)``.

        Args:
            run: the clip.
            target: in the target domain it is 3 dB louder and brighter, and there is more hum.

        Example:
            >>> run = Operation({}, np.random.default_rng(0), seconds=1.0)
            >>> bool(0.5 < Hall(level=1.0, hum=0.0).sound(run).std() < 2)
            True
        """
        slope = self.slope + target + run.rng.normal(0, 0.7)
        noise = run.drift(0.1) * run.noise(50, 6000, slope)
        hum = self.hum * (1 + target)
        noise += hum * harmonics(run.turns(100.0, jitter=0.0005), [1, 0.5, 0.3, 0.2])
        noise += 4 * self._hammering(run) + self._vehicles(run) + self._voices(run)
        return self.level * (1.4 if target else 1.0) * noise

    def _hammering(self, run: Operation) -> Array:
        blows, sound = run.chance(self.hammering), np.zeros(run.samples)
        if blows.any():
            for _ in range(3):
                sound += run.ring(blows, run.rng.uniform(500, 5000), run.rng.uniform(0.01, 0.05))
        return sound

    def _vehicles(self, run: Operation) -> Array:
        """Each swells and fades over a few seconds; it may have passed before or after the clip."""
        swell, time = np.zeros(run.samples), np.arange(run.samples) / run.sample_rate
        for _ in range(run.rng.poisson(self.vehicles * (run.seconds + 4))):
            passing, width = run.rng.uniform(-2, run.seconds + 2), run.rng.uniform(0.7, 2.0)
            swell += run.rng.lognormal(0.0, 0.5) * np.exp(-(((time - passing) / width) ** 2))
        return swell * run.noise(60, 1200, slope=-4) if swell.any() else swell

    def _voices(self, run: Operation) -> Array:
        """Words of 0.3 s: a vowel at a pitch of 100 to 250 Hz with two formants."""
        words, sound = run.chance(self.voices), np.zeros(run.samples)
        if words.any():
            pitch = run.turns(run.rng.uniform(100, 250), jitter=0.03)
            voice = harmonics(pitch, np.arange(1, 25) ** -0.5)
            word = np.zeros(run.samples)
            for start in np.flatnonzero(words):
                part = word[start : start + round(0.3 * run.sample_rate)]
                part += words[start] * np.hanning(round(0.3 * run.sample_rate))[: part.size]
            for formant in (run.rng.uniform(400, 800), run.rng.uniform(1100, 2200)):
                sound += 0.08 * run.ring(word * voice, formant, 0.004)
        return sound


HALLS: Mapping[str, Hall] = {
    "laboratory": Hall(level=0.1, hammering=0.1),
    "workshop": Hall(level=0.3, hammering=0.3, voices=0.25, vehicles=0.03),
    "plant": Hall(level=0.9, slope=-3.0, vehicles=0.01),
}
"""Name to what sounds there. Most machines have an RMS of 0.4 to 0.8: well above the noise of the
laboratory, about that of the plant."""
