"""The machines: their parts, how they move, where they run and what goes wrong with them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from fsasd.data.simulate.contact import GrindingWheel, Rollers, Slideway, Solenoid
from fsasd.data.simulate.flow import Impeller, Pipe, Piston
from fsasd.data.simulate.operation import Motion, Operation
from fsasd.data.simulate.physics import Array
from fsasd.data.simulate.rotating import (
    SKF_6203,
    SKF_6206,
    Belt,
    GearPair,
    InductionMotor,
    RollingBearing,
    Rotor,
    slipping,
)

Domain = Literal["source", "target"]


class Part(Protocol):
    """What a machine is made of; see `rotating`."""

    faults: ClassVar[Mapping[str, str]]

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Frequencies of the part in multiples of the main shaft's."""

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Sound of the part, shape ``(samples,)``."""


def _turn(run: Operation, rate: float, rated: float) -> Motion:
    slip = slipping(run)
    turns = run.turns(rate * (1 - 0.1 * slip))
    load = float(run.attributes.get("load", 1))
    return Motion(turns, rate, speed=rate / rated, load=load, slip=slip)


def _stroke(run: Operation, rate: float, rated: float) -> Motion:
    """Back and forth: standing still at either end, starting and stopping softly."""
    motion = _turn(run, rate, rated)
    moving = np.clip(6 * np.abs(np.sin(2 * np.pi * motion.turns)) - 0.6, 0, 1)
    return Motion(motion.turns, rate, motion.speed, motion.load, moving)


def _hover(run: Operation, rate: float, rated: float) -> Motion:
    """A flight controller never leaves its rotors at one speed."""
    turns = run.turns(rate * run.drift(0.012, rate=6.0))
    return Motion(turns, rate, speed=rate / rated, load=run.number("load"))


_UNLIKE = 1.5  # dB by which a part is louder in one normal recording than in another


@dataclass(frozen=True)
class Machine:
    """A machine type of the factory.

    Attributes:
        parts: what makes its sound.
        faults: what can go wrong, each a fault of one of its parts.
        rate: frequency of its main shaft in Hz at an operating point.
        rated: the same at the point for which the parts' levels are given.
        source: attribute key to its values in the source domain.
        target: the same keys with the values of the target domain.
        move: makes the motion of a clip.
    """

    parts: tuple[Part, ...]
    faults: tuple[str, ...]
    rate: Callable[[Mapping[str, str]], float]
    rated: float
    source: Mapping[str, tuple[str, ...]]
    target: Mapping[str, tuple[str, ...]]
    move: Callable[[Operation, float, float], Motion] = _turn

    def sound(self, run: Operation) -> Array:
        """The dry sound, shape ``(samples,)``: no room, no microphone, no other noise."""
        motion = self.move(run, self.rate(run.attributes), self.rated)
        total = np.zeros(run.samples)
        for part in self.parts:
            total += 10 ** (run.rng.normal(0, _UNLIKE) / 20) * part.sound(run, motion)
        return total

    def rates(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Characteristic frequencies of its parts in Hz.

        Example:
            >>> rates = MACHINES["fan"].rates({"spd": "1200"})
            >>> rates["shaft"], rates["blade_pass"]
            (20.0, 140.0)
        """
        rate = self.rate(attributes)
        return {
            name: order * rate
            for part in self.parts
            for name, order in part.orders(attributes).items()
        }

    def fault_rate(self, fault: str, attributes: Mapping[str, str]) -> float | None:
        """Frequency in Hz at which a fault shows; ``None`` for one that shows at no frequency.

        Example:
            >>> round(MACHINES["bearing"].fault_rate("outer_race", {"spd": "1200", "load": "1"}), 1)
            71.7
            >>> MACHINES["pump"].fault_rate("leak", {"spd": "1800"}) is None
            True
        """
        (name,) = (part.faults[fault] for part in self.parts if fault in part.faults)
        return self.rates(attributes)[name] if name else None

    def parameters(self) -> list[dict[str, Any]]:
        """The physical parameters of its parts, as they can be written to a file.

        Example:
            >>> MACHINES["fan"].parameters()[0]
            {'part': 'Rotor', 'level': 0.1, 'ratio': 1.0, 'resonance': 1700}
        """
        return [{"part": type(part).__name__} | asdict(part) for part in self.parts]  # type: ignore[call-overload]

    def operating_point(self, domain: Domain, index: int) -> dict[str, str]:
        """Attributes of clip ``index``, cycling through all combinations, the first key fastest.

        Example:
            >>> [MACHINES["fan"].operating_point("source", index)["spd"] for index in range(4)]
            ['1200', '1500', '1800', '1200']
        """
        values = self.source if domain == "source" else self.target
        point = {}
        for key, choices in values.items():
            index, choice = divmod(index, len(choices))
            point[key] = choices[choice]
        return point


