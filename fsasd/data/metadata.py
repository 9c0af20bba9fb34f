"""What is known of each recording: DCASE Task 2 folders, file names, tables -> ``list[Clip]``.

A label is never guessed and never lost. The file name leads; the attribute table fills in what the
name lacks; ground-truth tables name the anonymous clips of the evaluation set. What none of them
says stays ``None``, and the label string as it was written stays in ``Clip.raw_label``. What is
particular to an edition (its machines, their roles, labels in a form of their own) is data, in
``conf/data/dcase*.yaml``.
"""

from __future__ import annotations

import csv
import difflib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac")
ROLES = {"dev_data": "reference", "eval_data": "target"}

# The ground truth of RoboticArm, 2024, leaves the split out: section_00_source_normal_0035_...
_NAME_2022 = re.compile(
    r"section_(?P<section>\d+)_(?P<domain>source|target)(?:_(?P<split>train|test))?"
    r"_(?P<label>normal|anomaly)_(?P<index>\d+)(?:_(?P<raw_label>.*))?",
    re.DOTALL,
)
_NAME_2020 = re.compile(r"(?:(?P<label>normal|anomaly)_)?id_(?P<section>\d+)_(?P<index>\d+)")
_NAME_ANONYMOUS = re.compile(
    r"section_(?P<section>\d+)(?:_(?P<domain>source|target)_(?P<split>test))?_(?P<index>\d+)"
)
# DCASE 2021 keeps the test clips of its domains apart.
_SPLITS = {
    "train": ("train", None),
    "test": ("test", None),
    "source_test": ("test", "source"),
    "target_test": ("test", "target"),
}
# Of a pair: begins with a letter, and does not end in a digit, as do keys glued to their value
# (2024: spd1000_BckgC) and values that come first (2021: 0_g_25_mm_2000_mV_none).
_KEY = re.compile(r"[^\W\d_](?:.*\D)?", re.DOTALL)
NO_ATTRIBUTE = "noAttribute"
# DCASE 2023 writes `speed` in the tables of ToyDrone and ToyTank where their file names say `spd`.
_SAME_KEY = {"speed": "spd", "spd": "speed"}


class MetadataError(ValueError):
    """A data set is not laid out, named or tabulated as expected."""


@dataclass(frozen=True, slots=True)
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
        source: Of a synthetic clip that was made of a real one's audio, that recording: a detector
            that was fitted on it knows the synthetic clip, too.
        synthetic: Made by a generator: mono, whichever channel is taken of real recordings.

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
    source: Path | None = None
    synthetic: bool = False


def read_clips(
    root: str | Path,
    machines: Sequence[str] | None = None,
    ground_truth: str | Path | None = None,
    *,
    references: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    label_forms: Mapping[str, str] | None = None,
) -> list[Clip]:
    """Read a data set in the DCASE Task 2 layout of any edition.

    Args:
        root: Folder with ``dev_data/<machine>/{train,test}`` and, or,
            ``eval_data/<machine>/{train,test}``.
        machines: Machines to read; all that there are by default.
        ground_truth: What DCASE's evaluators publish: a folder with ``ground_truth_data``,
            ``ground_truth_domain`` and ``ground_truth_attributes``, or with
            ``eval_data_list*.csv``, or such a list itself; ``<root>/ground_truth`` is used when it
            exists.
        references: Reference machines. With neither these nor ``targets``, ``dev_data`` holds
            references and ``eval_data`` targets.
        targets: Target machines; one that is also among ``references`` is a target.
        label_forms: Machine to the regular expression of its labels, whose named groups are its
            attributes, where labels are not ``key_value`` pairs. A label in another form, as any
            label where the expression names no groups, is free text.

    Returns:
        Clips sorted by role, machine, part (``dev_data`` first), split and file name.

    Raises:
        FileNotFoundError: ``root`` or ``ground_truth`` does not exist.
        MetadataError: No machine, no clip, an unknown or a missing machine, a name or a table out
            of form, ground truth that says nothing of any clip.
    """
    root = Path(root)
    folders = _machine_folders(root)
    _require_list(references, "references")
    _require_list(targets, "targets")
    if references is not None or targets is not None:
        roles = dict.fromkeys(references or (), "reference") | dict.fromkeys(
            targets or (), "target"
        )
        folders = _with_roles(folders, roles, machines, root)
    elif machines is not None:
        require_known(machines, {folder.machine for folder in folders}, f"machines under {root}")
        folders = [folder for folder in folders if folder.machine in machines]
    truth_root = Path(ground_truth) if ground_truth else root / "ground_truth"
    if ground_truth and not truth_root.exists():
        raise FileNotFoundError(f"ground truth {truth_root} does not exist")
    clips: list[Clip] = []
    for folder in sorted(folders):
        form = (label_forms or {}).get(folder.machine)
        found = _machine_clips(folder, form)
        if not found:
            raise MetadataError(
                f"{folder.machine}: no {' or '.join(AUDIO_SUFFIXES)} file in {folder.path}/train "
                "or /test"
            )
        found = _fill_from_tables(found, folder.path)
        clips += _join_ground_truth(found, truth_root, form) if truth_root.exists() else found
    if ground_truth:
        _require_named(clips, truth_root)
    return clips


