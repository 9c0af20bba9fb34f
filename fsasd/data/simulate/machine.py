"""What a machine is: parts that move together in a hall, its operating points and its faults."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from fsasd.data.simulate.operation import Motion, Operation
from fsasd.data.simulate.physics import Array
from fsasd.data.simulate.rotating import slipping

Domain = Literal["source", "target"]


class Part(Protocol):
    """What a machine is made of; see `rotating`."""

    faults: ClassVar[Mapping[str, str]]

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Frequencies of the part in multiples of the main shaft's."""

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Sound of the part, shape ``(samples,)``."""


def turn(run: Operation, rate: float, rated: float) -> Motion:
    """A shaft that turns steadily, but where its belt slips."""
    slip = slipping(run)
    turns = run.turns(rate * (1 - 0.1 * slip))
    load = float(run.attributes.get("load", 1))
    return Motion(turns, rate, speed=rate / rated, load=load, slip=slip)


def stroke(run: Operation, rate: float, rated: float) -> Motion:
    """Back and forth: standing still at either end, starting and stopping softly."""
    motion = turn(run, rate, rated)
    moving = np.clip(6 * np.abs(np.sin(2 * np.pi * motion.turns)) - 0.6, 0, 1)
    return Motion(motion.turns, rate, motion.speed, motion.load, moving)


def hover(run: Operation, rate: float, rated: float) -> Motion:
    """A flight controller never leaves its rotors at one speed."""
    turns = run.turns(rate * run.drift(0.012, rate=6.0))
    return Motion(turns, rate, speed=rate / rated, load=run.number("load"))


def _working(run: Operation, period: float, share: float) -> Array:
    """1 while it works, 0 while it rests; it starts and stops within 30 milliseconds."""
    phase = run.turns(1 / period, jitter=0.03) % 1
    return np.clip(np.minimum(phase, share - phase) * period / 0.03, 0, 1)


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
        hall: where it stands, a key of `HALLS`.
        strokes: period in seconds and the share of it in which it works; ``None`` for a machine
            that never rests.
    """

    parts: tuple[Part, ...]
    faults: tuple[str, ...]
    rate: Callable[[Mapping[str, str]], float]
    rated: float
    source: Mapping[str, tuple[str, ...]]
    target: Mapping[str, tuple[str, ...]]
    move: Callable[[Operation, float, float], Motion] = turn
    hall: str = "laboratory"
    strokes: tuple[float, float] | None = None

    def sound(self, run: Operation) -> Array:
        """The dry sound, shape ``(samples,)``: no room, no microphone, no other noise."""
        motion = self.move(run, self.rate(run.attributes), self.rated)
        working = _working(run, *self.strokes) if self.strokes else 1.0
        motion = replace(motion, moving=working * motion.moving)
        total = np.zeros(run.samples)
        for part in self.parts:
            total += 10 ** (run.rng.normal(0, _UNLIKE) / 20) * part.sound(run, motion)
        return working * total

    def rates(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Characteristic frequencies of its parts in Hz.

        Example:
            >>> from fsasd.data.simulate import MACHINES
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
            >>> from fsasd.data.simulate import MACHINES
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
            >>> from fsasd.data.simulate import MACHINES
            >>> MACHINES["fan"].parameters()[0]
            {'part': 'Rotor', 'level': 0.1, 'ratio': 1.0, 'resonance': 1700}
        """
        return [{"part": type(part).__name__} | asdict(part) for part in self.parts]  # type: ignore[call-overload]

    def operating_point(self, domain: Domain, index: int) -> dict[str, str]:
        """Attributes of clip ``index``, cycling through all combinations, the first key fastest.

        Example:
            >>> from fsasd.data.simulate import MACHINES
            >>> [MACHINES["fan"].operating_point("source", index)["spd"] for index in range(4)]
            ['1200', '1500', '1800', '1200']
        """
        values = self.source if domain == "source" else self.target
        point = {}
        for key, choices in values.items():
            index, choice = divmod(index, len(choices))
            point[key] = choices[choice]
        return point
