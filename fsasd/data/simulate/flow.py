"""Parts that move air or liquid: impellers, pipes, pistons; and how their faults sound.

`rotating` explains what a part is. Sources: L. L. Beranek and I. L. Ver, "Noise and Vibration
Control Engineering" (Wiley, 1992) for fans and jets; C. E. Brennen, "Hydrodynamics of Pumps"
(Oxford, 1994) for stall and cavitation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fsasd.data.simulate.operation import Motion, Operation
from fsasd.data.simulate.physics import Array, harmonics, strikes
from fsasd.data.simulate.rotating import swing


@dataclass(frozen=True)
class Impeller:
    """Blades in a flow: lines at multiples of the blade pass (blades x shaft) and flow noise.

    The power of a fan's noise grows as the speed to the fifth. An imbalanced wheel wobbles in its
    casing, and modulates it all once a turn. ``blockage``: the flow stalls: lower tones, and noise
    below 1 kHz from cells that rotate at about 0.45 of the shaft's rate and come and go.
    ``chipped_blade``: one blade is unlike the others, so a pulse every turn: all harmonics of the
    shaft around those of the blade pass. ``cavitation``, in a liquid: bubbles collapse when a
    blade passes: noise above 1.5 kHz, modulated at blade pass and shaft rate (what DEMON detects).

    Attributes:
        blades: how many.
        tone: amplitude of the blade pass at rated speed and load.
        flow: RMS of the flow noise.
        low: lower edge of the flow noise in Hz.
        high: upper edge of the flow noise in Hz at rated speed.
        ratio: turns per turn of the main shaft.
        exponent: of the speed to which the amplitude grows.
        beside: ratios of further wheels that are alike but stay healthy.
    """

    blades: int
    tone: float = 0.5
    flow: float = 0.6
    low: float = 80.0
    high: float = 1800.0
    ratio: float = 1.0
    exponent: float = 2.5
    beside: tuple[float, ...] = ()

    faults: ClassVar[Mapping[str, str]] = {
        "blockage": "stall",
        "chipped_blade": "wheel",
        "cavitation": "blade_pass",
    }

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rates of the wheel, the blade pass and the stalled cells."""
        return {
            "wheel": self.ratio,
            "blade_pass": self.blades * self.ratio,
            "stall": 0.45 * self.ratio,
        }

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Tones and flow noise, and what a disturbed flow adds."""
        turns = self.ratio * motion.turns
        blockage = run.amount("blockage")
        tone = self.tone * motion.load**0.5 * (1 - 0.5 * blockage)
        air = run.noise(self.low, self.high * motion.speed / motion.load**0.5, slope=-3)
        levels = tone / np.arange(1, 9) ** 0.9
        sound = harmonics(self.blades * turns, levels) + self.flow * air
        sound *= 1 + (0.05 + 0.5 * run.amount("imbalance")) * swing(turns)
        if blockage:
            cells = (1 + 0.8 * swing(0.45 * turns)) * np.abs(run.defect.drift(0.6, rate=6.0))
            sound += 0.8 * blockage * cells * run.defect.noise(120, 900)
        if amount := run.amount("chipped_blade"):
            sound += 0.15 * amount * harmonics(turns, np.ones(3 * self.blades))
        if amount := run.amount("cavitation"):
            passing = np.clip(1 + 0.9 * swing(self.blades * turns), 0, None)
            collapse = passing * (1 + 0.4 * swing(turns)) * run.defect.drift(0.2, rate=10.0)
            sound += 0.35 * amount * collapse * run.defect.noise(1500, 7500)
        for ratio in self.beside:
            sound += harmonics(self.blades * ratio * motion.turns + run.rng.random(), levels)
        return motion.speed**self.exponent * sound


@dataclass(frozen=True)
class Pipe:
    """A pipe or seat under pressure, silent until it leaks.

    A jet of speed U from a hole of diameter d is loudest around the Strouhal number ``f d / U =
    0.2``, with noise over many octaves. ``leak``: its hiss; a hole twice as wide is twice as loud.
    Liquid spits.

    Attributes:
        velocity: U in metres per second under rated pressure.
        hole: d in metres.
        level: RMS of the hiss at severity 1.
        spits: spits a second; 0 for gas.
    """

    velocity: float = 120.0
    hole: float = 0.008
    level: float = 0.3
    spits: float = 0.0

    faults: ClassVar[Mapping[str, str]] = {"leak": ""}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """None: a jet knows no shaft."""
        return {}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Nothing, or the jet."""
        amount = run.amount("leak")
        if not amount:
            return np.zeros(run.samples)
        peak = 0.2 * self.velocity / self.hole * motion.load**0.5
        gust = 0.4 + 2 * run.defect.episodes(self.spits, 0.08) if self.spits else 1.0
        return self.level * amount * gust * run.defect.noise(0.6 * peak, min(2.5 * peak, 7500))


@dataclass(frozen=True)
class Piston:
    """A piston on a crank: pressure pulses, the blows of suction and discharge valves, intake.

    A knocking (loose) pin strikes twice a turn, at the dead centres: ``knock``.

    Attributes:
        pulse: amplitude of the pressure pulses.
        valves: strength of the valves' blows.
        intake: RMS of the intake noise.
    """

    pulse: float = 0.4
    valves: float = 1.0
    intake: float = 0.4

    faults: ClassVar[Mapping[str, str]] = {"knock": "stroke"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rates of the crank and of its strokes."""
        return {"crank": 1.0, "stroke": 2.0}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """One breath a turn."""
        turns = motion.turns
        sound = self.pulse * motion.load**0.5 * harmonics(turns, np.arange(1, 13) ** -0.7)
        drawing = np.clip(swing(turns), 0, None) ** 2
        sound += self.intake * (0.15 + drawing) * run.noise(150, 2500, slope=-3)
        for phase, resonance in ((0.05, 1100.0), (0.4, 1900.0)):
            blow = strikes(turns - phase, run.rng)
            sound += self.valves * motion.load**0.5 * run.ring(blow, resonance, 0.005)
        if amount := run.amount("knock"):
            blow = strikes(2 * turns, run.defect.rng, spread=0.3)
            struck = run.ring(blow, 620, 0.015) + run.ring(blow, 2700, 0.004)
            sound += amount * motion.load**0.5 * struck
        return motion.speed * sound
