"""Parts that turn: rotors, rolling bearings, gears, motors, belts; and how their faults sound.

A part is a dataclass of physical parameters with three things: ``faults`` maps what can go wrong
with it to the name of the frequency at which that shows (empty where it shows at none);
``orders(attributes)`` gives those frequencies in multiples of the main shaft's; ``sound(run,
motion)`` is its sound, faults included. Where nothing else is said, the sources are R. B. Randall,
"Vibration-based Condition Monitoring" (Wiley, 2011), and R. B. Randall and J. Antoni, "Rolling
element bearing diagnostics - a tutorial" (MSSP 25, 2011).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fsasd.data.simulate.operation import Motion, Operation
from fsasd.data.simulate.physics import Array, harmonics, strikes


def swing(turns: Array) -> Array:
    """A sine, once per turn.

    Example:
        >>> swing(np.array([0.0, 0.25, 0.75])).tolist()
        [0.0, 1.0, -1.0]
    """
    return np.sin(2 * np.pi * turns)


@dataclass(frozen=True)
class Rotor:
    """A shaft with its masses, in bearings, on a foundation: lines at multiples of its rate.

    ``imbalance``: the force ``m e (2 pi f)^2`` of an eccentric mass, a line at 1x that grows as
    the speed squared. ``misalignment`` of a coupling: bending twice a turn, so 2x stands above 1x,
    with 3x and 4x. ``looseness``: the foot lifts and falls back, every other turn: a long series
    of harmonics and half orders, unsteady, with blows.

    Attributes:
        level: amplitude of the 1x line of a healthy rotor.
        ratio: turns per turn of the main shaft.
        resonance: of the foundation, struck by a loose foot, in Hz.
    """

    level: float = 0.1
    ratio: float = 1.0
    resonance: float = 900.0

    faults: ClassVar[Mapping[str, str]] = {
        "imbalance": "shaft",
        "misalignment": "shaft_2x",
        "looseness": "shaft_half",
    }

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Once, twice and half the shaft's rate."""
        return {"shaft": self.ratio, "shaft_2x": 2 * self.ratio, "shaft_half": self.ratio / 2}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Shaft lines, and the blows of a loose foot."""
        turns = self.ratio * motion.turns
        levels = self.level * np.array([1, 0.7, 0.4, 0.3, 0.2, 0.1, 0.1, 0.05])
        imbalance = run.amount("imbalance") * motion.speed**2
        levels += imbalance * np.array([1, 0.4, 0.3, 0.2, 0.15, 0.1, 0.1, 0.05])
        levels += run.amount("misalignment") * np.array([0.3, 1, 0.4, 0.5, 0.2, 0.2, 0.1, 0.1])
        sound = harmonics(turns, levels)
        if amount := run.amount("looseness"):
            unsteady = run.defect.drift(0.3, rate=8.0)
            sound += 0.4 * amount * unsteady * harmonics(turns / 2, np.arange(1, 25) ** -0.4)
            blow = strikes(turns / 2, run.defect.rng, spread=0.6)
            sound += amount * run.ring(blow, self.resonance, 0.008)
        return motion.moving * sound


@dataclass(frozen=True)
class Bearing:
    """Geometry of a rolling bearing, and the rates it gives in multiples of the shaft's.

    With n balls of diameter d on a pitch diameter D under a contact angle phi (Randall & Antoni,
    eqs. 1 to 4)::

        BPFO = n/2 (1 - d/D cos phi)        a ball passes a point of the outer race
        BPFI = n/2 (1 + d/D cos phi)        a ball passes a point of the inner race
        FTF  = 1/2 (1 - d/D cos phi)        the cage goes round
        BSF  = D/2d (1 - (d/D cos phi)^2)   a ball turns about itself

    Attributes:
        balls: n.
        ball_diameter: d in millimetres.
        pitch_diameter: D in millimetres.
        contact_angle: phi in degrees.

    Example:
        >>> sum(SKF_6205.orders[rate] for rate in ("bpfo", "bpfi")) == SKF_6205.balls
        True
    """

    balls: int
    ball_diameter: float
    pitch_diameter: float
    contact_angle: float = 0.0

    @property
    def orders(self) -> dict[str, float]:
        """``ftf``, ``bsf``, ``bpfo`` and ``bpfi`` per turn of the shaft.

        Example:
            >>> {rate: round(order, 3) for rate, order in SKF_6205.orders.items()}
            {'ftf': 0.398, 'bsf': 2.357, 'bpfo': 3.585, 'bpfi': 5.415}
        """
        ratio = (
            self.ball_diameter / self.pitch_diameter * math.cos(math.radians(self.contact_angle))
        )
        return {
            "ftf": (1 - ratio) / 2,
            "bsf": self.pitch_diameter / (2 * self.ball_diameter) * (1 - ratio**2),
            "bpfo": self.balls / 2 * (1 - ratio),
            "bpfi": self.balls / 2 * (1 + ratio),
        }


SKF_6203 = Bearing(balls=8, ball_diameter=6.746, pitch_diameter=28.5)
SKF_6205 = Bearing(balls=9, ball_diameter=7.94, pitch_diameter=39.04)
SKF_6206 = Bearing(balls=9, ball_diameter=9.525, pitch_diameter=46.0)


@dataclass(frozen=True)
class RollingBearing:
    """A rolling bearing under load; its housing rings when balls pass a defect.

    ``outer_race``: struck at BPFO, always in the loaded zone. ``inner_race``: struck at BPFI, the
    defect passing the loaded zone once a turn. ``ball``: the defect meets one race and then the
    other, twice per BSF and unequally hard, and passes the loaded zone with the cage, at FTF. The
    cage slips by about 1 % from one pass to the next, so that high harmonics smear (Randall &
    Antoni). ``dry_friction``: without lubricant, metal noise that breathes with the
    cage.

    Attributes:
        geometry: of the bearing.
        resonance: of the housing, in Hz.
        rolling: RMS of the rolling noise of a healthy bearing.
        housing: how loud the housing answers a blow.
        ratio: turns of its shaft per turn of the main shaft.
    """

    geometry: Bearing = SKF_6205
    resonance: float = 3200.0
    rolling: float = 0.08
    housing: float = 1.0
    ratio: float = 1.0

    faults: ClassVar[Mapping[str, str]] = {
        "outer_race": "bpfo",
        "inner_race": "bpfi",
        "ball": "bsf",
        "dry_friction": "ftf",
    }

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """The geometry's rates."""
        return {rate: self.ratio * order for rate, order in self.geometry.orders.items()}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Rolling noise and the ringing of what is struck."""
        sound = self.rolling * motion.load * motion.speed * run.noise(500, 5000, slope=-2)
        cage = self.orders({})["ftf"] * motion.turns
        if amount := run.amount("dry_friction"):
            breath = 1 + 0.5 * swing(cage)
            sound += 0.25 * amount * motion.speed * breath * run.defect.noise(2000, 7000)
        for fault, zone, strength in (
            ("outer_race", 1.0, 1.0),
            ("inner_race", 1 + swing(self.ratio * motion.turns), 0.8),
            ("ball", 1 + 0.8 * swing(cage), 0.9),
        ):
            if amount := run.amount(fault):
                struck = run.ring(
                    zone * self._blows(run.defect, motion, fault), self.resonance, 1.5e-3
                )
                sound += self.housing * strength * amount * motion.load**0.5 * motion.speed * struck
        return motion.moving * sound

    def _blows(self, run: Operation, motion: Motion, fault: str) -> Array:
        order = self.orders({})[self.faults[fault]]
        step = 0.01 * (order * motion.rate / run.sample_rate) ** 0.5
        passes = order * motion.turns + np.cumsum(run.rng.normal(0, step, run.samples))
        blows = strikes(passes, run.rng)
        return blows + 0.6 * strikes(passes + 0.5, run.rng) if fault == "ball" else blows


@dataclass(frozen=True)
class GearPair:
    """A pinion on the main shaft and a wheel: the mesh, at teeth x shaft rate, with sidebands.

    Both wheels are a little eccentric and modulate the mesh once per turn of theirs. ``tooth_wear``
    deepens the modulation and raises the mesh's harmonics, the second most. ``broken_tooth``: for
    the time of a tooth in every turn the mesh is louder and late, which spreads sidebands at the
    shaft's rate, and the next tooth strikes.

    Attributes:
        teeth: of the pinion; an attribute ``teeth`` comes before it.
        wheel: teeth of the wheel.
        level: amplitude of the mesh under rated load.
        ratio: turns of the pinion per turn of the main shaft.
        resonance: of the housing, in Hz.
    """

    teeth: int
    wheel: int
    level: float = 0.7
    ratio: float = 1.0
    resonance: float = 2300.0

    faults: ClassVar[Mapping[str, str]] = {"broken_tooth": "pinion", "tooth_wear": "mesh"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rates of the pinion, the wheel and the mesh."""
        teeth = float(attributes.get("teeth", self.teeth))
        ratio = self.ratio
        return {"pinion": ratio, "wheel": ratio * teeth / self.wheel, "mesh": ratio * teeth}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """The modulated mesh, and the blow of the tooth after a broken one."""
        order = self.orders(run.attributes)
        pinion, wheel = order["pinion"] * motion.turns, order["wheel"] * motion.turns
        wear, broken = run.amount("tooth_wear"), run.amount("broken_tooth")
        modulation = 1 + (0.12 + 0.5 * wear) * swing(pinion) + 0.06 * swing(wheel)
        mesh = order["mesh"] * motion.turns
        if broken:
            # A bump about a tooth wide, once a turn.
            bump = np.exp(
                0.1 * (order["mesh"] / order["pinion"]) ** 2 * (np.cos(2 * np.pi * pinion) - 1)
            )
            modulation += 2.5 * broken * bump
            mesh = mesh - 0.15 * broken * bump
        levels = np.array([1, 0.55, 0.3, 0.15, 0.08]) * (1 + wear * np.array([0.1, 2.0, 1.5, 3, 3]))
        sound = self.level * motion.load**0.5 * modulation * harmonics(mesh, levels)
        if broken:
            blow = strikes(pinion, run.defect.rng)
            struck = run.ring(blow, self.resonance, 0.004) + run.ring(
                blow, 1.6 * self.resonance, 0.002
            )
            sound += 0.8 * broken * motion.load**0.5 * struck
        return motion.moving * motion.speed * sound


