import csv
import os
import sys
from pathlib import Path

import hydra
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st
from runs import Run

from fsasd.data import recording
from fsasd.data.captions import Captions
from fsasd.data.csv_table import is_known
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.manifest import read_folders, read_manifest, with_roles
from fsasd.data.metadata import Clip, MetadataError, read_clips

pytestmark = pytest.mark.slow

HEADER = "path,machine,split,label,domain,section,speed [rpm],load"
ROWS = [
    "press/1.wav,press,train,normal,source,00,1200,3 kN",
    "press/2.wav,press,test,normal,target,00,900,",
    "press/3.wav,press,test,anomaly,source,00,1200,3 kN",
    "mill/1.wav,mill,train,normal,,,,5 kN",
    "mill/2.wav,mill,test,,,,,5 kN",
]


@pytest.fixture
def table(tmp_path):
    """Write a manifest; the recordings are empty files, as scanning opens none."""

    def write(*rows, header=HEADER, files=("press/1", "press/2", "press/3", "mill/1", "mill/2")):
        for name in files:
            path = tmp_path / f"{name}.wav"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        path = tmp_path / "clips.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return path

    return write


# Tables


def test_a_row_says_what_is_known_of_a_recording(table, tmp_path):
    clips = read_manifest(table(*ROWS), targets=["mill"])
    assert [clip.path for clip in clips] == [tmp_path / row.split(",")[0] for row in ROWS]
    first, second, *_, last = clips
    assert (first.machine, first.role, first.split) == ("press", "reference", "train")
    assert (first.label, first.domain, first.section) == ("normal", "source", "00")
    assert dict(first.attributes) == {"speed": "1200 rpm", "load": "3 kN"}
    assert dict(second.attributes) == {"speed": "900 rpm"}
    assert (last.role, last.label, last.domain, last.section) == ("target", None, None, None)


@pytest.mark.parametrize("column", ["speed", "speed [rpm]", "speed (rpm)", "speed[ rpm ]"])
def test_a_unit_may_be_in_the_value_or_in_the_columns_name(table, column):
    value = "1200 rpm" if column == "speed" else "1200"
    row = f"press/1.wav,press,train,normal,{value}"
    (clip,) = read_manifest(table(row, header=f"path,machine,split,label,{column}"))
    assert Captions({}, {})(clip) == "This is the normal sound of a press with speed 1200 rpm."


def test_an_absolute_path_and_the_columns_in_any_order(table, make_wav):
    path = make_wav("elsewhere/a.wav")
    (clip,) = read_manifest(
        table(f" normal , {path} ,train,press", header="label,path, split ,machine")
    )
    assert (clip.path, clip.label, clip.machine) == (path, "normal", "press")


def test_no_recording_is_opened(table, monkeypatch):
    monkeypatch.setattr(recording, "decode", lambda path: pytest.fail(f"{path} was opened"))
    assert len(FirstShotDataModule.from_manifest(table(*ROWS), targets=["mill"]).captioned) == 4


CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(values=st.lists(CELL, min_size=1, max_size=5))
def test_no_value_is_lost(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("cells")
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "machine", "split", "label", "note"])
        for i, value in enumerate(values):
            (folder / f"{i}.wav").touch()
            writer.writerow([f"{i}.wav", "press", "train", "normal", value])
    clips = read_manifest(folder / "clips.csv")
    known = [value.strip() if is_known(value) else "" for value in values]
    assert [clip.attributes.get("note", "") for clip in clips] == known


# Bad tables


