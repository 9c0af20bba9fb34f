"""What is known of each recording: DCASE Task 2 folders, file names, tables -> ``list[Clip]``.

A label is never guessed and never lost. The file name leads; the attribute table fills in what the
name lacks; ground-truth tables name the anonymous clips of the evaluation set. What none of them
says stays ``None``, and the label string as it was written stays in ``Clip.raw_label``.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac")
ROLES = {"dev_data": "reference", "eval_data": "target"}

# The ground truth of RoboticArm, 2024, leaves the split out: section_00_source_normal_0035_...
_NAME_2022 = re.compile(
    r"section_(?P<section>\d+)_(?P<domain>source|target)(?:_(?P<split>train|test))?"
    r"_(?P<label>normal|anomaly)_(?P<index>\d+)(?:_(?P<raw_label>.*))?",
    re.DOTALL,
)
_NAME_2020 = re.compile(r"(?:(?P<label>normal|anomaly)_)?id_(?P<section>\d+)_(?P<index>\d+)")
_NAME_ANONYMOUS = re.compile(r"section_(?P<section>\d+)_(?P<index>\d+)")
# DCASE 2023 writes `speed` in the tables of ToyDrone and ToyTank where their file names say `spd`.
_SAME_KEY = {"speed": "spd", "spd": "speed"}


class MetadataError(ValueError):
    """A data set is not laid out, named or tabulated as expected."""


@dataclass(frozen=True)
class Clip:
    """One recording and what is known of it; unknown is ``None``.

    Attributes:
        path: The audio file.
        machine: Machine type, as the data set spells it.
        role: ``reference`` (anomalies may be known) or ``target`` (only normal clips to train on).
        split: ``train`` or ``test``.
        section: Section or machine id, e.g. ``00``.
        domain: ``source`` or ``target``.
        label: ``normal`` or ``anomaly``.
        attributes: Operating and environmental attributes, key to value, in the order written.
        raw_label: The attribute part of the name as written, also where it cannot be split.

    >>> clip = read_name("fan/train/section_00_source_train_normal_0000_m-n_W.wav")
    >>> clip.machine, clip.domain, clip.label, dict(clip.attributes)
    ('fan', 'source', 'normal', {'m-n': 'W'})
    """

    path: Path
    machine: str
    role: str | None = None
    split: str | None = None
    section: str | None = None
    domain: str | None = None
    label: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    raw_label: str = ""


def read_clips(
    root: str | Path,
    machines: Sequence[str] | None = None,
    ground_truth: str | Path | None = None,
) -> list[Clip]:
    """Read a data set in the DCASE Task 2 layout of 2020 or of 2022 and later.

    Args:
        root: Folder with ``dev_data/<machine>/{train,test}`` (reference machines) and, or,
            ``eval_data/<machine>/{train,test}`` (target machines).
        machines: Machines to read; all that are there by default.
        ground_truth: Folder with ``ground_truth_data``, ``ground_truth_domain`` and
            ``ground_truth_attributes``; ``<root>/ground_truth`` is used when it exists.

    Returns:
        Clips sorted by role, machine, split and file name.

    Raises:
        FileNotFoundError: ``root`` or ``ground_truth`` does not exist.
        MetadataError: No machine, no clip, an unknown machine, a name or a table out of form.
    """
    root = Path(root)
    folders = _machine_folders(root)
    if machines is not None:
        require_known(machines, {machine for _, machine in folders}, f"machines under {root}")
        folders = {key: path for key, path in folders.items() if key[1] in machines}
    truth_root = Path(ground_truth) if ground_truth else root / "ground_truth"
    if ground_truth and not truth_root.is_dir():
        raise FileNotFoundError(f"ground truth folder {truth_root} does not exist")
    clips: list[Clip] = []
    for (role, machine), folder in folders.items():
        found = _machine_clips(folder, role)
        if not found:
            raise MetadataError(
                f"{machine}: no {' or '.join(AUDIO_SUFFIXES)} file in {folder}/train or /test"
            )
        found = _fill_from_tables(found, folder)
        clips += _join_ground_truth(found, truth_root, machine) if truth_root.is_dir() else found
    return clips


def read_name(path: str | Path, *, role: str | None = None) -> Clip:
    """Read what a file's name and folder say: ``.../<machine>/<split>/<name>.wav``.

    Raises:
        MetadataError: The name has none of the forms that DCASE Task 2 has used.

    >>> read_name("fan/test/section_00_0042.wav").label is None
    True
    >>> read_name("pump/test/anomaly_id_02_00000007.wav").section
    '02'
    """
    path = Path(path)
    stem = _stem(path)
    for form in (_NAME_2022, _NAME_2020, _NAME_ANONYMOUS):
        if match := form.fullmatch(stem):
            break
    else:
        raise MetadataError(
            f"{path}: expected a name like section_00_source_train_normal_0000_<attributes>, "
            "section_00_0000, normal_id_00_00000000 or id_00_00000000"
        )
    known = match.groupdict()
    raw_label = known.get("raw_label") or ""
    split = path.parent.name if path.parent.name in ("train", "test") else None
    return Clip(
        path=path,
        machine=path.parent.parent.name if split else path.parent.name,
        role=role,
        split=known.get("split") or split,
        section=known["section"],
        domain=known.get("domain"),
        # DCASE 2020 has no domain shift, and its training folders hold normal clips only.
        label=known.get("label"),
        attributes=split_label(raw_label),
        raw_label=raw_label,
    )


def split_label(raw_label: str) -> dict[str, str]:
    """Split ``car_B2_spd_31V_mic_1`` into pairs; free text, in any other form, gives none.

    >>> split_label("car_B2_spd_31V_mic_1")
    {'car': 'B2', 'spd': '31V', 'mic': '1'}
    >>> split_label("strength_1_ambient"), split_label("noAttribute")
    ({}, {})
    """
    # Later editions have names that end in an underscore.
    parts = raw_label.rstrip("_").split("_")
    if len(parts) % 2 or not all(parts):
        return {}
    return dict(zip(parts[::2], parts[1::2], strict=True))


def require_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise for a name that is not known, with the near miss.

    Raises:
        MetadataError: Lists what is known and suggests what may have been meant.

    >>> require_known(["fann"], ["fan"], "machines")
    Traceback (most recent call last):
    ...
    fsasd.data.metadata.MetadataError: 'fann' is not among the machines: fan. Did you mean 'fan'?
    """
    known = sorted(known)
    for name in names:
        if name not in known:
            lower = {k.lower(): k for k in known}
            near = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f". Did you mean '{lower[near[0]]}'?" if near else ""
            raise MetadataError(f"'{name}' is not among the {what}: {', '.join(known)}{hint}")