def read_name(path: str | Path, *, role: str | None = None, form: str | None = None) -> Clip:
    """Read what a file's name and folder say: ``.../<machine>/<split>/<name>.wav``.

    Args:
        path: The file; it need not exist.
        role: The machine's.
        form: Of the machine's labels (see ``split_label``).

    Raises:
        MetadataError: The name has none of the forms that DCASE Task 2 has used.

    >>> read_name("fan/test/section_00_0042.wav").label is None
    True
    >>> read_name("pump/test/anomaly_id_02_00000007.wav").section
    '02'
    >>> read_name("pump/target_test/section_03_target_test_0001.wav").domain
    'target'
    """
    path = Path(path)
    known = _said_by(_stem(path))
    if known is None:
        raise MetadataError(
            f"{path}: expected a name like section_00_source_train_normal_0000_<attributes>, "
            "section_00_0000, normal_id_00_00000000 or id_00_00000000"
        )
    raw_label = known.get("raw_label") or ""
    split, domain = _SPLITS.get(path.parent.name, (None, None))
    return Clip(
        path=path,
        machine=path.parent.parent.name if split else path.parent.name,
        role=role,
        split=known.get("split") or split,
        section=known["section"],
        domain=known.get("domain") or domain,
        label=known.get("label"),
        attributes=split_label(raw_label, form),
        raw_label=raw_label,
    )


def split_label(raw_label: str, form: str | None = None) -> dict[str, str]:
    """Split ``car_B2_spd_31V_mic_1`` into pairs; free text, in any other form, gives none.

    A key that comes up again, as in DCASE 2026, keeps all of its values.

    Args:
        raw_label: The attribute part of a name.
        form: Regular expression of labels that are not pairs; its named groups are the pairs.

    >>> split_label("car_B2_spd_31V_mic_1")
    {'car': 'B2', 'spd': '31V', 'mic': '1'}
    >>> split_label("spd_2_mic_2_mic_1")
    {'spd': '2', 'mic': '2 and 1'}
    >>> split_label("strength_1_ambient"), split_label("noAttribute")
    ({}, {})
    >>> split_label("spd1000_BckgC"), split_label("spd1000_BckgC", r"spd(?P<spd>.+)_Bckg(?P<n>.+)")
    ({}, {'spd': '1000', 'n': 'C'})
    """
    if form is not None:
        match = re.fullmatch(form, raw_label)
        return {key: value for key, value in match.groupdict().items() if value} if match else {}
    # Later editions have names that end in an underscore.
    parts = raw_label.rstrip("_").split("_")
    if len(parts) % 2 or not all(parts) or not all(map(_KEY.fullmatch, parts[::2])):
        return {}
    return _attributes(parts)