def test_every_bad_row_is_told_with_its_line(table):
    path = table(
        ROWS[0],
        '"press/2.wav",press,trian,normal,,,"two\nlines",',
        "press/3.wav,press,test,abnormal,north,A,,",
        "press/gone.wav,,test,normal,,,,",
        "nowhere/1.wav,press/a,test,normal,,,,",
        "press/1.wav,press,train,normal,,,,",
        "press/2.wav,press,train,normal",
        ",press,train,normal,,,,",
    )
    with pytest.raises(MetadataError) as caught:
        read_manifest(path)
    said = [line.strip() for line in str(caught.value).splitlines()]
    assert said == [
        f"{path}: 8 rows, 11 problems:",
        "line 3: split: expected train or test, found 'trian'",
        "line 5: label: expected normal or anomaly or nothing, found 'abnormal'",
        "line 5: domain: expected source or target or nothing, found 'north'",
        "line 5: section: expected digits such as 00, found 'A'",
        "line 6: machine: expected a name without '/' and '\\', found ''",
        f"line 6: path: {path.parent}/press/gone.wav does not exist",
        "line 7: machine: expected a name without '/' and '\\', found 'press/a'",
        f"line 7: path: {path.parent}/nowhere/1.wav does not exist",
        "line 8: path: press/1.wav is already in line 2",
        "line 9: expected 8 cells as in the header, found 4",
        "line 10: path: expected a file, found nothing",
    ]


def test_of_very_many_bad_rows_all_are_counted(table):
    with pytest.raises(
        MetadataError, match=r"300 rows, 300 problems(?s:.*)\.\.\. and 280 more, in lines 22-301$"
    ):
        read_manifest(table(*(f"press/{i}x.wav,press,train,normal,,,," for i in range(300))))


@given(st.sets(st.integers(0, 90), min_size=1))
def test_the_lines_of_all_bad_rows_are_told(tmp_path_factory, bad):
    folder = tmp_path_factory.mktemp("rows")
    rows = []
    for i in range(91):
        (folder / f"{i}.wav").touch()
        rows.append(f"{i}.wav,press,{'trian' if i in bad else 'train'},normal")
    (folder / "clips.csv").write_text("\n".join(["path,machine,split,label", *rows]))
    with pytest.raises(MetadataError) as caught:
        read_manifest(folder / "clips.csv")
    *words, last = str(caught.value).splitlines()[1:]
    lines = [int(line.split()[1].rstrip(":")) for line in [*words, last] if ": " in line]
    if "more" in last:
        for run in last.rpartition("in lines ")[2].split(", "):
            first, _, end = run.partition("-")
            lines += range(int(first), int(end or first) + 1)
    assert lines == [i + 2 for i in sorted(bad)]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,machine,label,speed", r"missing: split; found: path, machine, label, speed"),
        (
            "path;machine;split;label",
            r"missing: path, .*; found: path;machine;split;label\. Save it with commas",
        ),
        ("path,machine,split,label,load,load", r"a name of its own .* found: .*load, load"),
        ("path,machine,split,label,,", r"a name of its own for each column"),
    ],
)
def test_a_header_out_of_form_is_told_with_what_was_found(table, header, message):
    with pytest.raises(MetadataError, match=rf"clips\.csv: expected .*{message}"):
        read_manifest(table(header=header))


def test_a_table_without_rows_is_told_so(table):
    with pytest.raises(MetadataError, match="expected a row per recording, found none"):
        read_manifest(table())


def test_an_empty_file_has_no_columns(tmp_path):
    (tmp_path / "clips.csv").touch()
    with pytest.raises(MetadataError, match="found: none"):
        read_manifest(tmp_path / "clips.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "Maschine,Öl".encode("latin-1"),
            r"clips\.csv: expected UTF-8 text, found byte 0xd6 in line 2",
        ),
        (b'a,"b\nc', r"clips\.csv, near line 2: expected comma-separated text: "),
    ],
)
def test_what_is_no_csv_is_told_where(tmp_path, content, message):
    path = tmp_path / "clips.csv"
    path.write_bytes(b"path,machine,split,label\n" + content)
    with pytest.raises(MetadataError, match=message):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest .*gone\.csv does not exist"):
        read_manifest(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    "name", ["..", ".", "a\\b", "official score", "x" * 300, "Arithmetic Mean", "a\u200bb"]
)
def test_a_name_that_cannot_be_a_machines_is_told_with_its_line(table, name):
    with pytest.raises(MetadataError, match="line 2: machine: expected "):
        read_manifest(table(f"press/1.wav,{name},train,normal,,,,"))