def _machine_folders(root: Path) -> dict[tuple[str, str], Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist")
    folders = {}
    for part, role in ROLES.items():
        # The DCASE baselines keep the archives' contents one level further down, in raw/.
        top = root / part / "raw" if (root / part / "raw").is_dir() else root / part
        if top.is_dir():
            for folder in sorted(p for p in top.iterdir() if p.is_dir()):
                folders[role, folder.name] = folder
    if not folders:
        found = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise MetadataError(
            f"{root}: expected dev_data/<machine> or eval_data/<machine> folders, found {found}"
        )
    return folders


def _machine_clips(folder: Path, role: str) -> list[Clip]:
    clips = []
    for split in ("train", "test"):
        files = sorted(p for p in folder.glob(f"{split}/*") if p.suffix.lower() in AUDIO_SUFFIXES)
        clips += [read_name(path, role=role) for path in files]
    return clips


def _fill_from_tables(clips: list[Clip], folder: Path) -> list[Clip]:
    rows: dict[str, dict[str, str]] = {}
    for table in sorted(folder.glob("attributes_*.csv")):
        rows |= _attribute_table(table)
    return [_fill(clip, rows.get(_stem(clip.path), {})) for clip in clips]


def _stem(name: str | Path) -> str:
    # Some tables leave out the suffix, and a label may end in a number with a point: ac_0.03.
    path = Path(name)
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name


def _attribute_table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header[:1] != ["file_name"]:
        raise MetadataError(f"{path}: expected a header file_name,d1p,d1v,..., found {header}")
    return {
        _stem(name): {
            key: value for key, value in zip(pairs[::2], pairs[1::2], strict=False) if key and value
        }
        for name, *pairs in filter(None, rows)
    }


def _fill(clip: Clip, row: Mapping[str, str]) -> Clip:
    known = clip.attributes
    new = {k: v for k, v in row.items() if k not in known and _SAME_KEY.get(k) not in known}
    return replace(clip, attributes={**known, **new}) if new else clip


def _join_ground_truth(clips: list[Clip], truth_root: Path, machine: str) -> list[Clip]:
    truth = {
        kind: _truth_table(truth_root / f"ground_truth_{kind}", machine, values)
        for kind, values in (("data", ("0", "1")), ("domain", ("0", "1")), ("attributes", ()))
    }
    return [_name(clip, truth) if clip.split == "test" else clip for clip in clips]


def _truth_table(folder: Path, machine: str, values: Sequence[str]) -> dict[str, str]:
    rows: dict[str, str] = {}
    for path in sorted(folder.glob(f"ground_truth_{machine}_section_*_test.csv")):
        with path.open(newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if len(row) < 2:
                    raise MetadataError(f"{path}, row {number}: expected 2 columns, found {row}")
                if values and row[-1] not in values:
                    raise MetadataError(
                        f"{path}, row {number}: expected {' or '.join(values)}, found {row[-1]!r}"
                    )
                # 2024 gives machines whose attributes were withheld a third column that has them.
                rows[_stem(row[0])] = row[-1]
    return rows


def _name(clip: Clip, truth: Mapping[str, Mapping[str, str]]) -> Clip:
    stem = _stem(clip.path)
    label = {"0": "normal", "1": "anomaly"}.get(truth["data"].get(stem, ""))
    domain = {"0": "source", "1": "target"}.get(truth["domain"].get(stem, ""))
    if match := _NAME_2022.fullmatch(_stem(truth["attributes"].get(stem, ""))):
        raw_label = match["raw_label"] or ""
        clip = replace(clip, attributes=split_label(raw_label), raw_label=raw_label)
    return replace(clip, label=clip.label or label, domain=clip.domain or domain)
