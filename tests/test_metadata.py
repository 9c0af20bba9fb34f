import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.captions import caption
from fsasd.data.metadata import read_clips, read_name, split_label
from fsasd.data.names import MetadataError, require_known

LABEL_TEXT = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]))


def touch(root, *names):
    """Reading metadata never opens a recording, so empty files do."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_rows(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def write_truth(root, machine, **columns):
    for kind, rows in columns.items():
        name = f"ground_truth_{kind}/ground_truth_{machine}_section_00_test.csv"
        write_rows(root / "ground_truth" / name, *rows)


def only(clips):
    (clip,) = clips
    return clip


# Names


def test_a_name_of_2022_and_later_says_everything():
    clip = read_name(
        "dev_data/ToyCar/train/section_02_target_train_normal_0007_car_B2_spd_31V_mic_1.wav",
        role="reference",
    )
    assert (clip.machine, clip.role, clip.split) == ("ToyCar", "reference", "train")
    assert (clip.section, clip.domain, clip.label) == ("02", "target", "normal")
    assert list(clip.attributes.items()) == [("car", "B2"), ("spd", "31V"), ("mic", "1")]
    assert clip.raw_label == "car_B2_spd_31V_mic_1"
    flat = read_name("ToyCar/section_02_target_train_normal_0007.wav")
    assert (flat.machine, flat.split) == ("ToyCar", "train")


def test_a_name_without_attributes_has_none():
    clip = read_name("fan/test/section_00_source_test_anomaly_0000.wav")
    assert (clip.label, clip.raw_label, dict(clip.attributes)) == ("anomaly", "", {})


@pytest.mark.parametrize("label", ["normal", "anomaly"])
def test_a_name_of_2020_says_label_and_machine_id(label):
    clip = read_name(f"pump/test/{label}_id_04_00000042.wav")
    assert (clip.machine, clip.split, clip.section) == ("pump", "test", "04")
    assert (clip.label, clip.domain) == (label, None)


@pytest.mark.parametrize("name", ["id_01_00000042", "section_01_0042"])
def test_an_anonymous_name_says_the_section_only(name):
    clip = read_name(f"pump/test/{name}.wav")
    assert (clip.section, clip.split) == ("01", "test")
    assert (clip.label, clip.domain, clip.raw_label) == (None, None, "")


def test_a_value_with_a_point_is_kept_where_the_name_has_no_suffix():
    name = "slider/train/section_00_source_train_normal_0000_vel_380_ac_0.03"
    assert read_name(name).attributes == read_name(f"{name}.wav").attributes
    assert read_name(name).attributes["ac"] == "0.03"


def test_a_name_in_no_known_form_is_told_with_the_forms():
    with pytest.raises(MetadataError, match=r"fan/train/my fan\.wav: .*section_00_0000"):
        read_name("fan/train/my fan.wav")


@given(LABEL_TEXT)
def test_no_label_text_is_lost_or_fatal(text):
    clip = read_name(f"fan/train/section_00_source_train_normal_0000_{text}.wav")
    assert clip.raw_label == text
    assert (clip.section, clip.domain, clip.label) == ("00", "source", "normal")
    # What is split can be put together again: nothing was invented.
    if clip.attributes:
        assert all(key in text and value in text for key, value in clip.attributes.items())


@pytest.mark.nightly
@pytest.mark.slow
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z](?:[A-Za-z0-9.\-]*[A-Za-z.\-])?", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9.\-]+", fullmatch=True),
        min_size=1,
    ).filter(lambda attributes: "noAttribute" not in attributes)
)
def test_pairs_survive_being_written_as_a_label(attributes):
    text = "_".join(part for pair in attributes.items() for part in pair)
    assert split_label(text) == attributes
    assert split_label(f"{text}_") == attributes


def test_every_real_label_string_is_split_into_the_keys_it_was_made_of(shared):
    table = json.loads((shared / "reference/labels/label_strings_2022_2023.json").read_text())
    labels = {
        (machine, label)
        for machines in table.values()
        for machine, groups in machines.items()
        for group in groups.values()
        for label in group
    }
    with (shared / "reference/labels/dcase2023_train_labels.csv").open() as file:
        labels |= {("any of 2023", row["feature"]) for row in csv.DictReader(file)}
    assert len(labels) > 300
    keys = set()
    for machine, label in labels:
        clip = read_name(f"{machine}/train/section_00_source_train_normal_0000_{label}.wav")
        assert clip.raw_label == label
        if label != "noAttribute":
            pairs = [part for pair in clip.attributes.items() for part in pair]
            assert "_".join(pairs) == label
        keys |= set(clip.attributes)
    assert {"car", "spd", "mic", "vel", "ac", "loc", "m-n", "f-n", "n-lv", "pat"} <= keys


VALUES = st.from_regex(r"[a-z0-9]+", fullmatch=True)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(["mic", "spd", "m-n"]), VALUES)))
def test_a_key_that_comes_up_again_keeps_all_values(pairs):
    attributes = split_label("_".join(part for pair in pairs for part in pair))
    for key in {key for key, _ in pairs}:
        assert attributes[key].split(" and ") == [v for k, v in pairs if k == key]


@pytest.mark.parametrize("label", ["spd1000_BckgC", "0_g_25_mm", "1_a", "_a_b_c"])
def test_what_cannot_be_a_key_makes_no_pair(label):
    assert split_label(label) == {}


def test_a_form_that_a_label_does_not_have_leaves_it_text():
    form = r"weight(?P<weight>\d+)_Bckg(?P<bkg>[A-Z])(?:_(?P<rest>.+))?"
    assert split_label("weight15_BckgF", form) == {"weight": "15", "bkg": "F"}
    assert split_label("weight_15", form) == {}


# Folders


def test_the_layout_of_2021_is_read(tmp_path):
    touch(
        tmp_path,
        "dev_data/fan/train/section_00_source_train_normal_0000_strength_1_ambient.wav",
        "dev_data/fan/source_test/section_00_source_test_anomaly_0000.wav",
        "eval_data/fan/source_test/section_03_source_test_0000.wav",
        "eval_data/fan/target_test/section_03_target_test_0000.wav",
    )
    seen = [(c.section, c.split, c.domain, c.label) for c in read_clips(tmp_path)]
    assert seen == [
        ("00", "train", "source", "normal"),
        ("00", "test", "source", "anomaly"),
        ("03", "test", "source", None),
        ("03", "test", "target", None),
    ]


@pytest.mark.parametrize("domain", ["source", "target"])
def test_test_folders_that_were_merged_are_read_once(tmp_path, caplog, domain):
    name = f"section_00_{domain}_test_anomaly_0000.wav"
    touch(tmp_path, f"dev_data/fan/{domain}_test/{name}", f"dev_data/fan/test/{name}")
    assert only(read_clips(tmp_path)).path.parent.name == "test"
    assert not caplog.messages


def test_the_layout_of_2022_and_later_is_read(tmp_path):
    touch(
        tmp_path,
        "dev_data/fan/train/section_00_source_train_normal_0000_m-n_W.wav",
        "dev_data/fan/test/section_00_target_test_anomaly_0000_m-n_X.wav",
        "eval_data/saw/train/section_00_source_train_normal_0000_vel_1.flac",
        "eval_data/saw/test/section_00_0000.wav",
        "eval_data/saw/test/notes.txt",
    )
    seen = [(c.role, c.machine, c.split, c.label, c.domain) for c in read_clips(tmp_path)]
    assert seen == [
        ("reference", "fan", "train", "normal", "source"),
        ("reference", "fan", "test", "anomaly", "target"),
        ("target", "saw", "train", "normal", "source"),
        ("target", "saw", "test", None, None),
    ]


def test_the_layout_of_2020_is_read(tmp_path):
    touch(
        tmp_path,
        "dev_data/pump/train/normal_id_00_00000000.wav",
        "dev_data/pump/test/anomaly_id_02_00000001.wav",
        "dev_data/pump/test/normal_id_02_00000000.wav",
        "eval_data/pump/test/id_01_00000000.wav",
    )
    seen = [(c.role, c.section, c.split, c.label) for c in read_clips(tmp_path)]
    assert seen == [
        ("reference", "00", "train", "normal"),
        ("reference", "02", "test", "anomaly"),
        ("reference", "02", "test", "normal"),
        ("target", "01", "test", None),
    ]


def test_the_raw_folder_of_the_baselines_is_read(tmp_path):
    name = "section_00_source_train_normal_0000_m-n_W.wav"
    # macOS leaves files beside files.
    touch(tmp_path, f"dev_data/raw/fan/train/{name}", f"dev_data/raw/fan/train/._{name}")
    assert only(read_clips(tmp_path)).machine == "fan"


def test_only_the_machines_asked_for_are_read(factory):
    assert {clip.machine for clip in read_clips(factory, ["valve", "bearing"])} == {
        "valve",
        "bearing",
    }


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data root .*nowhere does not exist"):
        read_clips(tmp_path / "nowhere")


def test_a_root_of_another_form_is_told_what_was_found(tmp_path):
    touch(tmp_path, "fan/train/a.wav", "readme.txt")
    with pytest.raises(MetadataError, match=r"expected dev_data/<machine>.*found fan, readme\.txt"):
        read_clips(tmp_path)


def test_an_empty_root_is_told_so(tmp_path):
    with pytest.raises(MetadataError, match="found nothing"):
        read_clips(tmp_path)


def test_a_machine_without_clips_is_named(tmp_path):
    touch(tmp_path, "dev_data/fan/train/readme.txt")
    with pytest.raises(MetadataError, match=r"fan: no recording \(\.wav, .*\) in .*dev_data/fan"):
        read_clips(tmp_path)


@pytest.mark.parametrize("typo", ["baering", "Bearing"])
def test_a_mistyped_machine_is_told_the_near_miss(factory, typo):
    with pytest.raises(
        MetadataError,
        match=rf"'{typo}' is not among the machines under .*{factory.name}: "
        r"bearing, fan, valve\. Did you mean 'bearing'",
    ):
        read_clips(factory, ["fan", typo])


def test_a_machine_like_no_other_gets_no_suggestion():
    with pytest.raises(MetadataError, match=r"among the machines: fan, valve$"):
        require_known(["zzz"], ["valve", "fan"], "machines")


# Attribute tables


def test_a_table_fills_in_what_the_name_lacks_and_the_name_leads(tmp_path):
    name = "section_00_source_train_normal_0000_car_C1"
    touch(tmp_path, f"dev_data/ToyTank/train/{name}.wav")
    write_rows(
        tmp_path / "dev_data/ToyTank/attributes_00.csv",
        "file_name,d1p,d1v,d2p,d2v",
        f"ToyTank/train/{name}.wav,car,from the table,mic,1",
    )
    clip = only(read_clips(tmp_path))
    assert dict(clip.attributes) == {"car": "C1", "mic": "1"}
    assert clip.raw_label == "car_C1"


@pytest.mark.parametrize("listed", ["{}", "{}.wav", "ToyTank/train/{}.wav", "{}.flac"])
@pytest.mark.parametrize("label", ["spd_5", "ac_0.03"])
def test_a_table_may_leave_out_folder_and_suffix(tmp_path, listed, label):
    name = f"section_00_source_train_normal_0989_{label}"
    touch(tmp_path, f"dev_data/ToyTank/train/{name}.wav")
    write_rows(
        tmp_path / "dev_data/ToyTank/attributes_00.csv",
        "file_name,d1p,d1v",
        f"{listed.format(name)},mic,1",
    )
    assert only(read_clips(tmp_path)).attributes["mic"] == "1"


def test_a_key_that_the_table_spells_otherwise_is_not_said_twice(tmp_path):
    name = "section_00_source_train_normal_0000_car_C1_spd_1_mic_2"
    touch(tmp_path, f"dev_data/ToyDrone/train/{name}.wav")
    write_rows(
        tmp_path / "dev_data/ToyDrone/attributes_00.csv",
        "file_name,d1p,d1v,d2p,d2v",
        f"{name},car,C1,speed,1",
    )
    assert dict(only(read_clips(tmp_path)).attributes) == {"car": "C1", "spd": "1", "mic": "2"}


def test_what_the_table_omits_comes_from_the_name(tmp_path):
    name = "section_00_source_train_normal_0000_car_B1_spd_Lb_mic_1"
    touch(tmp_path, f"dev_data/Vacuum/train/{name}.wav")
    write_rows(
        tmp_path / "dev_data/Vacuum/attributes_00.csv",
        "file_name,d1p,d1v,d2p,d2v",
        f"{name},car,B1,mic,1",
    )
    assert only(read_clips(tmp_path)).attributes["spd"] == "Lb"


def test_a_table_that_says_no_attribute_says_nothing(tmp_path):
    name = "section_00_source_train_normal_0000_noAttribute"
    touch(tmp_path, f"dev_data/slider/train/{name}.wav")
    # With the mark that Excel puts before UTF-8.
    write_rows(
        tmp_path / "dev_data/slider/attributes_00.csv",
        "\ufefffile_name,d1p,d1v",
        f"slider/train/{name}.wav,noAttribute,noAttribute",
    )
    assert dict(only(read_clips(tmp_path)).attributes) == {}


@pytest.mark.parametrize("cells", ["m-n,W,,", "m-n,W,load"])
def test_rows_may_lack_values_and_clips_rows(tmp_path, cells):
    touch(
        tmp_path, *(f"dev_data/fan/train/section_00_source_train_normal_000{i}.wav" for i in (0, 1))
    )
    write_rows(
        tmp_path / "dev_data/fan/attributes_00.csv",
        "file_name,d1p,d1v,d2p,d2v",
        f"section_00_source_train_normal_0000,{cells}",
        "",
    )
    first, second = read_clips(tmp_path)
    assert (dict(first.attributes), dict(second.attributes)) == ({"m-n": "W"}, {})


@pytest.mark.parametrize("rows", [[], ["a.wav,m-n,W"]])
def test_a_table_without_its_header_is_named(tmp_path, rows):
    touch(tmp_path, "dev_data/fan/train/section_00_source_train_normal_0000.wav")
    write_rows(tmp_path / "dev_data/fan/attributes_00.csv", *rows)
    with pytest.raises(MetadataError, match=r"fan/attributes_00\.csv: expected a header file_name"):
        read_clips(tmp_path)


def test_a_row_without_a_name_is_named(tmp_path):
    touch(tmp_path, "dev_data/fan/train/section_00_source_train_normal_0000.wav")
    write_rows(tmp_path / "dev_data/fan/attributes_00.csv", "file_name,d1p,d1v", ",m-n,W")
    message = r"fan/attributes_00\.csv, row 2: expected a file's name, found nothing"
    with pytest.raises(MetadataError, match=message):
        read_clips(tmp_path)


@pytest.mark.parametrize("listed", [r"fan\train\{}.wav", r"{}.wav ", "other/place/{}.flac"])
def test_a_table_may_write_folders_as_windows_does(tmp_path, listed):
    name = "section_00_source_train_normal_0000"
    touch(tmp_path, f"dev_data/fan/train/{name}.wav")
    write_rows(
        tmp_path / "dev_data/fan/attributes_00.csv",
        "file_name,d1p,d1v",
        f"{listed.format(name)},spd,3V",
    )
    assert dict(only(read_clips(tmp_path)).attributes) == {"spd": "3V"}


def test_a_table_whose_rows_name_no_recording_is_told(tmp_path, caplog):
    touch(tmp_path, "dev_data/fan/train/section_00_source_train_normal_0000.wav")
    write_rows(tmp_path / "dev_data/fan/attributes_00.csv", "file_name,d1p,d1v", "other,spd,3V")
    read_clips(tmp_path)
    assert "attributes_00.csv: none of its 1 rows names a recording in" in caplog.text


@pytest.mark.parametrize("cell", ["nan", "N/A", "-", "None", "noAttribute"])
def test_a_sign_for_the_unknown_is_no_attribute(tmp_path, cell):
    name = "section_00_source_train_normal_0000"
    touch(tmp_path, f"dev_data/fan/train/{name}.wav")
    write_rows(
        tmp_path / "dev_data/fan/attributes_00.csv", "file_name,d1p,d1v,d2p,d2v",
        f"{name},spd,{cell},load,1",
    )  # fmt: skip
    clip = only(read_clips(tmp_path))
    assert dict(clip.attributes) == {"load": "1"}
    assert caption(clip) == "This is the normal sound of an industrial fan with load 1."


@pytest.mark.parametrize("other", ["attributes_00.csv", "attributes_01.csv"])
def test_rows_that_contradict_each_other_are_named(tmp_path, other):
    name = "section_00_source_train_normal_0000"
    touch(tmp_path, f"dev_data/fan/train/{name}.wav")
    folder = tmp_path / "dev_data/fan"
    rows = {
        "attributes_00.csv": ["file_name,d1p,d1v", f"{name},spd,1", f"fan/train/{name}.wav,spd,1"]
    }
    rows.setdefault(other, ["file_name,d1p,d1v"]).append(f"{name},spd,2")
    for table, lines in rows.items():
        write_rows(folder / table, *lines)
    said = (
        "rows 2 and 4" if other == "attributes_00.csv" else "row 2: .* contradicts .*_00.csv, row 2"
    )
    with pytest.raises(MetadataError, match=rf"{other}, {said}"):
        read_clips(tmp_path)
    write_rows(folder / other, "file_name,d1p,d1v", f"{name},spd,1", f"{name},spd,1")
    assert only(read_clips(tmp_path)).attributes["spd"] == "1"


def test_a_section_has_one_spelling():
    assert read_name("fan/test/section_0_0001.wav").section == "00"
    assert read_name("fan/test/section_1_source_test_normal_0001.wav").section == "01"
    assert read_name("fan/test/normal_id_002_00000001.wav").section == "02"


def test_folders_of_other_programs_and_audio_left_out(tmp_path, caplog):
    name = "section_00_source_train_normal_0000.wav"
    touch(tmp_path, f"dev_data/fan/train/{name}", f"dev_data/fan/train/deeper/{name}")
    for foreign in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        touch(tmp_path, f"dev_data/{foreign}/fan/train/{name}", f"dev_data/fan/{foreign}/{name}")
        touch(tmp_path, f"dev_data/fan/train/{foreign}/{name}")
    assert only(read_clips(tmp_path)).machine == "fan"
    (line,) = caplog.messages
    assert "1 file that looks like audio left out: dev_data/fan/train/deeper/section" in line


@pytest.mark.parametrize("names", [("Fan", "fan"), ("fan", "fan ")])
def test_machines_that_are_taken_for_each_other_are_refused(tmp_path, names):
    for part, machine in zip(("dev_data", "eval_data"), names, strict=True):
        touch(tmp_path, f"{part}/{machine}/train/section_00_source_train_normal_0000.wav")
    message = rf"{tmp_path.name}: expected one spelling of each machine, found "
    with pytest.raises(MetadataError, match=message):
        read_clips(tmp_path)
    machine = names[0].strip()
    if names[1].strip() != machine:
        assert {clip.machine for clip in read_clips(tmp_path, targets=[machine])} == {machine}


def test_machines_may_be_numbers(tmp_path):
    for part, machine in (("dev_data", "101"), ("eval_data", "1e3")):
        touch(tmp_path, f"{part}/{machine}/train/section_00_source_train_normal_0000.wav")
    clips = read_clips(tmp_path, references=[101], targets=[1000.0], label_forms={101: ".*"})
    assert {(c.machine, c.role) for c in clips} == {("101", "reference"), ("1e3", "target")}
    assert only(read_clips(tmp_path, [101])).machine == "101"


# Ground truth


def anonymous_test_clip(root, machine="saw"):
    touch(root, f"eval_data/{machine}/test/section_00_0000.wav")


def test_ground_truth_names_an_anonymous_clip(tmp_path):
    anonymous_test_clip(tmp_path)
    write_truth(
        tmp_path,
        "saw",
        data=["section_00_0000.wav,1"],
        domain=["section_00_0000.wav,1"],
        attributes=["section_00_0000.wav,section_00_target_test_anomaly_0010_vel_3.5"],
    )
    clip = only(read_clips(tmp_path))
    assert (clip.label, clip.domain) == ("anomaly", "target")
    assert (clip.raw_label, dict(clip.attributes)) == ("vel_3.5", {"vel": "3.5"})


def test_a_name_in_the_ground_truth_without_attributes_has_none(tmp_path):
    anonymous_test_clip(tmp_path)
    write_truth(tmp_path, "saw", attributes=["section_00_0000.wav,section_00_source_test_normal_1"])
    clip = only(read_clips(tmp_path))
    assert (clip.label, clip.raw_label, dict(clip.attributes)) == ("normal", "", {})


def test_ground_truth_is_that_of_test_clips_only(tmp_path):
    touch(tmp_path, "eval_data/saw/train/section_00_0000.wav")
    write_truth(tmp_path, "saw", data=["section_00_0000.wav,1"])
    assert only(read_clips(tmp_path)).label is None


def test_ground_truth_may_lie_elsewhere(tmp_path):
    anonymous_test_clip(tmp_path / "data")
    write_truth(tmp_path, "saw", data=["section_00_0000.wav,0"], domain=["section_00_0000.wav,0"])
    assert only(read_clips(tmp_path / "data")).label is None
    clip = only(read_clips(tmp_path / "data", ground_truth=tmp_path / "ground_truth"))
    assert (clip.label, clip.domain, clip.raw_label) == ("normal", "source", "")


def test_a_ground_truth_folder_that_is_not_there_is_named(tmp_path):
    anonymous_test_clip(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"ground truth .*answers does not exist"):
        read_clips(tmp_path, ground_truth=tmp_path / "answers")


def test_what_ground_truth_does_not_say_stays_unknown(tmp_path):
    anonymous_test_clip(tmp_path)
    write_truth(tmp_path, "saw", data=["section_00_0001.wav,1"])
    clip = only(read_clips(tmp_path))
    assert (clip.label, clip.domain) == (None, None)


def test_the_attributes_that_2024_withheld_come_from_the_third_column(tmp_path):
    anonymous_test_clip(tmp_path)
    short, full = "section_00_source_test_normal_0041_noAttribute", "fl_1_nos_0"
    write_truth(
        tmp_path,
        "saw",
        attributes=[f"section_00_0000.wav,{short},{short.replace('noAttribute', full)}.wav"],
    )
    assert dict(only(read_clips(tmp_path)).attributes) == {"fl": "1", "nos": "0"}


def test_attributes_are_kept_of_a_2024_name_that_leaves_the_split_out(tmp_path):
    anonymous_test_clip(tmp_path)
    write_truth(
        tmp_path,
        "saw",
        data=["section_00_0000.wav,0"],
        domain=["section_00_0000.wav,0"],
        attributes=["section_00_0000.wav,section_00_source_normal_0035_weight15_BckgF"],
    )
    forms = {"saw": r"weight(?P<weight>\d+)_Bckg(?P<bkg>[A-Z])"}
    clip = only(read_clips(tmp_path, label_forms=forms))
    assert (clip.label, clip.domain, clip.split) == ("normal", "source", "test")
    assert clip.raw_label == "weight15_BckgF"
    assert dict(clip.attributes) == {"weight": "15", "bkg": "F"}


def test_the_real_ground_truth_of_2024_loses_no_attribute(shared, tmp_path):
    truth = shared / "reference/scores/ground_truth_2024"
    rows = {
        path.name.removeprefix("ground_truth_").removesuffix("_section_00_test.csv"): list(
            csv.reader(path.read_text().splitlines())
        )
        for path in (truth / "ground_truth_attributes").iterdir()
    }
    for machine, table in rows.items():
        touch(tmp_path, *(f"eval_data/{machine}/test/{row[0]}" for row in table))
    clips = read_clips(tmp_path, ground_truth=truth)
    assert len(clips) == sum(map(len, rows.values())) == 1800
    assert Counter((c.label, c.domain) for c in clips).keys() == {
        (label, domain) for label in ("normal", "anomaly") for domain in ("source", "target")
    }
    written = {
        (m, row[0]): row[-1].removesuffix(".wav") for m, table in rows.items() for row in table
    }
    for clip in clips:
        name = written[clip.machine, clip.path.name]
        assert clip.raw_label
        assert name.endswith(f"_{clip.raw_label}")
        assert f"_{clip.domain}_" in name
        assert f"_{clip.label}_" in name


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("data", "section_00_0000.wav", r"_data.*saw.*\.csv, row 2: .*expected 0 or 1, found ''"),
        ("data", "section_00_0000.wav,normal", r"_data.*row 2: .*expected 0 or 1, found 'normal'"),
        ("domain", "section_00_0000.wav,2", r"_domain.*row 2: .*expected 0 or 1, found '2'"),
        ("attributes", "section_00_0000.wav", r"_attributes.*row 2: .*expected the clip's full"),
    ],
)
def test_a_malformed_ground_truth_row_is_named(tmp_path, kind, row, message):
    anonymous_test_clip(tmp_path)
    write_truth(tmp_path, "saw", **{kind: ["section_00_0001.wav,0", row]})
    with pytest.raises(MetadataError, match=message):
        read_clips(tmp_path)


@pytest.mark.parametrize("machine", ["saw", "saw[1]", "NA"])
@pytest.mark.parametrize("label", ["1", "1.0", " 1"])
def test_blank_rows_repeated_rows_and_decimals_are_taken(tmp_path, machine, label):
    anonymous_test_clip(tmp_path, machine)
    row = f"section_00_0000.wav,{label}"
    write_truth(
        tmp_path, machine, data=["", row, f"{row},,", ",", "  "], domain=["section_00_0000,0.0"]
    )
    clip = only(read_clips(tmp_path))
    assert (clip.label, clip.domain) == ("anomaly", "source")


def test_contradicting_rows_are_named(tmp_path):
    anonymous_test_clip(tmp_path)
    write_truth(tmp_path, "saw", data=["section_00_0000.wav,1", "section_00_0000,0"])
    with pytest.raises(MetadataError, match=r"truth_saw.*\.csv, row 2: .* contradicts row 1"):
        read_clips(tmp_path)


def test_contradicting_names_are_told(tmp_path, listed):
    path = listed / "lists/eval_data_list.csv"
    path.write_text(path.read_text() + "id_01_00000000.wav,normal_id_01_00000049.wav,0\n")
    with pytest.raises(MetadataError, match=r"list\.csv, row 7: id_01_00000000: label 0, and 1"):
        read_clips(tmp_path, ground_truth=path)


def test_cases_that_people_have_met(shared, caplog):
    cases = shared / "cases"
    for place in ("@eaDir", "__MACOSX"):
        assert only(read_clips(cases / "foreign-folders" / place)).machine == "fan"
    clips = read_clips(cases / "backslash/d")
    assert [dict(c.attributes) for c in clips if c.split == "train"] == [{"spd": "3V"}] * 2
    with pytest.raises(MetadataError, match=r"attributes_00\.csv: expected UTF-8 "):
        read_clips(cases / "encodings/d")
    with pytest.raises(MetadataError, match=r"_test\.csv, row 2: .* contradicts row 1"):
        read_clips(cases / "ground-truth/both")
    assert [c.label for c in read_clips(cases / "ground-truth/blank")] == ["normal", "anomaly"]


def test_the_ground_truth_of_2021_is_read(tmp_path):
    for domain in ("source", "target"):
        name = f"section_03_{domain}_test_0000.wav"
        touch(tmp_path, f"eval_data/fan/{domain}_test/{name}")
        write_rows(
            tmp_path
            / f"ground_truth/ground_truth_data/ground_truth_fan_section_03_{domain}_test.csv",
            f"{name},{int(domain == 'target')}",
        )
    seen = [(clip.domain, clip.label) for clip in read_clips(tmp_path)]
    assert seen == [("source", "normal"), ("target", "anomaly")]


def test_the_attributes_of_2022_are_read_from_their_tables(tmp_path):
    touch(tmp_path, "eval_data/valve/test/section_05_0000.wav")
    write_rows(
        tmp_path / "ground_truth/ground_truth_attributes/valve/attributes_05.csv",
        "file_name,d1p,d1v,file_name_with_full_attributes",
        # As it is there: the table's key is not the name's.
        "valve/test/section_05_0000.wav,v1pat,05,"
        "valve/test/section_05_source_test_normal_0001_v2pat_05.wav",
    )
    clip = only(read_clips(tmp_path))
    assert (clip.label, clip.domain) == ("normal", "source")
    assert dict(clip.attributes) == {"v2pat": "05"}


def test_full_names_that_are_not_of_their_clips_are_not_used(tmp_path, caplog):
    # As those of 2022's ToyCar, whose labels are the tables'.
    anonymous_test_clip(tmp_path)
    name = "section_00_target_test_anomaly_0010_vel_3.5"
    write_truth(
        tmp_path, "saw", data=["section_00_0000.wav,0"], domain=["section_00_0000.wav,1"],
        attributes=[f"section_00_0000.wav,{name}"],
    )  # fmt: skip
    clip = only(read_clips(tmp_path))
    assert (clip.label, clip.domain, clip.raw_label) == ("normal", "target", "")
    assert "saw section 00: 1 of 1 full names in the ground truth say another" in caplog.text


@pytest.fixture
def listed(tmp_path):
    touch(
        tmp_path,
        "eval_data/fan/test/id_01_00000000.wav",
        "eval_data/fan/test/id_01_00000001.wav",
        "eval_data/pump/test/id_01_00000000.wav",
    )
    write_rows(
        tmp_path / "lists/eval_data_list.csv",
        "fan",
        "id_01_00000000.wav,normal_id_01_00000098.wav,0",
        "id_01_00000001.wav,anomaly_id_01_00000064.wav,1",
        "",
        "pump",
        "id_01_00000000.wav,anomaly_id_01_00000049.wav,1",
    )
    return tmp_path


@pytest.mark.parametrize("place", ["lists", "lists/eval_data_list.csv"])
def test_the_list_of_2020_names_the_clips_of_all_machines(listed, place):
    clips = read_clips(listed, ground_truth=listed / place)
    assert [clip.label for clip in clips] == ["normal", "anomaly", "anomaly"]


def test_a_list_names_the_clips_of_later_editions_too(tmp_path):
    anonymous_test_clip(tmp_path)
    write_rows(
        tmp_path / "ground_truth/eval_data_list_2025.csv",
        "saw,",
        "section_00_0000.wav,section_00_target_test_anomaly_0012_id_C1_spd_2.wav",
    )
    clip = only(read_clips(tmp_path))
    assert (clip.label, clip.domain) == ("anomaly", "target")
    assert dict(clip.attributes) == {"id": "C1", "spd": "2"}


def test_ground_truth_of_another_edition_is_not_taken_in_silence(listed):
    touch(listed, "dev_data/saw/test/normal_id_00_00000000.wav")
    write_rows(listed / "other.csv", "fan", "id_01_00000007.wav,normal_id_01_00000098.wav,0")
    with pytest.raises(
        MetadataError,
        match=r"other\.csv names none of the 3 unlabelled test clips, e\.g\. fan id_01",
    ):
        read_clips(listed, ground_truth=listed / "other.csv")


# Roles


def test_roles_may_be_given_by_name(factory, caplog):
    with caplog.at_level("INFO", "fsasd.data.metadata"):
        clips = read_clips(factory, references=["bearing", "fan"], targets=["fan"])
    assert {(c.machine, c.role) for c in clips} == {("bearing", "reference"), ("fan", "target")}
    assert "neither references nor targets, not used: valve" in caplog.text


@pytest.mark.parametrize("names", ["machines", "references", "targets"])
def test_a_word_is_no_list_of_machines(factory, names):
    with pytest.raises(MetadataError, match=rf"list of {names}.*, found 'fan': write \[fan\]"):
        read_clips(factory, **{names: "fan"})
    with pytest.raises(MetadataError, match="list of references and targets, found 'fan'"):
        read_clips(factory, "fan", references=["fan"])


def test_machines_with_roles_that_are_not_there_are_named(factory):
    message = (
        r"expected the machines fan, pump, saw, valve, found bearing, fan, valve\. "
        r"Missing: pump, saw\. To use what is there, set data\.machines=\[fan,valve\]"
    )
    with pytest.raises(MetadataError, match=message):
        read_clips(factory, references=["saw", "fan", "valve"], targets=["pump"])


def test_a_subset_is_one_of_the_machines_with_roles(factory):
    with pytest.raises(MetadataError, match="'valve' is not among the references and targets: fan"):
        read_clips(factory, ["valve"], references=["fan"])


# Whole data sets


def test_the_factory_is_read_with_nothing_unknown(factory):
    clips = read_clips(factory)
    assert Counter((c.machine, c.role, c.split) for c in clips) == {
        (machine, role, split): 16
        for machine, role in (("fan", "reference"), ("valve", "reference"), ("bearing", "target"))
        for split in ("train", "test")
    }
    assert all(clip.label and clip.domain and clip.attributes for clip in clips)
    assert clips == sorted(clips, key=lambda c: (c.role, c.machine, c.split == "test", c.path.name))


def test_the_real_recordings_are_counted_as_their_readme_says(real):
    counts = Counter()
    for clip in read_clips(real):
        group = clip.domain if clip.split == "train" else clip.label
        counts[clip.machine, clip.role, clip.split, group] += 1
    expected = {}
    lines = (real.parent / "README.md").read_text().splitlines()
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1] in ("reference", "target"):
            machine, role = cells[:2]
            source, target = map(int, cells[2].split("/"))
            for key, count in (
                (("train", "source"), source),
                (("train", "target"), target),
                (("test", "normal"), int(cells[3])),
                (("test", "anomaly"), int(cells[4])),
            ):
                expected[machine, role, *key] = count
    assert len(expected) == 7 * 4
    assert counts == Counter(expected)


def test_a_clip_can_be_a_key_although_its_attributes_are_a_mapping():
    clip = read_name("fan/train/section_00_source_train_normal_0000_m-n_W.wav")
    assert len({clip, replace(clip), replace(clip, path=Path("other.wav"))}) == 2