@pytest.mark.parametrize("name", ["NA", "nan", "None", "null", "101", "1e3", "fan[1]", "{}"])
def test_a_machine_may_be_called_like_nothing_or_a_number(table, name):
    rows = [f"press/1.wav,{name},train,normal,,,,", f"press/2.wav,{name},test,,,,,"]
    assert {clip.machine for clip in read_manifest(table(*rows), [name])} == {name}


@pytest.mark.parametrize("twin", ["Press", "PRESS"])
def test_machines_that_differ_in_case_only_are_refused(table, twin):
    path = table("press/1.wav,press,train,normal,,,,", f"press/2.wav,{twin},test,anomaly,,,,")
    with pytest.raises(MetadataError, match=f"line 3: machine: '{twin}' differs in case.*'press'"):
        read_manifest(path)


def test_machines_whose_accents_are_encoded_otherwise_are_refused(table):
    rows = ["press/1.wav,p\u00f6mp,train,normal,,,,", "press/2.wav,po\u0308mp,test,,,,,"]
    with pytest.raises(MetadataError, match=r"line 3: machine: 'po\\u0308mp' differs in"):
        read_manifest(table(*rows))
    (clip,) = read_manifest(table(rows[1]), ["p\u00f6mp"])
    assert clip.machine == "p\u00f6mp"


@pytest.mark.parametrize("section", ["0", "00", "000", "0.0"])
def test_a_section_has_one_spelling(table, section):
    (clip,) = read_manifest(table(f"press/1.wav,press,train,normal,,{section},,"))
    assert clip.section == "00"


def test_windows_separates_folders_by_backslashes(table, tmp_path):
    rows = ["press\\1.wav,press,train,normal,,,,", "press/1.wav,press,train,normal,,,,"]
    assert [clip.path for clip in read_manifest(table(rows[0]))] == [tmp_path / "press/1.wav"]
    with pytest.raises(MetadataError, match=r"line 3: path: press/1\.wav is already in line 2"):
        read_manifest(table(*rows))


def test_a_path_that_no_file_can_have_is_told(table):
    for path in ("x" * 300 + "/a.wav", "y" * 5000 + "/b/c.wav", "press"):
        with pytest.raises(MetadataError, match=f"line 2: path: .*{path}.* does not exist"):
            read_manifest(table(f"{path}1,press,train,normal,,,,"))


def test_a_manifest_lies_in_the_folder_of_the_command(table, tmp_path, monkeypatch):
    table(
        "press/1.wav,press,train,normal,,,,", "here.wav,press,test,,,,,", files=["press/1", "here"]
    )
    monkeypatch.chdir(tmp_path)
    found = read_manifest("clips.csv")
    assert [clip.path for clip in found] == [Path("press/1.wav"), Path("here.wav")]


@pytest.mark.parametrize("cell", ["nan", "N/A", "-", "None", "noAttribute"])
def test_a_sign_for_the_unknown_is_no_attribute(table, cell):
    (clip,) = read_manifest(table(f"press/1.wav,press,train,normal,,,{cell},{cell}"))
    assert clip.attributes == {}


def test_a_spreadsheet_may_save_utf_16(table):
    path = table(*ROWS)
    expected = read_manifest(path, ["mill"])
    path.write_text(path.read_text(), encoding="utf-16")
    assert read_manifest(path, ["mill"]) == expected


# Parquet


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "clips.parquet").touch()
    with pytest.raises(MetadataError, match=r"needs pyarrow.*pip install 'fsasd\[parquet\]'"):
        read_manifest(tmp_path / "clips.parquet")


def test_what_is_no_parquet_file_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "clips.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(MetadataError, match=r"clips\.parquet: expected a Parquet file: "):
        read_manifest(tmp_path / "clips.parquet")