def _rpm(attributes: Mapping[str, str]) -> float:
    return float(attributes["spd"]) / 60


_PATTERNS = {  # period in s, then the instants of opening, closing, opening, ...
    "00": (1.0, (0.0, 0.5)),
    "01": (0.7, (0.0, 0.2)),
    "02": (1.4, (0.0, 0.2, 0.4, 1.0)),
    "03": (1.2, (0.0, 0.8)),
}

MACHINES: Mapping[str, Machine] = {
    "fan": Machine(
        parts=(Rotor(level=0.1, resonance=1700), Impeller(blades=7)),
        faults=("imbalance", "blockage", "chipped_blade", "looseness"),
        rate=_rpm,
        rated=25.0,
        source={"spd": ("1200", "1500", "1800"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1350", "1800"), "load": ("2",), "mic": ("2",)},
    ),
    "pump": Machine(
        parts=(
            Rotor(level=0.15),
            Impeller(blades=5, flow=0.35, low=300, high=2500, exponent=1.5),
            RollingBearing(SKF_6206, resonance=3600),
            Pipe(spits=1.5, level=0.35),
        ),
        faults=("cavitation", "leak", "misalignment", "outer_race"),
        rate=_rpm,
        rated=30.0,
        source={"spd": ("1500", "1800", "2400"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1800", "2100"), "load": ("2",), "mic": ("2",)},
    ),
    "gearbox": Machine(
        parts=(
            GearPair(teeth=29, wheel=67, level=0.6),
            Rotor(level=0.25),
            RollingBearing(SKF_6203, resonance=4200, rolling=0.2, housing=1.4),
        ),
        faults=("broken_tooth", "tooth_wear", "outer_race", "misalignment"),
        rate=lambda attributes: 400 * float(attributes["volt"]) / 60,
        rated=20.0,
        source={"volt": ("2.0", "2.5", "3.0"), "load": ("1", "2"), "mic": ("1",)},
        target={"volt": ("2.2", "3.0"), "load": ("1", "3"), "mic": ("2",)},
    ),
    "valve": Machine(
        parts=(Solenoid(_PATTERNS), Pipe(velocity=150, hole=0.008, level=0.1)),
        faults=("rattle", "leak", "blockage"),
        rate=lambda attributes: 1 / _PATTERNS[attributes["pat"]][0],
        rated=1.0,
        source={"pat": ("00", "01", "02"), "volt": ("24",), "mic": ("1", "2")},
        target={"pat": ("00", "03"), "volt": ("18",), "mic": ("3",)},
    ),
    "conveyor": Machine(
        parts=(
            Rollers(diameter=0.06),
            GearPair(teeth=17, wheel=51, level=0.6, ratio=1.33),
            Belt(length=2.4, pulley=0.06),
        ),
        faults=("belt_slip", "flat_spot", "tooth_wear"),
        rate=lambda attributes: float(attributes["spd"]) / (np.pi * 0.06),
        rated=0.8 / (np.pi * 0.06),
        source={"spd": ("0.5", "0.8", "1.2"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("0.8", "1.0"), "load": ("3",), "mic": ("2",)},
    ),
    "bearing": Machine(
        parts=(
            InductionMotor(bars=14, level=0.3, carrier=5200),
            Rotor(level=0.3),
            RollingBearing(resonance=3200, rolling=0.25),
        ),
        faults=("outer_race", "inner_race", "ball", "dry_friction"),
        rate=_rpm,
        rated=25.0,
        source={"spd": ("1200", "1500", "1800"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1500", "2100"), "load": ("1",), "mic": ("2",)},
    ),
    "slider": Machine(
        parts=(Slideway(),),
        faults=("flat_spot", "dry_friction", "stick_slip"),
        rate=lambda attributes: 1 / (0.8 / (float(attributes["vel"]) / 1000) + 0.3),
        rated=1 / (0.8 / 0.45 + 0.3),
        source={"vel": ("300", "450", "600"), "load": ("1", "4"), "mic": ("1",)},
        target={"vel": ("380", "600"), "load": ("2",), "mic": ("3",)},
        move=_stroke,
    ),
    "motor": Machine(
        parts=(
            InductionMotor(),
            Rotor(level=0.15),
            Impeller(blades=9, tone=0.12, flow=0.25, low=200, high=3000),
            RollingBearing(SKF_6206, resonance=2800),
        ),
        faults=("broken_bar", "imbalance", "misalignment", "inner_race"),
        rate=_rpm,
        rated=25.0,
        source={"spd": ("1200", "1500", "1800"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1350", "1500"), "load": ("3",), "mic": ("2",)},
    ),
    "grinder": Machine(
        parts=(
            GrindingWheel(),
            Rotor(level=0.15, resonance=1200),
            InductionMotor(pole_pairs=1, bars=22, level=0.2, carrier=6000),
            RollingBearing(SKF_6203, resonance=3900, housing=2.0),
        ),
        faults=("imbalance", "glazing", "looseness", "ball"),
        rate=_rpm,
        rated=50.0,
        source={"spd": ("2400", "3000", "3600"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("2700", "3000"), "load": ("3",), "mic": ("3",)},
    ),
    "drone": Machine(
        parts=(
            Rotor(level=0.1, resonance=700),
            Impeller(
                blades=2, tone=0.5, flow=0.25, low=400, high=4000, beside=(0.984, 1.011, 1.023)
            ),
        ),
        faults=("imbalance", "chipped_blade", "looseness"),
        rate=_rpm,
        rated=100.0,
        source={"spd": ("4800", "6000", "7200"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("5400", "6600"), "load": ("2",), "mic": ("3",)},
        move=_hover,
    ),
    "compressor": Machine(
        parts=(
            Piston(),
            Rotor(level=0.1, resonance=600),
            Belt(length=1.6, pulley=0.25, squeal=1150),
            Pipe(velocity=200, hole=0.008, level=0.12),
        ),
        faults=("leak", "belt_slip", "knock", "looseness"),
        rate=_rpm,
        rated=12.0,
        source={"spd": ("600", "720", "900"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("660", "840"), "load": ("3",), "mic": ("2",)},
    ),
    "hoist": Machine(
        parts=(
            GearPair(teeth=19, wheel=81, level=0.5, resonance=1800),
            InductionMotor(bars=26, level=0.25, carrier=3000),
            Rotor(level=0.15),
            RollingBearing(SKF_6206, resonance=2600),
        ),
        faults=("broken_tooth", "inner_race", "misalignment", "broken_bar"),
        rate=_rpm,
        rated=20.0,
        source={"spd": ("900", "1200"), "load": ("1", "2"), "teeth": ("19", "23"), "mic": ("1",)},
        target={"spd": ("1050",), "load": ("1", "2"), "teeth": ("21", "23"), "mic": ("2",)},
    ),
}
