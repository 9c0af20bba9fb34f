"""The machines: their operating points, the sound they make and the faults they have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.signal import lfilter

from fsasd.data.simulate.physics import Array, band, bearing_rates, harmonics, ring, strikes

Domain = Literal["source", "target"]


@dataclass(frozen=True)
class Operation:
    """A machine running for one clip: operating point, fault, clock and chance.

    Attributes:
        attributes: the operating point as in the file name, e.g. ``{"spd": "1200"}``.
        rng: source of everything random about the clip.
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

    def number(self, key: str) -> float:
        """A numeric attribute, in the unit of the file name."""
        return float(self.attributes[key])

    def amount(self, fault: str) -> float:
        """Severity of ``fault``; 0 where the machine has another fault or none."""
        return self.severity if self.fault == fault else 0.0

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

    def bursts(self, rate: float, length: float) -> Array:
        """Envelope of random bursts, each rising at once and decaying over ``length`` seconds."""
        return lfilter([1.0], [1.0, -np.exp(-1 / (length * self.sample_rate))], self.chance(rate))

    def ring(self, excitation: Array, resonance: float, decay: float) -> Array:
        """`ring` at the clip's sample rate."""
        return ring(excitation, resonance, decay, self.sample_rate)


def _fan(run: Operation) -> Array:
    """Blade passing (blades x shaft rate) and aerodynamic noise, power growing as speed^5."""
    speed, load = run.number("spd") / 1500, run.number("load")
    shaft = run.turns(25 * speed)
    imbalance, blockage = run.amount("imbalance"), run.amount("blockage")
    blades = harmonics(7 * shaft, 0.5 * load**0.5 / np.arange(1, 9))
    air = 0.6 * run.noise(80, 1800 * speed / load**0.5, slope=-3)
    wobble = 1 + (0.05 + 0.5 * imbalance) * np.sin(2 * np.pi * shaft)
    sound = wobble * ((1 - 0.4 * blockage) * blades + air)
    sound += (0.05 + 0.5 * imbalance) * harmonics(shaft, [1.0, 0.8, 0.5, 0.5, 0.3, 0.2])
    if blockage:
        stall = run.noise(150, 900) * np.clip(run.drift(1.0, rate=6.0), 0, None)
        sound += 0.5 * blockage * stall
    return speed**2.5 * sound


def _pump(run: Operation) -> Array:
    """Vane passing (vanes x shaft rate) and flow noise; bubbles collapse in bursts."""
    speed, load = run.number("spd") / 1800, run.number("load")
    shaft = run.turns(30 * speed)
    sound = harmonics(5 * shaft, 0.5 / np.arange(1, 13) ** 0.7) + harmonics(shaft, [0.2, 0.3])
    sound += 0.3 * load * run.noise(300, 2500 * speed, slope=-2)
    if cavitation := run.amount("cavitation"):
        bubbles = run.chance(2000) * np.minimum(run.bursts(0.8, 0.06), 2.0)
        sound += 1.0 * cavitation * (run.ring(bubbles, 3800, 4e-4) + run.ring(bubbles, 6100, 3e-4))
    if leak := run.amount("leak"):
        spit = np.minimum(run.bursts(1.5, 0.05), 3.0)
        sound += 0.3 * leak * run.noise(1500, 6000) * spit
    return speed**1.5 * sound


def _gearbox(run: Operation) -> Array:
    """Gear mesh (teeth x shaft rate) with sidebands at the shaft rate; 400 rpm per volt."""
    load = run.number("load")
    rate = 400 * run.number("volt") / 60
    shaft = run.turns(rate)
    wear = run.amount("worn_mesh")
    modulation = 1 + (0.15 + 0.5 * wear) * np.sin(2 * np.pi * shaft)
    mesh = harmonics(29 * shaft, np.array([0.7, 0.4, 0.2, 0.1]) * (1 + 0.6 * wear * np.arange(4)))
    sound = load**0.5 * modulation * mesh + 0.25 * run.noise(100, 2500, slope=-3)
    sound += harmonics(shaft, [0.3, 0.2, 0.1])
    if broken := run.amount("broken_tooth"):
        blow = strikes(shaft, run.rng)
        sound += 0.7 * broken * load * (run.ring(blow, 2300, 0.004) + run.ring(blow, 3700, 0.002))
    return (rate / 20) * sound


