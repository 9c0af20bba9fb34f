"""File names of DCASE Task 2: the metadata in them, in every form from 2020 on."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from fsasd.data.audio_files import AUDIO_SUFFIXES, printable
from fsasd.data.names import section_name

# The ground truth of RoboticArm, 2024, leaves the split out: section_00_source_normal_0035_...
_NAME_2022 = re.compile(
    r"section_(?P<section>[0-9]{1,9})_(?P<domain>source|target)(?:_(?P<split>train|test))?"
    r"_(?P<label>normal|anomaly)_(?P<index>[0-9]+)(?:_(?P<raw_label>.*))?",
    re.DOTALL,
)
_NAME_2020 = re.compile(
    r"(?:(?P<label>normal|anomaly)_)?id_(?P<section>[0-9]{1,9})_(?P<index>[0-9]+)"
)
_NAME_ANONYMOUS = re.compile(
    r"section_(?P<section>[0-9]{1,9})(?:_(?P<domain>source|target)_(?P<split>test))?"
    r"_(?P<index>[0-9]+)"
)


def parse_name(stem: str) -> dict[str, str | None] | None:
    """Return section, domain, split, label, index and raw_label of a name, those that it has.

    Args:
        stem: The name without folder and suffix.

    Returns:
        ``None`` where the name has none of the forms.

    >>> known = parse_name("section_0_target_train_normal_0007_spd_31V")
    >>> known["section"], known["domain"], known["raw_label"]
    ('00', 'target', 'spd_31V')
    >>> parse_name("monday") is None
    True
    """
    for form in (_NAME_2022, _NAME_2020, _NAME_ANONYMOUS):
        if match := form.fullmatch(stem):
            return match.groupdict() | {"section": section_name(match["section"])}
    return None


def stem_of(path: str | Path) -> str:
    """Return a file's name without its suffix.

    Some tables leave out the suffix, and a label may end in a number with a point.

    >>> stem_of("fan/train/a_ac_0.03.wav"), stem_of("a_ac_0.03")
    ('a_ac_0.03', 'a_ac_0.03')
    """
    # Names in their hundred thousands: paths would take most of the time that reading them does.
    name = os.path.basename(path)  # noqa: PTH119
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return printable(stem if suffix.lower() in AUDIO_SUFFIXES else name)


def clip_named(cell: str) -> str:
    r"""Return the clip that a table's cell names, whether or not it writes folders and suffix.

    A name of DCASE's identifies the clip wherever it lies; any other keeps its folders. Windows
    separates them by ``\``.

    >>> clip_named(r"fan\test\section_00_0000.wav"), clip_named(r" monday\a.wav")
    ('section_00_0000', 'monday/a')
    """
    written = cell.strip().replace("\\", "/")
    stem = stem_of(written)
    folder = written[: written.rfind("/") + 1]
    return stem if parse_name(stem) or not stem else str(PurePosixPath(folder + stem))
