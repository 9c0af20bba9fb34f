"""Every edition of DCASE Task 2 is read from its configuration and the names that it really has."""

import functools
import json
from collections import Counter
from pathlib import Path

import hydra
import pytest
import yaml
from hydra import compose, initialize_config_module

import fsasd.cli.main  # noqa: F401, registers the resolvers of the configuration

EDITIONS = [str(year) for year in range(2020, 2027)]
SAME_TYPES = {"2020", "2021", "2022"}


@functools.cache
def configure(edition):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", [f"data=dcase{edition}"]).data


def read(edition, root, **options):
    cfg = configure(edition)
    return hydra.utils.instantiate(cfg, root=str(root), _convert_="all", **options)


def names(edition, part, labels):
    """Folder and name of each clip of a machine in a part of an edition."""
    dev = part == "dev_data"
    if edition == "2020":
        yield "train", f"normal_id_0{0 if dev else 1}_00000000"
        yield "test", "anomaly_id_00_00000001" if dev else "id_01_00000001"
        return
    section = "section_00" if dev or edition not in SAME_TYPES else "section_03"
    for i, label in enumerate(labels):
        yield "train", f"{section}_source_train_normal_{i:04d}_{label}"
    if edition == "2021":
        yield "source_test", f"{section}_source_test_" + ("anomaly_0000" if dev else "0000")
        yield "target_test", f"{section}_target_test_" + ("normal_0000" if dev else "0000")
    elif dev:
        for i, label in enumerate(labels):
            yield "test", f"{section}_target_test_anomaly_{i:04d}_{label}"
    else:
        yield "test", f"{section}_0000"


@pytest.fixture(scope="module", params=EDITIONS)
def edition(request):
    return request.param


@pytest.fixture(scope="module")
def root(edition, tmp_path_factory, real_labels) -> Path:
    """The tree of an edition: all of its machines with all labels that are known; empty files."""
    folder = tmp_path_factory.mktemp("editions") / edition
    cfg = configure(edition)
    for machine in {*cfg.references, *cfg.targets}:
        labels = [label for year, m, label in real_labels if (year, m) == (edition, machine)]
        parts = ["eval_data" if machine in cfg.targets else "dev_data"]
        for part in ["dev_data", "eval_data"] if edition in SAME_TYPES else parts:
            for split, name in names(edition, part, labels or ["noAttribute"]):
                path = folder / part / "raw" / machine / split / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return folder


@pytest.fixture(scope="module")
def data(edition, root):
    return read(edition, root)


def test_no_clip_and_no_label_is_lost(data, root, edition):
    assert {clip.path for clip in data.clips} == set(root.rglob("*.wav"))
    for clip in data.clips:
        assert clip.path.stem.endswith(clip.raw_label)
        assert clip.section
        if clip.split == "train":
            assert clip.label == "normal"
        # What was split is all there.
        for key, value in clip.attributes.items():
            assert all(part in clip.raw_label for part in value.split(" and "))
            # 2021: A1Spd28VMic1.
            assert key in clip.raw_label or edition == "2021"


def test_every_clip_that_a_generator_hears_has_a_caption(data):
    for clip in data.captioned:
        assert data.captions(clip).startswith(f"This is the {clip.label} sound of a")
    assert {clip.machine for clip in data.captioned} == {clip.machine for clip in data.clips}


def test_machines_have_the_roles_that_the_configuration_says(data, edition):
    cfg = configure(edition)
    assert data.targets == sorted(cfg.targets)
    assert data.references == sorted(set(cfg.references) - set(cfg.targets))
    assert data.targets
    assert data.references


def test_the_machines_are_those_of_the_archives(edition, shared):
    name = "legacy" if edition in SAME_TYPES else edition
    text = (shared / "reference/zenodo" / f"download_path_{name}.yaml").read_text()
    archives = yaml.safe_load(text)[f"DCASE{edition}T2"]
    cfg = configure(edition)
    dev = {machine for machine, parts in archives.items() if "dev" in parts}
    new = {machine for machine, parts in archives.items() if "dev" not in parts}
    assert set(cfg.references) == dev
    assert set(cfg.targets) == new or (edition in SAME_TYPES and set(cfg.targets) < dev)


