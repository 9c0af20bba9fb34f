"""Score and decision files, as DCASE Task 2 asks for them since 2022."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fsasd.data.names import machine_name, section_name


def write_scores(
    folder: str | Path, machine: str, section: str, names: Sequence[str], scores: ArrayLike
) -> Path:
    r"""Write ``anomaly_score_<machine>_section_<nn>_test.csv``.

    The file appears complete or not at all, and the numbers read back exactly.

    Args:
        folder: Made if need be.
        machine: Machine name, spelled as in the data set.
        section: Digits, e.g. ``"00"``.
        names: File names of the clips, e.g. ``section_00_0000.wav``, shape (n,).
        scores: Anomaly scores, shape (n,).

    Returns:
        The path of the file.

    Raises:
        ValueError: Lengths differ, a name repeats, the machine cannot be called so, or a score is
            not finite.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_scores(folder, "fan", "00", ["section_00_0000.wav"], [0.1])
    ...     path.name, path.read_text()
    ('anomaly_score_fan_section_00_test.csv', 'section_00_0000.wav,0.1\n')
    """
    values = [float(score) for score in np.asarray(scores)]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{machine} section {section}: expected finite scores, found {values}")
    return _write(Path(folder), "anomaly_score", machine, section, names, map(repr, values), values)


def write_decisions(
    folder: str | Path, machine: str, section: str, names: Sequence[str], decisions: ArrayLike
) -> Path:
    r"""Write ``decision_result_<machine>_section_<nn>_test.csv``.

    Args:
        folder: Made if need be.
        machine: Machine name, spelled as in the data set.
        section: Digits, e.g. ``"00"``.
        names: File names of the clips, shape (n,).
        decisions: 1 (or True) where the clip is called anomalous, else 0, shape (n,).

    Returns:
        The path of the file.

    Raises:
        ValueError: Lengths differ, a name repeats, the machine cannot be called so, or a decision
            is not 0 or 1.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = write_decisions(folder, "fan", "00", ["section_00_0000.wav"], [True])
    ...     path.name, path.read_text()
    ('decision_result_fan_section_00_test.csv', 'section_00_0000.wav,1\n')
    """
    values = np.asarray(decisions).tolist()
    wrong = [value for value in values if value not in (0, 1)]
    if wrong:
        raise ValueError(f"{machine} section {section}: expected decisions 0 or 1, found {wrong}")
    texts = (str(int(value)) for value in values)
    return _write(Path(folder), "decision_result", machine, section, names, texts, values)


def _write(
    folder: Path,
    kind: str,
    machine: str,
    section: str,
    names: Sequence[str],
    texts: Iterable[str],
    values: Sequence[float],
) -> Path:
    path = folder / f"{kind}_{machine_name(machine)}_section_{section_name(section)}_test.csv"
    if len(names) != len(values):
        raise ValueError(
            f"{path}: expected a value for each of {len(names)} clips, found {len(values)}"
        )
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise ValueError(f"{path}: expected each clip once, found several {twice}")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(zip(names, texts, strict=True))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
