"""Where machines are recorded: a room, positions in it, microphones."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fsasd.data.simulate.physics import Array, band

SPEED_OF_SOUND = 343.0
"""Metres per second, in air of 20 degrees Celsius."""

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Room:
    """A rectangular room, by the image-source method.

    Every reflection is the direct sound of a mirror image of the source: ``h(t) = sum_i
    beta^(n_i) / d_i delta(t - d_i / c)`` over images at distance d_i that are n_i walls away
    (Allen & Berkley, "Image method for efficiently simulating small-room acoustics", JASA 65,
    1979). The walls' reflection factor beta follows from the reverberation time by Eyring's
    formula, ``RT60 = 24 ln(10) V / (-2 c S ln beta)``.

    Attributes:
        size: length, width and height in metres.
        reverberation: RT60 of a diffuse field in seconds. The room is bare, nothing scatters, and
            its echoes die away up to half as slow again.
    """

    size: Point
    reverberation: float

    @property
    def reflection(self) -> float:
        """Share of the pressure that a wall throws back.

        Example:
            >>> round(ROOM.reflection, 2)
            0.77
        """
        x, y, z = self.size
        surface = 2 * (x * y + y * z + z * x)
        decay = 24 * math.log(10) * x * y * z / (SPEED_OF_SOUND * surface * self.reverberation)
        return math.exp(-decay / 2)

    def response(self, source: Point, microphone: Point, sample_rate: int) -> Array:
        """Impulse response between two points, as long as the reverberation time.

        Example:
            >>> response = ROOM.response((1, 1, 1), (3, 1, 1), 16000)
            >>> direct = round(2 / SPEED_OF_SOUND * 16000)  # over two metres
            >>> int(np.flatnonzero(response)[0]) == direct, float(response[direct])
            (True, 0.5)
        """
        reach = SPEED_OF_SOUND * self.reverberation
        squares, walls = zip(
            *(_images(*axis, reach) for axis in zip(self.size, source, microphone, strict=True)),
            strict=True,
        )
        distance = np.sqrt(functools.reduce(np.add.outer, squares)).ravel()
        bounces = functools.reduce(np.add.outer, walls).ravel()
        near = distance < reach
        delay = np.round(distance[near] / SPEED_OF_SOUND * sample_rate).astype(int)
        gain = self.reflection ** bounces[near] / distance[near]
        return np.bincount(delay, weights=gain).astype(np.float64)


def _images(
    size: float, source: float, microphone: float, reach: float
) -> tuple[Array, npt.NDArray[np.integer]]:
    """Squared distance along one axis, and the number of walls passed, of every image."""
    at = np.arange(-math.ceil(reach / (2 * size)), math.ceil(reach / (2 * size)) + 1)
    same, mirrored = 2 * at * size + source, 2 * at * size - source
    walls = np.concatenate([2 * np.abs(at), np.abs(at) + np.abs(at - 1)])
    return (np.concatenate([same, mirrored]) - microphone) ** 2, walls


ROOM = Room(size=(6.5, 4.5, 3.0), reverberation=0.22)
"""The simulated factory's test room."""

MACHINE_AT: Point = (2.6, 1.9, 1.0)
"""Where the machine under test stands in it."""


@dataclass(frozen=True)
class Microphone:
    """A recording position: what distance, room and capsule do to the sound.

    Attributes:
        position: in metres, in the corner's coordinates.
        low: lower band edge in Hz.
        high: upper band edge in Hz.
        presence: a resonance of capsule and mounting in Hz, 6 dB high and an octave wide.
    """

    position: Point
    low: float
    high: float
    presence: float

    @property
    def distance(self) -> float:
        """Metres to the machine."""
        return math.dist(self.position, MACHINE_AT)

    def moved(self, by: Point) -> "Microphone":
        """The same microphone somewhere else.

        Example:
            >>> MICROPHONES["1"].moved((0.1, 0.0, 0.0)).position
            (3.4, 2.2, 1.2)
        """
        x, y, z = (a + b for a, b in zip(self.position, by, strict=True))
        return replace(self, position=(x, y, z))

    def record(self, sound: Array, ambience: Array, sample_rate: int) -> Array:
        """The sound of the machine and its surroundings, as recorded by this microphone.

        The clip is cut from a machine that was running before, hence circular convolution: what
        rings past the end comes in at the start.

        Args:
            sound: of the machine, at one metre, shape ``(samples,)``.
            ambience: of the surroundings, as it is everywhere in the room, shape ``(samples,)``.
            sample_rate: in Hz.

        Example:
            >>> impulse, silence = np.eye(1, 16000)[0], np.zeros(16000)
            >>> near = MICROPHONES["1"].record(impulse, silence, 16000)
            >>> far = MICROPHONES["3"].record(impulse, silence, 16000)
            >>> bool(np.abs(near).max() > 2 * np.abs(far).max())
            True
        """
        room, capsule = _transfer(self, sound.size, sample_rate)
        spectrum = capsule * (room * np.fft.rfft(sound) + np.fft.rfft(ambience))
        return np.fft.irfft(spectrum, sound.size)


@functools.lru_cache(maxsize=16)
def _transfer(
    microphone: Microphone, samples: int, sample_rate: int
) -> tuple[npt.NDArray[np.complexfloating], Array]:
    f = np.fft.rfftfreq(samples, 1 / sample_rate)
    octaves = np.log2(np.maximum(f, 1.0) / microphone.presence)
    capsule = band(f, microphone.low, microphone.high) * (1 + np.exp(-((2 * octaves) ** 2)))
    room = ROOM.response(MACHINE_AT, microphone.position, sample_rate)
    return np.fft.rfft(room, samples), capsule


FAR_MICROPHONE = Microphone(position=(5.9, 3.9, 2.2), low=40, high=7500, presence=5000)
"""The second one of recordings with two: like the first, but four metres from the machine."""

MICROPHONES: Mapping[str, Microphone] = {
    "1": Microphone(position=(3.3, 2.2, 1.2), low=40, high=7500, presence=5000),
    "2": Microphone(position=(2.2, 1.1, 1.4), low=90, high=6500, presence=2500),
    "3": Microphone(position=(4.4, 2.7, 1.6), low=60, high=4500, presence=700),
}
