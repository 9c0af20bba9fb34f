"""The simulated factory: machine sounds computed from the physics of rotating and moving parts.

This is a simulation. No recording went into it and none of its numbers says how a method does on
real machines; it exists so that everything can be run and tested without a download, and so that
methods can be compared where the truth is known: which fault, of which severity, at which
frequency. It is written in the DCASE 2023 Task 2 layout, so that the rest of the package cannot
tell it from a real data set.

A clip is made in the order in which sound travels::

    parts of a machine (operating point, fault) -> room -> (+ noise of hall) -> microphone -> level

Faults belong to parts, not to machines: an outer race is struck in the same way in a pump and in
a gearbox, at the rate that its bearing's geometry and its shaft's speed give.

Conventions: frequencies in Hz, times in seconds, distances in metres. ``turns`` is the angle of
something that rotates in whole turns (the integral of its frequency), one value per sample. A
machine's own sound has an RMS of the order of 1 (the valve, mostly silent, less). Attributes are
strings, as they stand in the file names.
"""

from fsasd.data.simulate.factory import FACTORY_VERSION, write_factory
from fsasd.data.simulate.halls import HALLS, Hall
from fsasd.data.simulate.machine import Machine
from fsasd.data.simulate.machines import MACHINES
from fsasd.data.simulate.operation import Motion, Operation
from fsasd.data.simulate.physics import band, harmonics, ring, strikes
from fsasd.data.simulate.recording import (
    DOMAINS,
    LABELS,
    Defect,
    Session,
    draw_defect,
    draw_session,
    simulate,
)
from fsasd.data.simulate.room import MICROPHONES, ROOM, Microphone, Room
from fsasd.data.simulate.rotating import SKF_6203, SKF_6205, SKF_6206, Bearing

__all__ = [
    "DOMAINS",
    "FACTORY_VERSION",
    "HALLS",
    "LABELS",
    "MACHINES",
    "MICROPHONES",
    "ROOM",
    "SKF_6203",
    "SKF_6205",
    "SKF_6206",
    "Bearing",
    "Defect",
    "Hall",
    "Machine",
    "Microphone",
    "Motion",
    "Operation",
    "Room",
    "Session",
    "band",
    "draw_defect",
    "draw_session",
    "harmonics",
    "ring",
    "simulate",
    "strikes",
    "write_factory",
]
