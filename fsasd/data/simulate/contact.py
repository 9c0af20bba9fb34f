"""Parts that slide, roll, grind and click; and how their faults sound.

`rotating` explains what a part is. Source of stick-slip: A. Akay, "Acoustics of friction" (JASA
111, 2002).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fsasd.data.simulate.operation import Motion, Operation
from fsasd.data.simulate.physics import Array, harmonics, strikes
from fsasd.data.simulate.rotating import swing


@dataclass(frozen=True)
class Slideway:
    """A carriage that a ball screw moves back and forth on rails.

    The main shaft of the machine is its cycle of two strokes. ``stick_slip``: friction falls with
    velocity, so the carriage sticks and slips by turns, a sawtooth oscillation in episodes.
    ``flat_spot``: a dent in the rail, struck on the way out and on the way back.
    ``dry_friction``: no lubricant, metal noise above 2.5 kHz as long as it moves.

    Attributes:
        stroke: in metres.
        pause: rest at both ends together, in seconds.
        lead: way per turn of the screw, in metres.
        balls: that enter the nut per turn of the screw.
        judder: rate of stick and slip in Hz.
    """

    stroke: float = 0.4
    pause: float = 0.3
    lead: float = 0.01
    balls: int = 8
    judder: float = 340.0

    faults: ClassVar[Mapping[str, str]] = {
        "stick_slip": "",
        "flat_spot": "cycle",
        "dry_friction": "",
    }

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rate of the cycle."""
        return {"cycle": 1.0}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Screw and friction while it moves, a thud when it turns back."""
        velocity = 2 * self.stroke / (1 / motion.rate - self.pause)
        moving, cycle, weight = motion.moving, motion.turns, motion.load**0.5
        screw = run.turns(velocity / self.lead * moving)
        sound = moving * harmonics(self.balls * screw, 0.6 / np.arange(1, 9))
        sound += 0.2 * weight * moving * run.noise(500, 5000, slope=-2)
        sound += 0.1 * run.noise(60, 800, slope=-3)
        sound += weight * run.ring(strikes(2 * cycle, run.rng), 320, 0.02)
        if amount := run.amount("flat_spot"):
            for place in (0.15, 0.85):  # the same spot, on the way out and on the way back
                blow = strikes(cycle - place, run.defect.rng)
                struck = run.ring(blow, 1700, 0.03) + run.ring(blow, 3300, 0.02)
                sound += 8 * amount * weight * struck
        if amount := run.amount("dry_friction"):
            sound += 0.35 * amount * moving * run.defect.noise(2500, 6500)
        if amount := run.amount("stick_slip"):
            episode = run.defect.episodes(2.0, 0.2)
            pitch = run.defect.turns(self.judder * run.defect.drift(0.03, rate=15.0))
            saw = harmonics(pitch, np.arange(1, 21) ** -0.8)
            sound += 2.5 * amount * episode * moving * saw
        return sound


@dataclass(frozen=True)
class Rollers:
    """Rollers under a belt: rumble, modulated as they turn.

    The main shaft of the machine is a roller: ``f_r = v / (pi d)`` at belt speed v.
    ``flat_spot``: one roller has a flat and strikes once a turn.

    Attributes:
        diameter: d in metres.
        rumble: RMS of the rumble at a belt speed of one metre per second.
    """

    diameter: float = 0.06
    rumble: float = 0.5

    faults: ClassVar[Mapping[str, str]] = {"flat_spot": "roller"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rate of a roller."""
        return {"roller": 1.0}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Rumble, rustle and the blows of a flat."""
        velocity = math.pi * self.diameter * motion.rate
        rumble = run.noise(50, 500 * velocity**0.5, slope=-3) * (1 + 0.3 * swing(motion.turns))
        sound = velocity * (self.rumble * (1 + 0.6 * motion.load) * rumble)
        sound += 0.3 * velocity * self.rumble * run.noise(700, 4000, slope=-2)
        if amount := run.amount("flat_spot"):
            blow = strikes(motion.turns, run.defect.rng, spread=0.4)
            struck = run.ring(blow, 1300, 0.01) + run.ring(blow, 2900, 0.004)
            sound += 2 * amount * struck
        return sound


@dataclass(frozen=True)
class GrindingWheel:
    """Grains that cut: broadband noise that follows the pressing force and the wheel's wobble.

    An imbalanced wheel cuts deeper once a turn. ``glazing``: worn grains rub instead of cutting;
    the workpiece chatters at its own frequency and sings.

    Attributes:
        cutting: RMS of the cutting noise under rated load.
        chatter: of the workpiece, in Hz.
    """

    cutting: float = 0.5
    chatter: float = 2400.0

    faults: ClassVar[Mapping[str, str]] = {"glazing": "grindstone"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rate of the wheel."""
        return {"grindstone": 1.0}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """A hand presses, more and less."""
        hand = np.clip(run.drift(0.25, rate=1.5), 0.2, None) * motion.load**0.7
        wobble = 1 + (0.1 + 0.7 * run.amount("imbalance")) * swing(motion.turns)
        glazing = run.amount("glazing")
        grains = run.noise(1200, 6500) + 0.6 * run.noise(200, 1200, slope=-3)
        sound = (1 - 0.3 * glazing) * self.cutting * hand * wobble * grains
        if glazing:
            pitch = run.defect.turns(self.chatter * run.defect.drift(0.005, rate=10.0))
            unsteady = np.clip(run.defect.drift(0.5, rate=5.0), 0, None)
            song = (1 + 0.7 * swing(motion.turns)) * harmonics(pitch, [1, 0.4, 0.2])
            sound += 0.7 * glazing * unsteady * hand * song
        return motion.speed * sound