def test_a_machine_that_is_not_there_is_told_with_what_is(edition, root, tmp_path):
    cfg = configure(edition)
    gone = sorted(cfg.targets)[0]
    for part in ("dev_data", "eval_data"):
        source, copy = root / part / "raw", tmp_path / part / "raw"
        copy.mkdir(parents=True)
        for folder in source.iterdir() if source.is_dir() else ():
            if folder.name != gone:
                (copy / folder.name).symlink_to(folder)
    message = rf"MetadataError.*expected the machines .*{gone}.*found.*Missing: {gone}\. "
    with pytest.raises(hydra.errors.InstantiationException, match=message):
        read(edition, tmp_path)
    there = sorted({*cfg.references, *cfg.targets} - {gone})
    subset = read(edition, tmp_path, machines=there)
    assert {clip.machine for clip in subset.clips} == set(there)


# What is particular to one


@pytest.mark.parametrize("edition", ["2022"], indirect=True)
def test_each_type_may_be_the_target_in_turn(edition, root):
    data = read(edition, root, targets=["fan"])
    assert data.targets == ["fan"]
    assert {"bearing", "valve"} < set(data.references)
    hidden = [clip for clip in data.machine("fan") if clip.split == "test"]
    assert len(hidden) > 1
    assert not set(hidden) & set(data.captioned)


@pytest.mark.parametrize("edition", ["2022"], indirect=True)
def test_types_in_both_parts_need_roles(edition, root):
    with pytest.raises(hydra.errors.InstantiationException, match="slider, valve: both reference"):
        read("", root)


@pytest.mark.parametrize("edition", ["2023"], indirect=True)
def test_one_target_and_all_references(edition, root):
    data = read(edition, root, targets=["bandsaw"])
    assert data.targets == ["bandsaw"]
    assert len(data.references) == 7


@pytest.mark.parametrize("edition", ["2023"], indirect=True)
def test_a_mistyped_machine_is_told_the_near_miss(edition, root):
    with pytest.raises(hydra.errors.InstantiationException, match="Did you mean 'bandsaw'"):
        read(edition, root, machines=["fan", "bansaw"])
    with pytest.raises(hydra.errors.InstantiationException, match="Missing: bansaw"):
        read(edition, root, targets=["bansaw"])


@pytest.mark.parametrize(
    ("year", "machine", "label", "attributes"),
    [
        ("2021", "ToyCar", "A1Spd28VMic1", {"car": "A1", "spd": "28V", "mic": "1"}),
        ("2021", "valve", "pattern_00_no_pump", {}),
        ("2021", "gearbox", "0_g_25_mm_2000_mV_none", {}),
        ("2024", "BrushlessMotor", "spd1000_BckgC", {"spd": "1000", "Bckg": "C"}),
        ("2024", "RoboticArm", "weight15_BckgF", {"weight": "15", "Bckg": "F"}),
        ("2024", "slider", "ac_0.03_", {"ac": "0.03"}),
        ("2024", "valve", "v1pat_A_v2pat_none", {"v1pat": "A", "v2pat": "none"}),
        (
            "2025",
            "CoffeeGrinder",
            "mic_imp34dt05_mic_pos_A_grind_100_bkg_A",
            {"mic": "imp34dt05", "mic_pos": "A", "grind": "100", "bkg": "A"},
        ),
        (
            "2026",
            "ToyCarEmu",
            "car_A1_spd_1_mic_2_mic_1",
            {"car": "A1", "spd": "1", "mic": "2 and 1"},
        ),
        ("2026", "fan", "spd_1", {"spd": "1"}),
    ],
)
def test_labels_in_a_form_of_their_own(tmp_path, year, machine, label, attributes):
    folder = tmp_path / "dev_data" / machine / "train"
    folder.mkdir(parents=True)
    (folder / f"section_00_source_train_normal_0000_{label}.wav").touch()
    (clip,) = read(year, tmp_path, references=[machine], targets=[]).clips
    assert dict(clip.attributes) == attributes
    assert clip.raw_label == label


def test_only_2026_has_channels():
    channels = {edition: configure(edition).channel for edition in EDITIONS}
    assert channels.pop("2026") == "near"
    assert set(channels.values()) == {None}


def test_the_real_labels_hold_what_the_reference_tables_do(real_labels, shared):
    table = json.loads((shared / "reference/labels/label_strings_2022_2023.json").read_text())
    known = {
        (year, machine, label)
        for year, machines in table.items()
        for machine, groups in machines.items()
        for group in groups.values()
        for label in group
    }
    assert known <= set(real_labels)
    assert Counter(year for year, _, _ in real_labels).keys() == set(EDITIONS) - {"2020"}
