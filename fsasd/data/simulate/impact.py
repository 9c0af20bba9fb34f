"""Parts that strike, and that are struck at times: rams, casings, electrical contacts.

`rotating` explains what a part is. Their faults come and go: each is over within a few hundredths
of a second, and most of a clip is as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.signal import lfilter

from fsasd.data.simulate.operation import Motion, Operation
from fsasd.data.simulate.physics import Array, strikes


@dataclass(frozen=True)
class Ram:
    """A mass that is driven against a stop once a cycle: a press, a hammer, a rivet gun.

    The main shaft of the machine is the cycle. ``double_blow``: the ram has play, rebounds, and
    strikes again 60 to 120 milliseconds later.

    Attributes:
        resonance: of what is struck, in Hz.
        blow: strength of the blow.
        drive: RMS of the noise of what drives it.
    """

    resonance: float = 900.0
    blow: float = 6.0
    drive: float = 0.25

    faults: ClassVar[Mapping[str, str]] = {"double_blow": "cycle"}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """Rate of the cycle."""
        return {"cycle": 1.0}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """The drive, the blow, the rebound."""
        rising = motion.turns % 1
        sound = self.drive * (0.3 + rising) * run.noise(100, 3000, slope=-3)
        sound += self.blow * motion.load**0.5 * self._struck(run, strikes(motion.turns, run.rng))
        if amount := run.amount("double_blow"):
            late = run.defect.rng.uniform(0.06, 0.12) * motion.rate
            again = strikes(motion.turns - late, run.defect.rng, spread=0.7)
            struck = self._struck(run, again) + run.ring(again, 3.7 * self.resonance, 0.012)
            sound += 1.2 * self.blow * amount * struck
        return sound

    def _struck(self, run: Operation, blow: Array) -> Array:
        return run.ring(blow, self.resonance, 0.02) + run.ring(blow, 2.3 * self.resonance, 0.008)


@dataclass(frozen=True)
class Casing:
    """A casing around what turns or flows, silent until something is loose in it.

    ``debris``: a stone or a chip is thrown against the wall at random, once in a second or two.

    Attributes:
        resonance: of the wall, in Hz.
        level: strength of a blow at severity 1.
    """

    resonance: float = 2400.0
    level: float = 12.0

    faults: ClassVar[Mapping[str, str]] = {"debris": ""}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """None: blows come at random."""
        return {}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Nothing, or blows."""
        amount = run.amount("debris")
        if not amount:
            return np.zeros(run.samples)
        blows = _at_times(run.defect, motion, 0.5)
        struck = run.ring(blows, self.resonance, 0.008) + run.ring(
            blows, 1.7 * self.resonance, 0.004
        )
        return self.level * amount * motion.speed * struck


@dataclass(frozen=True)
class Contacts:
    """Electrical contacts under load, silent until they burn.

    ``arcing``: the gap breaks down for some hundredths of a second, and the discharge crackles.

    Attributes:
        level: RMS of the crackle at severity 1.
    """

    level: float = 6.0

    faults: ClassVar[Mapping[str, str]] = {"arcing": ""}

    def orders(self, attributes: Mapping[str, str]) -> dict[str, float]:
        """None: a gap breaks down at random."""
        return {}

    def sound(self, run: Operation, motion: Motion) -> Array:
        """Nothing, or crackles."""
        amount = run.amount("arcing")
        if not amount:
            return np.zeros(run.samples)
        crackle = run.defect.noise(1500, 7500) * np.abs(run.defect.drift(0.8, rate=300.0))
        fall = np.exp(-1 / (0.03 * run.sample_rate))
        discharge = lfilter([1.0], [1.0, -fall], _at_times(run.defect, motion, 0.25))
        return self.level * amount * discharge * crackle


def _at_times(run: Operation, motion: Motion, rate: float) -> Array:
    """Impulses at random instants at which the machine moves, one in a clip at least."""
    moving = np.flatnonzero(np.broadcast_to(motion.moving, run.samples) > 0.5)
    hits = run.rng.choice(moving, size=1 + run.rng.poisson(rate * run.seconds))
    train = np.zeros(run.samples)
    train[hits] = run.rng.lognormal(0.0, 0.5, hits.size)
    return train