def test_parquet_is_read_like_csv(table, tmp_path):
    pytest.importorskip("pyarrow")
    path = table(*ROWS)
    frame = pd.read_csv(path, dtype={"section": str})
    assert frame["speed [rpm]"].dtype == float
    frame["speed [rpm]"] = frame["speed [rpm]"].astype("Int64")
    frame.to_parquet(tmp_path / "clips.parquet")
    again = read_manifest(tmp_path / "clips.parquet", targets=["mill"])
    assert again == read_manifest(path, targets=["mill"])
    frame.loc[1, "split"] = "trian"
    frame.to_parquet(tmp_path / "clips.parquet")
    with pytest.raises(MetadataError, match="row 2: split: expected train or test, found 'trian'"):
        read_manifest(tmp_path / "clips.parquet")


# Roles


def clip(machine="press", split="train", label="normal", role=None):
    return Clip(Path(f"{machine}.wav"), machine, role=role, split=split, label=label)


@pytest.mark.parametrize(
    ("clips", "role"),
    [
        ([clip()], "target"),
        ([clip(), clip(split="test", label=None)], "target"),
        ([clip(), clip(label="anomaly")], "reference"),
        ([clip(label="anomaly"), clip(split="test", label="anomaly")], "reference"),
        ([clip(role="reference")], "reference"),
        ([clip(), clip(split="test", label="anomaly", role="target")], "target"),
    ],
)
def test_a_role_that_is_certain_need_not_be_said(clips, role):
    assert {c.role for c in with_roles(clips)} == {role}


def test_anomalies_to_test_on_are_not_taken_for_anomalies_to_learn_from():
    clips = [clip("mill"), clip(), clip(split="test", label="anomaly")]
    with pytest.raises(MetadataError, match=r"^press: the anomalies are all in the test split\."):
        with_roles(clips)
    assert {c.machine: c.role for c in with_roles(clips, ["press"])} == {
        "mill": "reference",
        "press": "target",
    }


def test_targets_come_before_the_column():
    assert [c.role for c in with_roles([clip(role="reference")], ["press"])] == ["target"]


def test_a_machine_has_one_role():
    with pytest.raises(MetadataError, match="press: expected one role for all of its clips"):
        with_roles([clip(role="target"), clip(role="reference")])


def test_a_mistyped_target_is_told_the_near_miss():
    with pytest.raises(MetadataError, match=r"'pres' is not among the machines: press\. Did you"):
        with_roles([clip()], ["pres"])


def test_a_word_is_no_list_of_targets():
    with pytest.raises(MetadataError, match=r"list of machines, found 'press': write \[press\]"):
        with_roles([clip()], "press")


# Folders


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folders_say_machine_split_and_label(tmp_path):
    touch(
        tmp_path,
        "press/train/normal/b.wav",
        "press/train/normal/a.FLAC",
        "press/train/anomaly/c.wav",
        "press/test/d.wav",
        "press/test/._d.wav",
        "press/notes.txt",
        ".cache/x/y.wav",
        "readme.txt",
    )
    seen = [(c.path.name, c.machine, c.role, c.split, c.label) for c in read_folders(tmp_path)]
    assert seen == [
        ("d.wav", "press", "reference", "test", None),
        ("c.wav", "press", "reference", "train", "anomaly"),
        ("a.FLAC", "press", "reference", "train", "normal"),
        ("b.wav", "press", "reference", "train", "normal"),
    ]
    assert {c.role for c in read_folders(tmp_path, ["press"])} == {"target"}


def test_everything_that_lies_elsewhere_is_told(tmp_path):
    touch(
        tmp_path, "press/Train/normal/a.wav", "press/train/b.wav", "press/test/ok/c.wav",
        "press/d.wav",
    )  # fmt: skip
    with pytest.raises(MetadataError) as caught:
        read_folders(tmp_path)
    assert [line.strip() for line in str(caught.value).splitlines()] == [
        f"{tmp_path}: <machine>/<train|test>/<normal|anomaly>, 4 problems:",
        f"{tmp_path}/press/Train: expected train or test",
        f"{tmp_path}/press/test/ok: expected normal or anomaly",
        f"{tmp_path}/press/train/b.wav: expected train/normal or train/anomaly",
        f"{tmp_path}/press/d.wav: expected a folder train or test",
    ]


