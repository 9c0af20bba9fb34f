"""Metadata of recordings: DCASE Task 2 folders, file names and tables -> ``list[Clip]``.

A label is never guessed and never lost. The file name leads; the attribute table fills in what the
name lacks; ground-truth tables name the anonymous clips of the evaluation set. What none of them
says stays ``None``, and the label string as it was written stays in ``Clip.raw_label``. What is
particular to an edition (its machines, their roles, labels in a form of their own) is data, in
``conf/data/dcase*.yaml``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fsasd.data.audio_files import READABLE, folders_in, recordings_in, warn_of_left_out
from fsasd.data.clip import Clip
from fsasd.data.csv_table import is_known, read_rows
from fsasd.data.dcase_names import clip_named, parse_name, stem_of
from fsasd.data.ground_truth import DOMAINS, LABELS, SectionTruth, read_truth
from fsasd.data.joining import join, listed
from fsasd.data.names import (
    MetadataError,
    as_written,
    machine_name,
    require_distinct,
    require_known,
    spelling,
)

log = logging.getLogger(__name__)

ROLES = {"dev_data": "reference", "eval_data": "target"}

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


def read_clips(
    root: str | Path | Sequence[str | Path],
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
            ``eval_data/<machine>/{train,test}``; or several, which are read as one (see ``join``).
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
            of form, ground truth that names no clip, clips of one machine, section and
            split in two roots.
    """
    roots = listed(root)
    there = [folder for place in roots for folder in _machine_folders(place)]
    folders = _chosen(there, references, targets, machines, ", ".join(map(str, roots)))
    if ground_truth and not Path(ground_truth).exists():
        raise FileNotFoundError(f"ground truth {ground_truth} does not exist")
    names = {folder.machine for folder in folders}
    written = as_written(label_forms or {}, names, "machines")
    forms = dict(zip(written, (label_forms or {}).values(), strict=True))
    clips = join(
        (place, _read_root(place, [f for f in folders if f.root == place], ground_truth, forms))
        for place in roots
    )
    if ground_truth:
        _require_named(clips, Path(ground_truth))
    clips.sort(key=lambda clip: (clip.role or "", clip.machine))
    return clips


def _read_root(
    root: Path,
    folders: Sequence[_MachineFolder],
    ground_truth: str | Path | None,
    forms: Mapping[str, str],
) -> list[Clip]:
    truth_root = Path(ground_truth) if ground_truth else root / "ground_truth"
    machines = {folder.machine for folder in folders}
    truth = _read_truth(truth_root, machines) if truth_root.exists() else {}
    clips: list[Clip] = []
    for folder in sorted(folders):
        form = forms.get(folder.machine)
        machine_clips = _machine_clips(folder, form)
        if not machine_clips:
            raise MetadataError(
                f"{folder.machine}: no recording ({READABLE}) in {folder.path}/train or /test"
            )
        machine_clips = _fill_from_tables(machine_clips, folder.path)
        clips += [_with_truth(clip, truth, form) for clip in machine_clips]
    copies = [path for folder in folders for path in _copies(folder.path)]
    places = [folder.path for folder in folders]
    warn_of_left_out(root, places, {*copies, *(clip.path for clip in clips)})
    return clips


def read_name(path: str | Path, *, role: str | None = None, form: str | None = None) -> Clip:
    """Read the metadata in a file's name and folder: ``.../<machine>/<split>/<name>.wav``.

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
    known = parse_name(stem_of(path))
    if known is None:
        raise MetadataError(
            f"{path}: expected a name like section_00_source_train_normal_0000_<attributes>, "
            "section_00_0000, normal_id_00_00000000 or id_00_00000000"
        )
    raw_label = known.get("raw_label") or ""
    split, domain = _SPLITS.get(path.parent.name, (None, None))
    return Clip(
        path=path,
        machine=spelling(path.parent.parent.name if split else path.parent.name),
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


class _MachineFolder(NamedTuple):
    role: str
    machine: str
    path: Path
    root: Path


def _machine_folders(root: Path) -> list[_MachineFolder]:
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} does not exist (fsasd-download fetches DCASE's)")
    folders = []
    for part, role in ROLES.items():
        # The DCASE baselines keep the archives' contents one level further down, in raw/.
        top = root / part / "raw" if (root / part / "raw").is_dir() else root / part
        if top.is_dir():
            folders += [_MachineFolder(role, spelling(p.name), p, root) for p in folders_in(top)]
    if not folders:
        entries = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise MetadataError(
            f"{root}: expected dev_data/<machine> or eval_data/<machine> folders, found {entries}"
        )
    return folders


def _chosen(
    folders: Sequence[_MachineFolder],
    references: Sequence[str] | None,
    targets: Sequence[str] | None,
    machines: Sequence[str] | None,
    root: str,
) -> list[_MachineFolder]:
    """Choose the requested machines, with their roles; their names must be distinct."""
    there = sorted({folder.machine for folder in folders})
    if references is not None or targets is not None:
        roles = dict.fromkeys(as_written(references or (), there, "references"), "reference")
        roles |= dict.fromkeys(as_written(targets or (), there, "targets"), "target")
        folders = _with_roles(folders, roles, machines, root)
    elif machines is not None:
        machines = as_written(machines, there, f"machines under {root}")
        require_known(machines, there, f"machines under {root}")
        folders = [folder for folder in folders if folder.machine in machines]
    for folder in folders:
        machine_name(folder.path.name)
    require_distinct({folder.path.name for folder in folders}, root)
    return list(folders)


def _with_roles(
    folders: Sequence[_MachineFolder],
    roles: Mapping[str, str],
    machines: Sequence[str] | None,
    root: str,
) -> list[_MachineFolder]:
    """Choose the machines that have a role, all of which must exist."""
    if machines is not None:
        machines = as_written(machines, roles, "references and targets")
        require_known(machines, roles, "references and targets")
        roles = {machine: roles[machine] for machine in machines}
    present = {folder.machine for folder in folders}
    if missing := sorted(set(roles) - present):
        there = sorted(set(roles) & present)
        raise MetadataError(
            f"{root}: expected the machines {', '.join(sorted(roles))}, found "
            f"{', '.join(sorted(present))}. Missing: {', '.join(missing)}. To use what is "
            f"there, set data.machines=[{','.join(there)}]"
        )
    if others := sorted(present - set(roles)):
        log.info("%s: neither references nor targets, not used: %s", root, ", ".join(others))
    return [folder._replace(role=roles[folder.machine]) for folder in folders
            if folder.machine in roles]  # fmt: skip


def _machine_clips(folder: _MachineFolder, form: str | None) -> list[Clip]:
    copies = _copies(folder.path)
    return [
        read_name(path, role=folder.role, form=form)
        for name in _SPLITS
        for path in recordings_in(folder.path / name)
        if path not in copies
    ]


def _copies(folder: Path) -> set[Path]:
    """Return DCASE 2021's test clips where the DCASE baseline has merged its two folders."""
    if not recordings_in(folder / "test"):
        return set()
    return {p for name in ("source_test", "target_test") for p in recordings_in(folder / name)}


