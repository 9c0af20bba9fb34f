"""Likeness: whether recordings that are scored resemble those that a detector was fitted on.

Scores of recordings that were recorded or stored in another way show that, and not the state of the
machine: a clip without the upper half of its spectrum is an anomaly to every detector. Recordings
are compared with the ranges of the training clips, and the limits lie beyond the differences that
faults of real machines cause (docs/how-to/data.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsasd.data.check.measures import BANDS
from fsasd.settings.files import fields_of, parse_json

if TYPE_CHECKING:
    import pandas as pd

PROFILE = "recordings.json"
"""File beside a saved detector: its training recordings' ``Profile``."""

LEVEL_DB = 20.0
"""dB below or above the level of all training clips beyond which a recording is unlike them."""

MEDIAN_DB = 15.0
"""dB between median levels beyond which recordings as a whole are unlike the training clips."""

_ENOUGH = 4
"""Recordings from which on their median level is compared."""

BAND_DB = 15.0
"""dB below or above all training clips beyond which a band is missing, or added."""

_CLIFF_DB = 25.0
"""dB by which a spectrum falls over two bands where a filter or coder cut it off."""

_CUTOFFS = range(2, 13)
"""Bands from which on a spectrum may be cut off; above 6 kHz it counts as whole."""

_RARE = 0.1


class Difference(NamedTuple):
    """A property that some recordings share and the training clips do not have.

    Attributes:
        kind: One word: bandwidth, level, length, silent or clipped.
        message: The property, in words.
        which: (n,) True for these recordings.
    """

    kind: str
    message: str
    which: NDArray[np.bool_]