_PATTERNS = {  # period in s, then the instants of opening, closing, opening, ...
    "00": (1.0, (0.0, 0.5)),
    "01": (0.7, (0.0, 0.2)),
    "02": (1.4, (0.0, 0.2, 0.4, 1.0)),
    "03": (1.2, (0.0, 0.8)),
}


def _valve(run: Operation) -> Array:
    """A solenoid that opens and closes in a pattern, with a little flow noise while open."""
    volt = run.number("volt") / 24
    period, instants = _PATTERNS[run.attributes["pat"]]
    cycle = run.turns(1 / period)
    rattle, leak = run.amount("rattle"), run.amount("leak")
    event = np.searchsorted(instants, (cycle % 1) * period, side="right") - 1
    sound = 0.05 * run.noise(60, 600, slope=-3) + 0.06 * (event % 2 == 0) * run.noise(800, 3500)
    for k, instant in enumerate(instants):
        resonance, delay = (2600, 0.0) if k % 2 == 0 else (1500, 0.04 * rattle)
        click = strikes(cycle - (instant + delay) / period, run.rng)
        sound += 3 * volt * (run.ring(click, resonance, 0.006) + run.ring(click, 480, 0.012))
        if rattle and k % 2:
            for bounce in range(1, 7):
                at = instant + delay + 0.03 * (1 - 0.75**bounce) / 0.25
                chatter = strikes(cycle - at / period, run.rng, spread=0.5)
                sound += 1.5 * rattle * 0.8**bounce * run.ring(chatter, 3900, 0.004)
    return sound + 0.06 * leak * run.noise(2000, 7000)


def _conveyor(run: Operation) -> Array:
    """Rumble of rollers (belt speed / circumference) under a belt; spd in metres per second."""
    speed, load = run.number("spd"), run.number("load")
    roller = run.turns(speed / (np.pi * 0.06))
    rumble = run.noise(50, 500 * speed**0.5, slope=-3) * (1 + 0.3 * np.sin(2 * np.pi * roller))
    drive = harmonics(run.turns(120 * speed), 0.3 / np.arange(1, 9))
    sound = speed * (0.5 + 0.3 * load) * rumble + drive + 0.15 * speed * run.noise(700, 4000, -2)
    if squeal := run.amount("squeal"):
        # Stick-slip: the belt sticks, then slips hundreds of times a second, in short episodes.
        episode = np.minimum(run.bursts(0.8, 0.08), 1.0)
        slip = run.turns(850 * run.drift(0.02, rate=20.0))
        sound += 0.5 * squeal * episode * harmonics(slip, [1, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2])
    if bad := run.amount("bad_roller"):
        blow = strikes(roller, run.rng, spread=0.4)
        sound += 0.9 * bad * (run.ring(blow, 1300, 0.01) + run.ring(blow, 2900, 0.004))
    return sound


def _bearing(run: Operation) -> Array:
    """A motor (14 rotor slots) in a rolling bearing; a damaged race is struck at BPFO or BPFI."""
    rate, load = run.number("spd") / 60, run.number("load")
    shaft = run.turns(rate)
    motor = harmonics(14 * shaft, 0.4 / np.arange(1, 7)) + harmonics(shaft, [0.3, 0.5, 0.2])
    sound = motor + 0.3 * load * run.noise(200, 5000, slope=-3)
    outer, inner = bearing_rates(1.0)
    # The cage slips: the phase walks by about 1 % of a ball pass from one pass to the next.
    slip = np.cumsum(run.rng.normal(0, 0.01 * (4 * rate / run.sample_rate) ** 0.5, run.samples))
    if severity := run.amount("outer_race"):
        blow = strikes(outer * shaft + slip, run.rng)
        sound += 0.55 * severity * load * run.ring(blow, 3200, 0.0015)
    if severity := run.amount("inner_race"):
        # The defect turns with the shaft through the loaded zone.
        zone = 1 + np.sin(2 * np.pi * shaft)
        blow = zone * strikes(inner * shaft + slip, run.rng)
        sound += 0.4 * severity * load * run.ring(blow, 4300, 0.0012)
    return (rate / 25) * sound


