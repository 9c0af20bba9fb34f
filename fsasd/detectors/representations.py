"""Representations: a front end and a pooling, which map a clip to one vector.

A representation is a parameter of detectors (``representation``) with a config group of that name.
It is a frozen dataclass: its ``repr`` states all of its settings, it can be saved as JSON, and a
grid may vary its fields (``representation__r``). Features of front ends are cached; pooling is
cheap and computed each time. Representations that are learned from clips: see ``learned``.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.front_ends import FrontEnd
from fsasd.data.log_mel import LogMel
from fsasd.data.recording import BOTH
from fsasd.data.two_microphones import EachChannel
from fsasd.detectors.scoring.time_weighting import twfr
from fsasd.detectors.stacking import stack


@dataclass(frozen=True)
class Representation(abc.ABC):
    """A front end, and a pooling of its features into one vector.

    Args:
        front_end: Waveform -> (bands, frames).
    """

    front_end: FrontEnd = field(default_factory=LogMel.twfr)

    def __call__(self, clips: Clips) -> np.ndarray:
        """Return (n, d) float64, a row for each clip."""
        return stack(clips.pooled(self))

    @abc.abstractmethod
    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return the vector of one clip's features."""

    def n_parameters(self) -> int:
        """Return the number of trained parameters of the front end."""
        return 0


def count_parameters(representation: object) -> int:
    """Return a representation's ``n_parameters``; 0 for a plain function.

    >>> count_parameters(TimeStatistics()), count_parameters(len)
    (0, 0)
    """
    counted = getattr(representation, "n_parameters", None)
    return counted() if counted else 0


@dataclass(frozen=True)
class TimeStatistics(Representation):
    """Statistics of each band over time, concatenated.

    Args:
        front_end: Waveform -> (bands, frames).
        pool_by: ``mean``, ``max``, ``min``, ``std``, or several joined by ``+``.

    Raises:
        ValueError: A statistic is not known.

    >>> TimeStatistics(pool_by="mean+max").pool(np.array([[1.0, 3.0], [0.0, 0.0]]))
    array([2., 0., 3., 0.])
    """

    pool_by: str = "mean+std"

    def __post_init__(self) -> None:
        if unknown := set(self.pool_by.split("+")) - set(_STATISTICS):
            raise ValueError(
                f"pool_by '{self.pool_by}': expected one or several of {', '.join(_STATISTICS)} "
                f"joined by +, found {', '.join(sorted(unknown))}"
            )

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return (statistics x bands,)."""
        return np.concatenate([_STATISTICS[name](features) for name in self.pool_by.split("+")])


_STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda features: features.mean(axis=1),
    "max": lambda features: features.max(axis=1),
    "min": lambda features: features.min(axis=1),
    "std": lambda features: features.std(axis=1),
}


@dataclass(frozen=True)
class TimeWeighted(Representation):
    """Each band's frames in descending order, weighted by r^n (TWFR; see ``twfr_gmm``).

    Args:
        front_end: Waveform -> (bands, frames).
        r: 0 is the maximum, 1 the mean.

    >>> TimeWeighted(r=0.0).pool(np.array([[1.0, 3.0], [0.0, 0.0]]))
    array([3., 0.])
    """

    r: float = 1.0

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return (bands,)."""
        return twfr(features, self.r)[0]


@dataclass(frozen=True)
class Patches(Representation):
    """The spectrogram averaged in a grid of patches, flattened: keeps the order of events.

    Args:
        front_end: Waveform -> (bands, frames).
        bands: Patches over frequency.
        segments: Patches over time, whatever the clip's length.

    >>> Patches(bands=1, segments=2).pool(np.array([[1.0, 3.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0]]))
    array([1. , 2.5])
    """

    bands: int = 32
    segments: int = 8

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return (bands x segments,)."""
        import torch

        spectrogram = torch.from_numpy(features)[None]
        grid = torch.nn.functional.adaptive_avg_pool2d(spectrogram, (self.bands, self.segments))
        return grid.flatten().numpy()


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
