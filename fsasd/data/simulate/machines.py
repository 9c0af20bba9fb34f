"""The machines of the factory: their parts, faults, halls and operating points."""

from collections.abc import Mapping

import numpy as np

from fsasd.data.simulate.contact import GrindingWheel, Rollers, Slideway, Solenoid
from fsasd.data.simulate.flow import Impeller, Pipe, Piston
from fsasd.data.simulate.impact import Casing, Contacts, Ram
from fsasd.data.simulate.machine import Machine, hover, stroke
from fsasd.data.simulate.rotating import (
    SKF_6203,
    SKF_6206,
    Belt,
    GearPair,
    InductionMotor,
    RollingBearing,
    Rotor,
)


def _rpm(attributes: Mapping[str, str]) -> float:
    return float(attributes["spd"]) / 60


def _spm(attributes: Mapping[str, str]) -> float:
    return float(attributes["spm"]) / 60


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
        hall="workshop",
    ),
    "pump": Machine(
        parts=(
            Rotor(level=0.15),
            Impeller(blades=5, flow=0.35, low=300, high=2500, exponent=1.5),
            RollingBearing(SKF_6206, resonance=3600),
            Pipe(spits=1.5, level=0.35),
            Casing(),
        ),
        faults=("cavitation", "leak", "debris", "misalignment", "outer_race"),
        rate=_rpm,
        rated=30.0,
        source={"spd": ("1500", "1800", "2400"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1800", "2100"), "load": ("2",), "mic": ("2",)},
        hall="plant",
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
        parts=(Solenoid(_PATTERNS), Pipe(velocity=150, hole=0.008, level=0.3)),
        faults=("rattle", "leak", "blockage"),
        rate=lambda attributes: 1 / _PATTERNS[attributes["pat"]][0],
        rated=1.0,
        source={"pat": ("00", "01", "02"), "volt": ("24",), "mic": ("1", "2")},
        target={"pat": ("00", "03"), "volt": ("18",), "mic": ("3",)},
        hall="plant",
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
        hall="workshop",
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
        move=stroke,
        hall="workshop",
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
        hall="workshop",
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
        move=hover,
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
        hall="workshop",
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
        hall="plant",
    ),
    "press": Machine(
        parts=(Ram(), InductionMotor(level=0.15), Pipe(velocity=180, hole=0.008, level=0.25)),
        faults=("double_blow", "leak"),
        rate=_spm,
        rated=1.0,
        source={"spm": ("48", "60", "72"), "load": ("1", "2"), "mic": ("1",)},
        target={"spm": ("54", "66"), "load": ("2",), "mic": ("2",)},
        hall="plant",
    ),
    "riveter": Machine(
        parts=(
            Ram(resonance=1400, blow=2.5, drive=0.3),
            Pipe(velocity=220, hole=0.007, level=0.3),
            Contacts(),
        ),
        faults=("double_blow", "arcing", "leak"),
        rate=_spm,
        rated=6.0,
        source={"spm": ("300", "360", "420"), "load": ("1",), "mic": ("1", "2")},
        target={"spm": ("330", "390"), "load": ("2",), "mic": ("3",)},
        hall="workshop",
        strokes=(1.8, 0.5),
    ),
    "contactor": Machine(
        parts=(Solenoid(_PATTERNS, opening=3100, closing=2200, flow=0.02), Contacts()),
        faults=("rattle", "arcing"),
        rate=lambda attributes: 1 / _PATTERNS[attributes["pat"]][0],
        rated=1.0,
        source={"pat": ("00", "02", "03"), "volt": ("24",), "mic": ("1",)},
        target={"pat": ("01", "03"), "volt": ("20",), "mic": ("2",)},
        hall="plant",
    ),
    "welder": Machine(
        parts=(InductionMotor(level=0.6), Impeller(blades=9, tone=0.2, flow=0.5), Contacts()),
        faults=("arcing", "chipped_blade", "broken_bar"),
        rate=_rpm,
        rated=25.0,
        source={"spd": ("1200", "1500"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1350",), "load": ("2", "3"), "mic": ("2",)},
        hall="workshop",
        strokes=(1.6, 0.55),
    ),
    "robot": Machine(
        parts=(
            GearPair(teeth=23, wheel=91, level=0.5, resonance=2000),
            InductionMotor(bars=18, level=0.25, carrier=4600),
            RollingBearing(SKF_6203, resonance=3300),
            Contacts(),
        ),
        faults=("broken_tooth", "tooth_wear", "inner_race", "arcing"),
        rate=_rpm,
        rated=25.0,
        source={"spd": ("1000", "1300", "1600"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1150", "1600"), "load": ("2",), "mic": ("3",)},
        hall="laboratory",
        strokes=(1.4, 0.6),
    ),
    "vacuum": Machine(
        parts=(
            Impeller(blades=9, tone=0.4, flow=0.8, low=300, high=5000),
            InductionMotor(pole_pairs=1, bars=20, level=0.2, carrier=5600),
            Casing(resonance=3000, level=12),
        ),
        faults=("debris", "chipped_blade", "blockage"),
        rate=_rpm,
        rated=60.0,
        source={"spd": ("3000", "3600", "4200"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("3300", "3900"), "load": ("2",), "mic": ("2",)},
        hall="plant",
    ),
    "mixer": Machine(
        parts=(
            Rotor(level=0.2, resonance=500),
            GearPair(teeth=21, wheel=57, level=0.35, resonance=1700),
            Impeller(blades=3, tone=0.3, flow=0.4, low=100, high=1500),
            Casing(resonance=1500, level=12),
        ),
        faults=("debris", "tooth_wear", "imbalance", "looseness"),
        rate=_rpm,
        rated=10.0,
        source={"spd": ("480", "600", "720"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("540", "660"), "load": ("3",), "mic": ("2",)},
        hall="plant",
    ),
    "doser": Machine(
        parts=(
            Piston(pulse=0.3, valves=1.5, intake=0.3),
            Pipe(velocity=60, hole=0.004, level=0.9, spits=1.5),
            Casing(resonance=2900),
        ),
        faults=("knock", "leak", "debris"),
        rate=_spm,
        rated=3.0,
        source={"spm": ("120", "180", "240"), "load": ("1", "2"), "mic": ("1",)},
        target={"spm": ("150", "210"), "load": ("2",), "mic": ("3",)},
        hall="plant",
        strokes=(2.0, 0.6),
    ),
    "shutter": Machine(
        parts=(Slideway(stroke=0.9, pause=0.6, lead=0.02, balls=6, judder=210),),
        faults=("flat_spot", "stick_slip"),
        rate=lambda attributes: 1 / (1.8 / (float(attributes["vel"]) / 1000) + 0.6),
        rated=1 / (1.8 / 0.9 + 0.6),
        source={"vel": ("800", "900", "1000"), "load": ("1", "3"), "mic": ("1",)},
        target={"vel": ("850", "1000"), "load": ("2",), "mic": ("2",)},
        move=stroke,
        hall="plant",
    ),
    "plotter": Machine(
        parts=(Slideway(stroke=0.15, pause=0.2, lead=0.006, balls=10, judder=480), Contacts()),
        faults=("stick_slip", "dry_friction", "arcing"),
        rate=lambda attributes: 1 / (0.3 / (float(attributes["vel"]) / 1000) + 0.2),
        rated=1 / (0.3 / 0.25 + 0.2),
        source={"vel": ("200", "250", "300"), "load": ("1",), "mic": ("1", "2")},
        target={"vel": ("225", "300"), "load": ("1",), "mic": ("3",)},
        move=stroke,
    ),
    "blower": Machine(
        parts=(
            Impeller(blades=11, tone=0.4, flow=0.7, low=100, high=1800),
            Rotor(level=0.15, resonance=800),
            Belt(length=1.9, pulley=0.2, squeal=980),
        ),
        faults=("blockage", "imbalance", "belt_slip"),
        rate=_rpm,
        rated=20.0,
        source={"spd": ("900", "1200", "1500"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("1050", "1350"), "load": ("2",), "mic": ("2",)},
        hall="workshop",
    ),
    "turbine": Machine(
        parts=(
            Impeller(blades=13, tone=0.4, flow=0.6, low=500, high=6000),
            Rotor(level=0.1, resonance=1500),
            RollingBearing(SKF_6206, resonance=4300, rolling=0.2),
        ),
        faults=("chipped_blade", "imbalance", "outer_race", "dry_friction"),
        rate=_rpm,
        rated=80.0,
        source={"spd": ("4200", "4800", "5400"), "load": ("1", "2"), "mic": ("1",)},
        target={"spd": ("4500", "5100"), "load": ("1",), "mic": ("2",)},
        hall="workshop",
    ),
}