def test_folders_without_recordings_are_told_so(tmp_path):
    touch(tmp_path, "press/train/normal/readme.txt")
    with pytest.raises(MetadataError, match=r"expected recordings \(\.wav, \.flac.*found none"):
        read_folders(tmp_path)


def test_folders_below_the_label_are_an_attribute(tmp_path, caplog):
    touch(
        tmp_path, "pump/test/anomaly/leak/d.wav", "pump/test/anomaly/leak/cold/e.ogg",
        "pump/train/normal/monday/b.wav", "pump/train/normal/a.aif",
    )  # fmt: skip
    found = {c.path.name: dict(c.attributes) for c in read_folders(tmp_path, ["pump"])}
    assert found == {
        "a.aif": {},
        "b.wav": {"folder": "monday"},
        "d.wav": {"folder": "leak"},
        "e.ogg": {"folder": "leak/cold"},
    }
    assert not caplog.messages


def test_the_root_may_be_the_folder_of_the_command(tmp_path, caplog, monkeypatch):
    touch(tmp_path, "pump/train/normal/a.wav", "pump/train/normal/monday/b.wav")
    monkeypatch.chdir(tmp_path)
    assert [clip.path.name for clip in read_folders(".")] == ["a.wav", "b.wav"]
    assert not caplog.messages


def test_audio_that_is_left_out_is_told(tmp_path, caplog):
    touch(tmp_path, "pump/train/normal/a.wav", "pump/train/normal/b.m4a", "loose.wav")
    assert len(read_folders(tmp_path)) == 1
    (line,) = caplog.messages
    assert "2 files that look like audio left out (.m4a cannot be read): loose.wav, pump/" in line


def test_folders_of_other_programs_are_skipped(tmp_path, caplog):
    touch(tmp_path, "pump/train/normal/a.wav")
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle"):
        touch(
            tmp_path, f"{name}/x.wav", f"pump/{name}/x.wav", f"pump/train/{name}/x.wav",
            f"pump/train/normal/{name}/x.wav", f"{name}/train/normal/x.wav",
        )  # fmt: skip
    assert [clip.path.name for clip in read_folders(tmp_path)] == ["a.wav"]
    assert not caplog.messages


@pytest.mark.parametrize("names", [("Pump", "pump"), ("pump", "pump "), ("\u00f6", "o\u0308")])
def test_folders_that_are_taken_for_each_other_are_refused(tmp_path, names):
    touch(tmp_path, *(f"{name}/train/normal/a.wav" for name in names))
    with pytest.raises(MetadataError, match="differs in case, spaces or accents' encoding only"):
        read_folders(tmp_path)


