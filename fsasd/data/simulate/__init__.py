"""The simulated factory: machine sounds computed from the physics of rotating and moving parts.

This is a simulation. No recording went into it and none of its numbers says how a method does on
real machines; it exists so that everything can be run and tested without a download, with known
faults of known severity. It is written in the DCASE 2023 Task 2 layout, so that the rest of the
package cannot tell it from a real data set.

A clip is made in the order in which sound travels::

    machine (operating point, fault)  ->  room  ->  microphone  ->  + factory noise  ->  level

Conventions: frequencies in Hz, times in seconds, distances in metres. ``turns`` is the angle of
something that rotates in whole turns (the integral of its frequency), one value per sample. A
machine's own sound has an RMS of the order of 1 (the valve, mostly silent, less). Attributes are
strings, as they stand in the file names.
"""

from fsasd.data.simulate.factory import DOMAINS, FACTORY_VERSION, LABELS, simulate, write_factory
from fsasd.data.simulate.machines import MACHINES, Machine, Operation
from fsasd.data.simulate.physics import (
    MICROPHONES,
    Microphone,
    band,
    bearing_rates,
    harmonics,
    ring,
    strikes,
)

__all__ = [
    "DOMAINS",
    "FACTORY_VERSION",
    "LABELS",
    "MACHINES",
    "MICROPHONES",
    "Machine",
    "Microphone",
    "Operation",
    "band",
    "bearing_rates",
    "harmonics",
    "ring",
    "simulate",
    "strikes",
    "write_factory",
]
