"""What a machine's normal sounds are like: how alike two machines are, how unsteady one is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel

PROFILE = "profile.safetensors"

RANKS = 32
"""Quantiles of a band's level over time that are kept."""


@dataclass(frozen=True, eq=False)
class Profile:
    """The levels of normal clips by band and rank, averaged over the clips.

    A band's levels are sorted over time, which leaves out when something happens: what is left is
    its spectrum when the machine is quiet, and when it is loud.

    Attributes:
        levels: (n_mels, ranks) dB, ascending along the ranks.

    >>> calm, busy = (Profile(np.array([[0.0, 0.0, x]])) for x in (0.0, 9.0))
    >>> calm.distance(calm), calm.unsteadiness, busy.unsteadiness > 8
    (0.0, 0.0, True)
    """

    levels: NDArray[np.float32]

    @classmethod
    def of(cls, clips: Clips) -> Self:
        """Measure normal clips of a section; the order of the clips does not matter.

        Raises:
            ValueError: There are none.
        """
        if not len(clips):
            raise ValueError("expected normal clips to describe, found none")
        pooled = np.stack(clips.pooled(_Ranks()))
        # Sorted before they are summed: so the sum's last bit does not depend on their order.
        return cls(np.sort(pooled, axis=0).mean(axis=0, dtype=np.float64).astype(np.float32))

    @property
    def unsteadiness(self) -> float:
        """How far a band rises above its median, mean over bands in dB: 95 % quantile - median."""
        ranks = self.levels.shape[1]
        high, middle = self.levels[:, round(0.95 * (ranks - 1))], self.levels[:, (ranks - 1) // 2]
        return float(np.mean(high - middle))

    def distance(self, other: Profile) -> float:
        """Root mean square difference in dB, after the mean level is taken away from each."""
        difference = (self.levels - self.levels.mean()) - (other.levels - other.levels.mean())
        return float(np.sqrt(np.mean(difference**2)))

    def save(self, folder: Path) -> None:
        """Write ``profile.safetensors``."""
        save_file({"levels": np.ascontiguousarray(self.levels)}, folder / PROFILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote."""
        return cls(load_file(folder / PROFILE)["levels"])


@dataclass(frozen=True)
class _Ranks:
    """Quantiles of each band's level over time."""

    front_end: ClassVar[LogMel] = LogMel.twfr()

    def pool(self, features: np.ndarray) -> np.ndarray:
        frames = features.shape[1]
        places = np.linspace(0, frames - 1, RANKS).round().astype(int)
        return np.sort(features, axis=1)[:, places]