def test_a_folder_that_cannot_be_a_machine_is_refused(tmp_path):
    touch(tmp_path, "official score/train/normal/a.wav")
    with pytest.raises(MetadataError, match="machine: expected another name than those of rows"):
        read_folders(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data root .*gone does not exist"):
        read_folders(tmp_path / "gone")


# Cases that people have met


def test_machines_may_be_numbers(shared):
    cases = shared / "cases"
    manifest = f"data.manifest={cases}/machine-numbers/clips.csv"
    cfg = configure("data=manifest", manifest, "data.targets=[101]")
    assert hydra.utils.instantiate(cfg.data, _convert_="all").targets == ["101"]


def test_case_only_sections_and_nested_folders_as_people_have_them(shared):
    cases = shared / "cases"
    with pytest.raises(MetadataError, match="line 4: machine: 'Motor' differs in case"):
        read_manifest(cases / "case-only/clips.csv", ["motor"])
    clips = read_manifest(cases / "sections/clips.csv", ["motor"])
    assert {clip.section for clip in clips} == {"01"}
    clips = read_folders(cases / "nested/plant", ["motor"])
    found = {clip.path.name: clip.attributes.get("folder") for clip in clips}
    assert found == dict.fromkeys(["a.wav", "c.wav", "e.wav"]) | {
        "b.wav": "monday",
        "d.wav": "leak",
    }


# Whole runs


def configure(*overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", list(overrides))


def write_manifest(path, clips, targets_column=True):
    """The table of a data set, its clips in the same order."""
    keys = sorted({key for c in clips for key in c.attributes})
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ["path", "machine", "split", "label", "domain", "section"]
        writer.writerow([*columns, *(["role"] if targets_column else []), *keys])
        for c in clips:
            known = [os.path.relpath(c.path, path.parent), c.machine, c.split, c.label]
            known += [c.domain, c.section, *([c.role] if targets_column else [])]
            writer.writerow([*known, *(c.attributes.get(key) for key in keys)])
    return path


def test_the_configurations_read_what_they_name(factory, tmp_path):
    manifest = write_manifest(tmp_path / "clips.csv", read_clips(factory), targets_column=False)
    cfg = configure("data=manifest", f"data.manifest={manifest}", "data.targets=[bearing]")
    data = hydra.utils.instantiate(cfg.data, _convert_="all")
    assert data.targets == ["bearing"]
    root = touch(tmp_path / "folders", "press/train/normal/a.wav", "press/test/b.wav")
    cfg = configure("data=folder", f"data.root={root}")
    assert hydra.utils.instantiate(cfg.data, _convert_="all").targets == ["press"]


def keys(*overrides):
    options = ["generator=none", "detector=stgram_mfn", "data=manifest", *overrides]
    run = Run(configure(*options), Path("nowhere"))
    return run.keys("train"), run.keys("detect")


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, "lathe"), (2, "test"), (3, ""), (4, "target"), (5, "01"), (6, "1300"), (7, "")],
)
def test_a_stage_is_run_anew_when_the_manifest_says_something_else(table, place, value):
    rows = [ROWS[0], *ROWS[3:]]
    path = table(*rows)
    before = keys(f"data.manifest={path}")
    assert before == keys(f"data.manifest={path}")
    cells = rows[0].split(",")
    cells[place] = value
    path.write_text("\n".join([HEADER, ",".join(cells), *rows[1:]]) + "\n")
    after = keys(f"data.manifest={path}")
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_a_stage_is_run_anew_for_another_channel(table):
    path = table(*ROWS)
    near, far = (
        keys(f"data.manifest={path}", "data.targets=[mill]", f"data.channel={channel}")
        for channel in ("near", "far")
    )
    assert all(one != other for one, other in zip(near, far, strict=True))


@pytest.mark.nightly
def test_a_manifest_gives_the_scores_of_the_dcase_layout(real, tmp_path):
    machines = ["pump", "BLDCMotor"]
    manifest = write_manifest(tmp_path / "clips.csv", read_clips(real, machines))
    layout = first_shot(
        tmp_path / "layout",
        "data=dcase",
        f"data.root={real}",
        f"data.machines=[{','.join(machines)}]",
    )
    listed = first_shot(tmp_path / "listed", "data=manifest", f"data.manifest={manifest}")
    for name in ("captions.csv", "synthetic/manifest.csv", "selection.csv", "clips.csv"):
        expected, found = (pd.read_csv(folder / name) for folder in (layout, listed))
        # A manifest has no labels to split; its paths are as it writes them.
        told = [column for column in found if column not in ("raw_label", "path", "source")]
        pd.testing.assert_frame_equal(found[told], expected[told])
    assert len(found) == 60
    assert set(found["label"]) == {"normal", "anomaly"}
    assert found["score"].nunique() > 30


def first_shot(folder, *overrides):
    options = ["generator=transforms", "stages=[synthesise,detect]", "synthesis.clips_per_label=6"]
    options += [*overrides, "trainer.enable_progress_bar=false", f"store={folder}_store"]
    Run(configure("experiment=first_shot", *options), folder)()
    return folder