@dataclass(frozen=True)
class InductionMotor:
    """A squirrel-cage motor on an inverter: magnetic hum, rotor bars, the inverter's whine.

    The field of a supply at f_L turns at ``f_L / p`` (p pole pairs), the rotor slips behind by s:
    ``f_r = (1 - s) f_L / p``. Magnetic force is the field squared: hum at 2 f_L. The bars pass the
    stator's slots at ``bars f_r``, with lines 2 f_L beside (Randall). ``broken_bar``:
    torque beats at the pole pass rate ``2 s f_L``, which modulates everything, and the bars' lines
    rise.

    Attributes:
        pole_pairs: p.
        bars: of the rotor's cage.
        slip: s under rated load.
        level: amplitude of the hum.
        carrier: switching frequency of the inverter in Hz, heard as whine at +- 2 f_L.
    """

    pole_pairs: int = 2
    bars: int = 28
    slip: float = 0.02
    level: float = 0.35
    carrier: float = 4000.0

    faults: ClassVar[Mapping[str, str]] = {"broken_bar": "pole_pass"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rates of the hum, the rotor bars and the pole pass."""
        slip = self.slip * float(attributes.get("load", 1))
        line = self.pole_pairs / (1 - slip)
        return {"hum": 2 * line, "bar_pass": self.bars, "pole_pass": 2 * slip * line}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Hum, bar passing and whine; all of them beating with a broken bar."""
        order = self.orders(run.attributes)
        broken = run.amount("broken_bar")
        hum, bars = order["hum"] * motion.turns, order["bar_pass"] * motion.turns
        whine = self.carrier * np.arange(run.samples) / run.sample_rate
        sound = harmonics(hum, [1, 0.35, 0.2, 0.1])
        sound += 0.3 * motion.load**0.5 * swing(bars) * (1 + 0.5 * swing(hum))
        sound += 0.12 * (swing(whine + hum) + swing(whine - hum))
        if broken:
            beat = 1 + 0.7 * broken * swing(order["pole_pass"] * motion.turns)
            sound = beat * (
                sound + 0.9 * broken * (1 + swing(hum)) * harmonics(bars, [1, 0.6, 0.3])
            )
        return motion.moving * self.level * sound


@dataclass(frozen=True)
class Belt:
    """A belt over a pulley on the main shaft: its joint comes round at ``pi d f_r / L``.

    ``belt_slip``: in episodes, the belt sticks to the pulley and slips many times a second, a
    squeal with many harmonics that wavers and comes with the joint; what it drives falls back
    meanwhile (`slipping`).

    Attributes:
        length: L in metres.
        pulley: its diameter d in metres.
        squeal: rate of stick and slip in Hz.
        level: of the flapping belt.
    """

    length: float
    pulley: float
    squeal: float = 850.0
    level: float = 0.15

    faults: ClassVar[Mapping[str, str]] = {"belt_slip": "belt"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rate of the belt."""
        return {"belt": math.pi * self.pulley / self.length}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """The joint's flapping, and squeal while it slips."""
        belt = self.orders({})["belt"] * motion.turns
        flap = np.exp(4 * (swing(belt) - 1))
        sound = self.level * motion.speed * flap * run.noise(100, 1500, slope=-3)
        if run.amount("belt_slip"):
            pitch = self.squeal * (1 + 0.1 * swing(belt)) * run.defect.drift(0.02, rate=20.0)
            squeal = harmonics(run.defect.turns(pitch), [1, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2])
            sound += 0.5 * motion.slip * (1 + 0.6 * swing(belt)) * squeal
        return sound


def slipping(run: Operation) -> Array | float:
    """How much the driving belt slips, 0 to 1, in episodes; 0 where it does not.

    Example:
        >>> slipping(Operation({}, np.random.default_rng(0), 1.0))
        0.0
        >>> run = Operation({}, np.random.default_rng(0), 1.0, fault="belt_slip", severity=1.0)
        >>> bool(0.4 < np.max(slipping(run)) <= 1.0)
        True
    """
    amount = run.amount("belt_slip")
    return amount * run.defect.episodes(1.2, 0.2) if amount else 0.0
