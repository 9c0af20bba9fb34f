"""A representation of both channels, near and far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.recording import BOTH
from fsasd.data.two_microphones import EachChannel
from fsasd.detectors.representations import Representation, TimeStatistics
from fsasd.detectors.stacking import stack


@dataclass(frozen=True)
class NearFar:
    """The representations of the near and of the far channel, concatenated.

    A detector then knows how much of a sound the far microphone usually has: what is louder there
    is of the surroundings.

    Args:
        representation: Of one channel.

    >>> NearFar(TimeStatistics(pool_by="mean")).pool(np.array([[[1.0, 3.0]], [[0.0, 1.0]]]))
    array([2. , 0.5])
    """

    channel: ClassVar[str] = BOTH

    representation: Representation = field(default_factory=TimeStatistics)

    def __call__(self, clips: Clips) -> np.ndarray:
        """Return (n, 2 d) float64, a row for each clip."""
        return stack(clips.pooled(self))

    @property
    def front_end(self) -> EachChannel:
        """That of the representation, of each channel."""
        return EachChannel(self.representation.front_end)

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return (2 d,) of the features of both channels."""
        return np.concatenate([self.representation.pool(one) for one in features])

    def n_parameters(self) -> int:
        """Return the number of trained parameters of the front end."""
        return self.representation.n_parameters()