def is_recording(path: Path) -> bool:
    """Say whether a file is a recording, by its name.

    What macOS leaves beside files on foreign disks, ``._a.wav``, is none.

    >>> is_recording(Path("a.WAV")), is_recording(Path("._a.wav")), is_recording(Path("a.txt"))
    (True, False, False)
    """
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def require_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise for a name that is not known, with the near miss, and for a name that is no list.

    Raises:
        MetadataError: Lists what is known and suggests what may have been meant.

    >>> require_known(["fann"], ["fan"], "machines")
    Traceback (most recent call last):
    ...
    fsasd.data.metadata.MetadataError: 'fann' is not among the machines: fan. Did you mean 'fan'?
    """
    _require_list(names, what)
    known = sorted(known)
    for name in names:
        if name not in known:
            lower = {k.lower(): k for k in known}
            near = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f". Did you mean '{lower[near[0]]}'?" if near else ""
            there = ", ".join(known) or "none"
            raise MetadataError(f"'{name}' is not among the {what}: {there}{hint}")


def _require_list(names: Iterable[str] | None, what: str) -> None:
    # A word is a list of letters.
    if isinstance(names, str):
        raise MetadataError(f"expected a list of {what}, found '{names}': write [{names}]")


class _MachineFolder(NamedTuple):
    role: str
    machine: str
    path: Path


def _machine_folders(root: Path) -> list[_MachineFolder]:
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist (fsasd-download fetches DCASE's)")
    folders = []
    for part, role in ROLES.items():
        # The DCASE baselines keep the archives' contents one level further down, in raw/.
        top = root / part / "raw" if (root / part / "raw").is_dir() else root / part
        if top.is_dir():
            folders += [_MachineFolder(role, p.name, p) for p in top.iterdir() if p.is_dir()]
    if not folders:
        found = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise MetadataError(
            f"{root}: expected dev_data/<machine> or eval_data/<machine> folders, found {found}"
        )
    return folders


def _with_roles(
    folders: Sequence[_MachineFolder],
    roles: Mapping[str, str],
    machines: Sequence[str] | None,
    root: Path,
) -> list[_MachineFolder]:
    """Take the machines that have a role, which must all be there, and no others."""
    if machines is not None:
        require_known(machines, roles, "references and targets")
        roles = {machine: roles[machine] for machine in machines}
    found = {folder.machine for folder in folders}
    if missing := sorted(set(roles) - found):
        there = sorted(set(roles) & found)
        raise MetadataError(
            f"{root}: expected the machines {', '.join(sorted(roles))}, found "
            f"{', '.join(sorted(found))}. Missing: {', '.join(missing)}. To do with what is "
            f"there, say data.machines=[{','.join(there)}]"
        )
    if others := sorted(found - set(roles)):
        log.info("%s: not asked for, and left out: %s", root, ", ".join(others))
    return [folder._replace(role=roles[folder.machine]) for folder in folders
            if folder.machine in roles]  # fmt: skip


def _machine_clips(folder: _MachineFolder, form: str | None) -> list[Clip]:
    found = {
        name: sorted(p for p in folder.path.glob(f"{name}/*") if is_recording(p))
        for name in _SPLITS
    }
    if found["test"]:
        # The DCASE baseline merges DCASE 2021's two test folders into one, and may keep them.
        found["source_test"] = found["target_test"] = []
    return [
        read_name(path, role=folder.role, form=form) for paths in found.values() for path in paths
    ]


def _said_by(stem: str) -> dict[str, str | None] | None:
    for form in (_NAME_2022, _NAME_2020, _NAME_ANONYMOUS):
        if match := form.fullmatch(stem):
            return match.groupdict()
    return None


def _stem(name: str | Path) -> str:
    # Some tables leave out the suffix, and a label may end in a number with a point: ac_0.03.
    path = Path(name)
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name


def _attributes(pairs: Sequence[str]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        if key and value and key != NO_ATTRIBUTE:
            attributes[key] = f"{attributes[key]} and {value}" if key in attributes else value
    return attributes


def _fill_from_tables(clips: list[Clip], folder: Path) -> list[Clip]:
    rows: dict[str, dict[str, str]] = {}
    for table in sorted(folder.glob("attributes_*.csv")):
        rows |= _attribute_table(table)
    return [_fill(clip, rows.get(_stem(clip.path), {})) for clip in clips]


def _attribute_table(path: Path) -> dict[str, dict[str, str]]:
    header, *rows = _rows(path) or [[]]
    if header[:1] != ["file_name"]:
        raise MetadataError(f"{path}: expected a header file_name,d1p,d1v,..., found {header}")
    return {_stem(name): _attributes(pairs) for name, *pairs in filter(None, rows)}


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))


def _fill(clip: Clip, row: Mapping[str, str]) -> Clip:
    known = clip.attributes
    new = {k: v for k, v in row.items() if k not in known and _SAME_KEY.get(k) not in known}
    return replace(clip, attributes={**known, **new}) if new else clip


def _join_ground_truth(clips: list[Clip], truth: Path, form: str | None) -> list[Clip]:
    machine = clips[0].machine
    labels = _truth_table(truth / "ground_truth_data", machine, ("0", "1"))
    domains = _truth_table(truth / "ground_truth_domain", machine, ("0", "1"))
    names = _truth_table(truth / "ground_truth_attributes", machine)
    for path in [truth] if truth.is_file() else sorted(truth.glob("eval_data_list*.csv")):
        names |= _eval_data_list(path, machine)
    return [_name(clip, labels, domains, names, form) if clip.split == "test" else clip
            for clip in clips]  # fmt: skip


def _truth_table(folder: Path, machine: str, values: Sequence[str] = ()) -> dict[str, str]:
    rows: dict[str, str] = {}
    tables = [
        *folder.glob(f"ground_truth_{machine}_section_*_test.csv"),
        # 2022 tells the attributes in tables like those of the training clips.
        *folder.glob(f"{machine}/attributes_*.csv"),
    ]
    for path in sorted(tables):
        for number, row in enumerate(_rows(path), start=1):
            if row[:1] == ["file_name"]:
                continue
            if len(row) < 2:
                raise MetadataError(f"{path}, row {number}: expected 2 columns, found {row}")
            if values and row[-1] not in values:
                raise MetadataError(
                    f"{path}, row {number}: expected {' or '.join(values)}, found {row[-1]!r}"
                )
            # 2024 gives machines whose attributes were withheld a third column that has them.
            rows[_stem(row[0])] = row[-1]
    return rows


def _eval_data_list(path: Path, machine: str) -> dict[str, str]:
    """Read the names of a machine's clips from the one list that DCASE 2020 has for all."""
    names: dict[str, str] = {}
    heading = None
    for row in _rows(path):
        first, *others = [cell for cell in row if cell] or [""]
        if not others:
            heading = first
        elif heading == machine:
            names[_stem(first)] = others[0]
    return names


def _name(
    clip: Clip,
    labels: Mapping[str, str],
    domains: Mapping[str, str],
    names: Mapping[str, str],
    form: str | None,
) -> Clip:
    stem = _stem(clip.path)
    said = _said_by(_stem(names.get(stem, ""))) or {}
    label = {"0": "normal", "1": "anomaly"}.get(labels.get(stem, "")) or said.get("label")
    domain = {"0": "source", "1": "target"}.get(domains.get(stem, "")) or said.get("domain")
    if said:
        raw_label = said.get("raw_label") or ""
        clip = replace(clip, attributes=split_label(raw_label, form), raw_label=raw_label)
    return replace(clip, label=clip.label or label, domain=clip.domain or domain)


def _require_named(clips: Sequence[Clip], truth: Path) -> None:
    anonymous = [
        clip
        for clip in clips
        if clip.split == "test" and not (_said_by(_stem(clip.path)) or {}).get("label")
    ]
    if anonymous and not any(clip.label for clip in anonymous):
        raise MetadataError(
            f"ground truth {truth} names none of the {len(anonymous)} unlabelled test clips, e.g. "
            f"{anonymous[0].machine} {anonymous[0].path.name}: is it of another edition?"
        )