def _slider(run: Operation) -> Array:
    """A carriage going back and forth over 0.4 m on a ball screw; vel in mm/s, load in kg."""
    velocity, load = run.number("vel") / 1000, run.number("load")
    cycle = run.turns(velocity / (2 * 0.4 + 0.3 * velocity))
    # 0.15 s of standstill at either end, then a stroke that starts and stops softly.
    moving = np.clip(6 * np.abs(np.sin(2 * np.pi * cycle)) - 0.6, 0, 1)
    screw = run.turns(velocity / 0.01 * moving)
    friction = run.noise(500, 5000, slope=-2)
    sound = moving * (harmonics(8 * screw, 0.6 / np.arange(1, 9)) + 0.2 * load**0.5 * friction)
    sound += 0.1 * run.noise(60, 800, slope=-3)
    reversal = strikes(2 * cycle, run.rng)
    sound += load**0.5 * run.ring(reversal, 320, 0.02)
    if damage := run.amount("rail_damage"):
        for place in (0.15, 0.85):  # the same spot, on the way out and on the way back
            sound += 3 * damage * run.ring(strikes(cycle - place, run.rng), 1700, 0.008)
    if dry := run.amount("dry_friction"):
        sound += 0.4 * dry * moving * run.noise(2500, 6500)
    return sound


@dataclass(frozen=True)
class Machine:
    """A machine type of the factory.

    Attributes:
        sound: the physics; takes an `Operation` and returns the dry sound, ``(samples,)``.
        faults: names of what can go wrong.
        source: attribute key to its values in the source domain.
        target: the same keys with the values of the target domain.
    """

    sound: Callable[[Operation], Array]
    faults: tuple[str, ...]
    source: Mapping[str, tuple[str, ...]]
    target: Mapping[str, tuple[str, ...]]

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


MACHINES: Mapping[str, Machine] = {
    "fan": Machine(
        sound=_fan,
        faults=("imbalance", "blockage"),
        source={"spd": ("1200", "1500", "1800"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1350", "1800"), "load": ("2",), "mic": ("2",)},
    ),
    "pump": Machine(
        sound=_pump,
        faults=("cavitation", "leak"),
        source={"spd": ("1500", "1800", "2400"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1800", "2100"), "load": ("2",), "mic": ("2",)},
    ),
    "gearbox": Machine(
        sound=_gearbox,
        faults=("broken_tooth", "worn_mesh"),
        source={"volt": ("2.0", "2.5", "3.0"), "load": ("1", "2"), "mic": ("1",)},
        target={"volt": ("2.2", "3.0"), "load": ("1", "3"), "mic": ("2",)},
    ),
    "valve": Machine(
        sound=_valve,
        faults=("rattle", "leak"),
        source={"pat": ("00", "01", "02"), "volt": ("24",), "mic": ("1", "2")},
        target={"pat": ("00", "03"), "volt": ("18",), "mic": ("3",)},
    ),
    "conveyor": Machine(
        sound=_conveyor,
        faults=("squeal", "bad_roller"),
        source={"spd": ("0.5", "0.8", "1.2"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("0.8", "1.0"), "load": ("3",), "mic": ("2",)},
    ),
    "bearing": Machine(
        sound=_bearing,
        faults=("outer_race", "inner_race"),
        source={"spd": ("1200", "1500", "1800"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1500", "2100"), "load": ("1",), "mic": ("2",)},
    ),
    "slider": Machine(
        sound=_slider,
        faults=("rail_damage", "dry_friction"),
        source={"vel": ("300", "450", "600"), "load": ("1", "4"), "mic": ("1",)},
        target={"vel": ("380", "600"), "load": ("2",), "mic": ("3",)},
    ),
}
