"""One recording: a machine with or without a defect, recorded in the room, with noise around."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fsasd.data.simulate.halls import HALLS
from fsasd.data.simulate.machine import Domain, Machine
from fsasd.data.simulate.machines import MACHINES
from fsasd.data.simulate.operation import Operation
from fsasd.data.simulate.room import FAR_MICROPHONE, MICROPHONES

Label = Literal["normal", "anomaly"]

DOMAINS: tuple[Domain, ...] = ("source", "target")
LABELS: tuple[Label, ...] = ("normal", "anomaly")

MILD = 0.1
"""Severity of the mildest fault that is drawn; the gravest is 1."""


@dataclass(frozen=True)
class Defect:
    """What is wrong with a machine.

    Attributes:
        fault: one of the machine's ``faults``.
        severity: 0 (none) to 1 (obvious).
    """

    fault: str
    severity: float


def draw_defect(machine: str, rng: np.random.Generator) -> Defect:
    """One of the machine's faults, with a severity uniform in 0.1 to 1: some are hard to hear.

    Example:
        >>> defect = draw_defect("bearing", np.random.default_rng(0))
        >>> defect.fault in MACHINES["bearing"].faults, MILD <= defect.severity <= 1
        (True, True)
    """
    fault = str(rng.choice(require_machine(machine).faults))
    return Defect(fault, float(rng.uniform(MILD, 1.0)))


@dataclass(frozen=True)
class Session:
    """Somebody came, put up the microphone, and recorded some clips in a row.

    Attributes:
        moved: the microphone's distance from its usual position in metres, along each axis.
        gain: of the recorder in dB.
        background: of the hall in dB.
    """

    moved: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gain: float = 0.0
    background: float = 0.0


def draw_session(rng: np.random.Generator) -> Session:
    """A session: the microphone within about 10 cm, its gain 1.5 dB, the hall 2 dB (deviations).

    Example:
        >>> session = draw_session(np.random.default_rng(0))
        >>> max(map(abs, session.moved)) < 0.3, abs(session.gain) < 6
        (True, True)
    """
    x, y, z = np.clip(rng.normal(0, 0.07, 3), -0.25, 0.25).tolist()
    return Session((x, y, z), float(rng.normal(0, 1.5)), float(rng.normal(0, 2.0)))


def simulate(
    machine: str,
    attributes: Mapping[str, str],
    condition: Label | Defect,
    rng: np.random.Generator,
    seconds: float,
    *,
    sample_rate: int = 16000,
    domain: Domain = "source",
    session: Session = Session(),
    far_microphone: bool = False,
) -> npt.NDArray[np.float32]:
    """One recording of a simulated machine.

    What a defect adds has a random stream of its own: clips of the same seed and different
    conditions are the same recording with and without the defect. The domain sets only the noise
    around; the rest of the domain shift is in the attributes.

    Args:
        machine: a key of `MACHINES`.
        attributes: one of the machine's values for each of its keys.
        condition: ``"normal"``, a `Defect`, or ``"anomaly"`` for one that is drawn.
        rng: source of everything random about the clip.
        seconds: duration, at least 0.5.
        sample_rate: in Hz, at least 16000.
        domain: ``"source"`` or ``"target"``.
        session: in which it is recorded.
        far_microphone: also record by a second microphone, far from the machine
            (`FAR_MICROPHONE`), as DCASE 2026 does. The surroundings are the same at both.

    Returns:
        The clip, shape ``(samples,)``, full scale 1; with a far microphone ``(samples, 2)``, of
        which the first channel is the same clip.

    Raises:
        ValueError: where an argument is none of those.

    Example:
        >>> point = {"spd": "1200", "load": "1", "mic": "1"}
        >>> clip = simulate("fan", point, "normal", np.random.default_rng(0), seconds=1.0)
        >>> clip.shape, clip.dtype.name, bool(0.01 < clip.std() < 0.2)
        ((16000,), 'float32', True)
        >>> worn = simulate("fan", point, Defect("imbalance", 1.0), np.random.default_rng(0), 1.0)
        >>> bool(worn.std() > clip.std())
        True
    """
    model = require_machine(machine)
    _check_point(machine, attributes)
    if domain not in DOMAINS:
        raise ValueError(f"domain must be one of {DOMAINS}, got {domain!r}")
    if sample_rate < 16000:
        raise ValueError(
            f"sample_rate must be at least 16000, got {sample_rate}: noise reaches 7.5 kHz"
        )
    check_seconds(seconds)
    defect = _defect(machine, condition, rng)
    run = Operation(attributes, rng, seconds, sample_rate, defect.fault, defect.severity)
    dry = run.drift(0.05) * model.sound(run)
    ambience = HALLS[model.hall].sound(run, target=domain == "target")
    ambience *= 10 ** ((session.background + rng.normal(0, 1.0)) / 20)
    level = 0.03 * 10 ** ((session.gain + rng.normal(0, 0.5)) / 20)
    microphone = MICROPHONES[attributes["mic"]].moved(session.moved)
    clip = level * microphone.record(dry, ambience, sample_rate)
    if far_microphone:
        far = level * FAR_MICROPHONE.record(dry, ambience, sample_rate)
        clip = np.stack([clip, far], axis=1)
    return np.clip(clip, -1, 1).astype(np.float32)


def _defect(machine: str, condition: Label | Defect, rng: np.random.Generator) -> Defect:
    if isinstance(condition, Defect):
        faults = MACHINES[machine].faults
        if condition.fault not in faults:
            raise ValueError(
                f"faults of {machine} are {', '.join(faults)}, got {condition.fault!r}"
            )
        if not 0 <= condition.severity <= 1:
            raise ValueError(f"severity must be 0 to 1, got {condition.severity}")
        return condition
    if condition not in LABELS:
        raise ValueError(f"condition must be one of {LABELS} or a Defect, got {condition!r}")
    return draw_defect(machine, rng.spawn(1)[0]) if condition == "anomaly" else Defect("", 0.0)


def require_machine(name: str) -> Machine:
    """The machine of a name.

    Raises:
        ValueError: for a name that is none, with the near miss.

    Example:
        >>> require_machine("fann")
        Traceback (most recent call last):
        ...
        ValueError: no simulated machine 'fann', known are fan, pump, ...; did you mean 'fan'?
    """
    if name not in MACHINES:
        near = difflib.get_close_matches(name, MACHINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no simulated machine {name!r}, known are {', '.join(MACHINES)}{hint}")
    return MACHINES[name]


def _check_point(machine: str, attributes: Mapping[str, str]) -> None:
    model = MACHINES[machine]
    if set(attributes) != set(model.source):
        raise ValueError(f"{machine} has attributes {list(model.source)}, got {list(attributes)}")
    for key, value in attributes.items():
        known = dict.fromkeys(model.source[key] + model.target[key])
        if value not in known:
            raise ValueError(f"{machine} runs at {key} {', '.join(known)}, got {value!r}")


def check_seconds(seconds: float) -> None:
    """Raise for a duration that is no number of at least half a second."""
    if not 0.5 <= seconds < float("inf"):
        raise ValueError(f"seconds must be finite and at least 0.5, got {seconds}")
