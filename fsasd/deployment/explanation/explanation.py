"""``Explanation``: contributions of bands and moments to an anomaly score."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["exact", "perturbation"]


@dataclass(frozen=True)
class Neighbour:
    """The normal training clip that is most like a recording.

    Attributes:
        file: Its name.
        distance: To the recording.
    """

    file: str
    distance: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """What an anomaly score consists of.

    Contributions are in units of the score. Exact ones sum to the part of the score that depends on
    the recording; those of a perturbation say by how much the score falls if this band, or this
    moment, sounds as the training clips do.

    Attributes:
        method: ``exact``, or ``perturbation``.
        hertz: (bands, 2) from where to where each band reaches.
        bands: (bands,) contributions.
        seconds: (moments, 2) from when to when each moment lasts.
        moments: (moments,) contributions.
        nearest: The most similar training clip; ``None`` where the detector compares with none.
    """

    method: Method
    hertz: NDArray[np.float64]
    bands: NDArray[np.float64]
    seconds: NDArray[np.float64]
    moments: NDArray[np.float64]
    nearest: Neighbour | None = None

    def strongest_band(self) -> tuple[float, float]:
        """Return from where to where, in Hz, the band of the largest contribution reaches."""
        low, high = self.hertz[int(np.argmax(self.bands))]
        return float(low), float(high)

    def strongest_moment(self) -> tuple[float, float]:
        """Return from when to when, in seconds, the moment of the largest contribution lasts."""
        start, end = self.seconds[int(np.argmax(self.moments))]
        return float(start), float(end)

    @property
    def is_steady(self) -> bool:
        """Whether no moment adds more than thrice its share, if all added alike.

        >>> second = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [4.0, 5.0]])
        >>> of = lambda moments: Explanation("exact", second, np.ones(5), second, np.array(moments))
        >>> of([1.0, 1.0, 1.0, 1.0, 1.0]).is_steady, of([0.0, 4.8, 0.0, 0.2, 0.0]).is_steady
        (True, False)
        """
        return bool(self.moments.max() <= 3 * self.bands.sum() / len(self.moments))

    def described(self) -> dict[str, Any]:
        """Return plain JSON: bands and moments from the largest contribution to the smallest."""
        near = self.nearest
        return {
            "method": self.method,
            "bands": _ranked(self.hertz, self.bands, ("from_hz", "to_hz")),
            "moments": _ranked(self.seconds, self.moments, ("from_s", "to_s")),
            "nearest": None if near is None else {"file": near.file, "distance": near.distance},
        }

    def write(self, path: Path, result: dict[str, Any]) -> None:
        """Write a JSON file.

        Args:
            path: Of the file.
            result: What the recording was scored as (``Result``).
        """
        text = json.dumps({**result, **self.described()}, indent=1) + "\n"
        path.write_text(text, encoding="utf-8")


def _ranked(
    ranges: NDArray[np.float64], contributions: NDArray[np.float64], names: tuple[str, str]
) -> list[dict[str, float]]:
    order = np.argsort(-contributions, kind="stable")
    return [
        {
            names[0]: round(float(ranges[i, 0]), 3),
            names[1]: round(float(ranges[i, 1]), 3),
            "contribution": float(contributions[i]),
        }
        for i in order
    ]