@dataclass(frozen=True)
class Solenoid:
    """A plunger that opens and closes a valve in a pattern; flow is heard while it is open.

    The main shaft of the machine is the pattern's cycle. ``rattle``: the plunger has play, closes
    late and bounces, each bounce 0.75 times as long as the one before. ``blockage``: what flows
    through what is left is faster, and whistles.

    Attributes:
        patterns: name to the period in seconds and the instants of opening, closing, opening ...
        opening: frequency of the click in Hz when it opens.
        closing: and when it closes.
        flow: RMS of the flow noise.
    """

    patterns: Mapping[str, tuple[float, tuple[float, ...]]]
    opening: float = 2600.0
    closing: float = 1500.0
    flow: float = 0.06

    faults: ClassVar[Mapping[str, str]] = {"rattle": "cycle", "blockage": "cycle"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rate of the cycle."""
        return {"cycle": 1.0}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Clicks, flow between them, bounces."""
        volt, cycle = run.number("volt") / 24, motion.turns
        period, instants = self.patterns[run.attributes["pat"]]
        rattle = run.amount("rattle")
        event = np.searchsorted(instants, (cycle % 1) * period, side="right") - 1
        is_open = event % 2 == 0
        sound = 0.05 * run.noise(60, 600, slope=-3) + self.flow * is_open * run.noise(800, 3500)
        for k, instant in enumerate(instants):
            late = 0.04 * rattle * (k % 2)
            click = strikes(cycle - (instant + late) / period, run.rng)
            resonance = self.closing if k % 2 else self.opening
            sound += 3 * volt * (run.ring(click, resonance, 0.006) + run.ring(click, 480, 0.012))
            if rattle and k % 2:
                for bounce in range(1, 7):
                    at = instant + late + 0.03 * (1 - 0.75**bounce) / 0.25
                    chatter = strikes(cycle - at / period, run.defect.rng, spread=0.5)
                    sound += 6 * rattle * 0.85**bounce * run.ring(chatter, 3300, 0.006)
        if amount := run.amount("blockage"):
            whistle = run.defect.turns(2100 * run.defect.drift(0.01, rate=10.0))
            jet = harmonics(whistle, [1, 0.5]) + run.defect.noise(2000, 7000)
            sound += 0.25 * amount * is_open * jet
        return sound