@dataclass(frozen=True)
class Profile:
    """The range of the recordings that a detector is fitted on, without those that are silent.

    Attributes:
        seconds: Shortest and longest.
        level: Lowest and highest, in dB of full scale.
        median_level: In dB of full scale.
        lowest: Lowest level of each band (see ``measures.BANDS``).
        highest: Highest level of each band.
        silent: Share of silent recordings.
        clipped: Share of clipped recordings.
    """

    seconds: tuple[float, float]
    level: tuple[float, float]
    median_level: float
    lowest: list[float]
    highest: list[float]
    silent: float
    clipped: float

    @classmethod
    def of(cls, recordings: pd.DataFrame) -> Profile | None:
        """Summarise recordings that were decoded (see ``inspect``); ``None`` if none has a sound.

        >>> import pandas as pd
        >>> silence = pd.DataFrame({"seconds": [1.0], "silent": True, "level": -160.0})
        >>> Profile.of(silence) is None
        True
        """
        silent = recordings["silent"].eq(True)
        audible = recordings[recordings["level"].notna() & ~silent]
        if audible.empty:
            return None
        bands = audible[list(BANDS)].astype(float)
        return cls(
            _range(audible["seconds"]),
            _range(audible["level"]),
            round(float(audible["level"].median()), 3),
            bands.min().round(1).tolist(),
            bands.max().round(1).tolist(),
            float(silent.mean()),
            float(recordings["clipped"].eq(True).mean()),
        )

    def save(self, folder: Path) -> None:
        """Write ``recordings.json``."""
        (folder / PROFILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Profile | None:
        """Read what ``save`` wrote; ``None`` where it wrote nothing.

        Raises:
            ValueError: The file is another; names it.
        """
        path = folder / PROFILE
        if not path.is_file():
            return None
        try:
            profile = fields_of(cls, parse_json(path.read_bytes()))
            if not len(profile.lowest) == len(profile.highest) == len(BANDS):
                raise ValueError(f"lowest, highest: expected a level of each of {len(BANDS)} bands")
        except ValueError as error:
            raise ValueError(f"{path}: expected a profile of recordings: {error}") from error
        return profile

    def differences(
        self, recordings: pd.DataFrame | Mapping[str, Sequence]
    ) -> Iterator[Difference]:
        """Yield how recordings differ from the training clips.

        Args:
            recordings: Columns: ``seconds`` and what ``measures.measure`` returns, a row each.
        """
        silent = _true(recordings["silent"])
        level = np.asarray(recordings["level"], dtype=float)
        audible = ~np.isnan(level) & ~silent
        seconds = np.asarray(recordings["seconds"], dtype=float)
        bands = np.stack([np.asarray(recordings[band], dtype=float) for band in BANDS], axis=1)
        unlike = "unlike the training clips"
        unlike_rows = [
            *self._bandwidth(bands, audible),
            *self._level(level, audible),
            ("length", "less than half as long as all training clips",
             seconds < self.seconds[0] / 2),
            ("length", "more than twice as long as all training clips",
             seconds > self.seconds[1] * 2),
        ]  # fmt: skip
        if self.silent < _RARE:
            unlike_rows.append(("silent", f"silent, {unlike}", silent))
        if self.clipped < _RARE:
            clipped = _true(recordings["clipped"])
            unlike_rows.append(("clipped", f"clipped, {unlike}", clipped))
        yield from (Difference(*difference) for difference in unlike_rows if difference[2].any())

    def _level(
        self, level: NDArray, audible: NDArray[np.bool_]
    ) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
        if audible.sum() >= _ENOUGH:
            shift = float(np.median(level[audible])) - self.median_level
            if abs(shift) > MEDIAN_DB:
                how = f"{abs(shift):.0f} dB {'quieter' if shift < 0 else 'louder'}"
                yield "level", f"in the median {how} than the training clips", audible
                return
        lowest, highest = self.level
        for how, which in (
            ("quieter", level < lowest - LEVEL_DB),
            ("louder", level > highest + LEVEL_DB),
        ):
            message = f"more than {LEVEL_DB:g} dB {how} than all training clips"
            yield "level", message, audible & which

    def _bandwidth(
        self, bands: NDArray, audible: NDArray
    ) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
        lowest, highest = np.array(self.lowest), np.array(self.highest)
        missing = _cutoffs(lowest - bands) * audible
        if missing.any():
            kilohertz = missing.max() / 2
            yield (
                "bandwidth", f"nothing above {kilohertz:g} kHz, unlike the training clips",
                missing > 0,
            )  # fmt: skip
        ends = [c for c in _CUTOFFS if highest[c - 1] - highest[c + 1] > _CLIFF_DB]
        added = _cutoffs(bands - highest) * audible if ends else missing[:0]
        if added.any():
            message = f"sound above {min(ends) / 2:g} kHz, where the training clips have none"
            yield "bandwidth", message, added > 0


def save_profiles(models: Path, recordings: pd.DataFrame) -> None:
    """Write the profile of its training recordings beside each detector.

    Args:
        models: Holds ``<machine>/section_<nn>/``.
        recordings: What ``inspect`` returns.
    """
    fitted = recordings[(recordings["split"] == "train") & (recordings["label"] == "normal")]
    for (machine, section), clips in fitted.fillna({"section": "00"}).groupby(
        ["machine", "section"]
    ):
        folder = models / str(machine) / f"section_{section}"
        if folder.is_dir() and (profile := Profile.of(clips)):
            profile.save(folder)


def _cutoffs(differences: NDArray) -> NDArray[np.int_]:
    """Return the band from which on the spectrum is missing or added.

    Args:
        differences: (n, bands) of the level, in dB.

    Returns:
        (n,) the first band from which on all but one differ by more than those below do; 0: none.
    """
    first = np.zeros(len(differences), dtype=int)
    for cutoff in reversed(_CUTOFFS):
        usual = np.median(differences[:, :cutoff], axis=1).clip(min=0)
        # One may hold the image of a low tone, which a cheap resampler leaves.
        least = np.partition(differences[:, cutoff:], 1, axis=1)[:, 1]
        first[least - usual > BAND_DB] = cutoff
    return first


def _true(values: pd.Series | Sequence) -> NDArray[np.bool_]:
    # Of recordings that were not decoded it is not known.
    return np.array([value is not None and value == True for value in values], dtype=bool)  # noqa: E712


def _range(values: pd.Series) -> tuple[float, float]:
    return round(float(values.min()), 3), round(float(values.max()), 3)