def _attributes(pairs: Sequence[str]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        if key and value and key != NO_ATTRIBUTE:
            attributes[key] = f"{attributes[key]} and {value}" if key in attributes else value
    return attributes


def _fill_from_tables(clips: list[Clip], folder: Path) -> list[Clip]:
    rows: dict[str, dict[str, str]] = {}
    place: dict[str, str] = {}
    stems = {stem_of(clip.path) for clip in clips}
    for table in sorted(folder.glob("attributes_*.csv")):
        listed = _attribute_table(table)
        for stem, (number, row) in listed.items():
            where = place.setdefault(stem, f"{table}, row {number}")
            if rows.setdefault(stem, row) != row:
                raise MetadataError(f"{table}, row {number}: {stem} contradicts {where}")
        if listed and not listed.keys() & stems:
            log.warning(
                "%s: none of its %d rows names a recording in %s", table, len(listed), folder
            )
    return [_fill(clip, rows.get(stem_of(clip.path), {})) for clip in clips]


def _attribute_table(path: Path) -> dict[str, tuple[int, dict[str, str]]]:
    """Read the attributes of each clip from a table of DCASE's, with row numbers."""
    rows = read_rows(path)
    _, header = next(rows, (1, []))
    if [cell.strip() for cell in header[:1]] != ["file_name"]:
        raise MetadataError(f"{path}: expected a header file_name,d1p,d1v,..., found {header}")
    listed: dict[str, tuple[int, dict[str, str]]] = {}
    for number, (name, *cells) in rows:
        stem = clip_named(name)
        if not stem:
            raise MetadataError(f"{path}, row {number}: expected a file's name, found nothing")
        pairs = [cell.strip() if is_known(cell) else "" for cell in cells]
        attributes = _attributes(pairs)
        first, known = listed.setdefault(stem, (number, attributes))
        if known != attributes:
            raise MetadataError(
                f"{path}, rows {first} and {number}: they contradict each other on {stem}: "
                f"{known} and {attributes}"
            )
    return listed


def _fill(clip: Clip, row: Mapping[str, str]) -> Clip:
    known = clip.attributes
    new = {k: v for k, v in row.items() if k not in known and _SAME_KEY.get(k) not in known}
    return replace(clip, attributes={**known, **new}) if new else clip


def _read_truth(place: Path, machines: Collection[str]) -> dict[tuple[str, str], SectionTruth]:
    problems: list[str] = []
    truth = read_truth(place, problems, machines)
    if problems:
        raise MetadataError("\n".join(problems))
    return truth


def _with_truth(
    clip: Clip, truth: Mapping[tuple[str, str], SectionTruth], form: str | None
) -> Clip:
    known = truth.get((clip.machine, clip.section or ""))
    if known is None or clip.split != "test":
        return clip
    stem = stem_of(clip.path)
    label, domain = known.label(stem), known.domain(stem)
    fields = parse_name(clip_named(known.names[stem][-1])) if stem in known.names else None
    if fields:
        raw_label = fields.get("raw_label") or ""
        clip = replace(clip, attributes=split_label(raw_label, form), raw_label=raw_label)
    return replace(
        clip,
        label=clip.label or (None if label is None else LABELS[label]),
        domain=clip.domain or (None if domain is None else DOMAINS[domain]),
    )


def _require_named(clips: Sequence[Clip], truth: Path) -> None:
    anonymous = [
        clip
        for clip in clips
        if clip.split == "test" and not (parse_name(stem_of(clip.path)) or {}).get("label")
    ]
    if anonymous and not any(clip.label for clip in anonymous):
        raise MetadataError(
            f"ground truth {truth} names none of the {len(anonymous)} unlabelled test clips, e.g. "
            f"{anonymous[0].machine} {anonymous[0].path.name}: is it of another edition?"
        )
