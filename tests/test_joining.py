"""Several data sets read as one; recordings that clips were cut from; types and sites."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from fsasd.data.clips import Clips
from fsasd.data.content import content_hash
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.description import describe_clips
from fsasd.data.manifest import read_folders, read_manifest
from fsasd.data.metadata import Clip, MetadataError, read_clips

TRAIN = "train/section_00_source_train_normal_0000_m-n_W.wav"
TEST = "test/section_00_0000.wav"


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def roots(tmp_path):
    first = touch(tmp_path / "z", f"dev_data/fan/{TRAIN}", f"eval_data/saw/{TRAIN}")
    second = touch(tmp_path / "a", f"dev_data/pump/{TRAIN}", f"eval_data/saw/{TEST}")
    return [first, second]


def test_machines_of_several_roots_are_read_as_of_one(roots):
    clips = read_clips(roots)
    assert [clip.machine for clip in clips] == ["fan", "pump", "saw", "saw"]
    assert [clip.split for clip in clips[2:]] == ["train", "test"]
    assert read_clips(roots[:1]) == read_clips(str(roots[0]))
    some = read_clips(roots, machines=["pump", "saw"], references=["pump", "fan"], targets=["saw"])
    assert [clip.machine for clip in some] == ["pump", "saw", "saw"]
    with pytest.raises(MetadataError, match=r"'pum' is not among the machines under .*z, .*a: fan"):
        read_clips(roots, machines=["pum"])


def test_each_root_has_its_own_ground_truth(roots):
    for root, label in zip(roots, "01", strict=True):
        touch(root, f"eval_data/only_{root.name}/{TEST}")
        name = f"ground_truth/ground_truth_data/ground_truth_only_{root.name}_section_00_test.csv"
        touch(root, name)
        (root / name).write_text(f"section_00_0000.wav,{label}\n")
    labels = {clip.machine: clip.label for clip in read_clips(roots) if "only" in clip.machine}
    assert labels == {"only_z": "normal", "only_a": "anomaly"}


def test_two_roots_with_clips_of_one_machine_section_and_split_are_refused(roots):
    touch(roots[1], f"dev_data/fan/{TRAIN}")
    with pytest.raises(MetadataError, match=r"fan section 00: train clips in both .*z and .*a\."):
        read_clips(roots)
    with pytest.raises(MetadataError, match="fan section 00: train clips in both"):
        read_folders([touch(Path(root), "fan/train/normal/a.wav").as_posix() for root in
                      (roots[0] / "x", roots[0] / "y")])  # fmt: skip


def test_several_tables_are_read_as_one(tmp_path):
    touch(tmp_path, "a/1.wav", "b/1.wav")
    header = "path,machine,split,label,section"
    (tmp_path / "a/clips.csv").write_text(f"{header}\n1.wav,mill,train,normal,0\n")
    (tmp_path / "b/clips.csv").write_text(f"{header}\n1.wav,mill,train,normal,1\n")
    tables = [tmp_path / "a/clips.csv", tmp_path / "b/clips.csv"]
    clips = read_manifest(tables)
    assert [clip.path for clip in clips] == [tmp_path / "a/1.wav", tmp_path / "b/1.wav"]
    tables[1].write_text(f"{header}\n1.wav,mill,train,normal,0\n")
    with pytest.raises(MetadataError, match=r"mill section 00: train clips in both .*a/clips\.csv"):
        read_manifest(tables)


def test_the_configuration_takes_lists_of_roots(roots):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        joined = [str(root) for root in roots]
        cfg = compose("config", ["data=dcase", f"data.root=[{','.join(joined)}]"]).data
        cfg.cache = None
    assert instantiate(cfg, _convert_="all").references == ["fan", "pump"]


# Recordings, types and sites


@pytest.fixture
def table(tmp_path):
    def write(*rows):
        names = [row.split(",")[0] for row in rows]
        touch(tmp_path, *names)
        for name in names:
            (tmp_path / name).write_text(name)
        header = "path,machine,split,label,recording,type,site"
        path = tmp_path / "clips.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return write


def test_a_table_says_recording_type_and_site(table):
    path = table(
        "1.wav,fan_2,train,normal,monday,fan,north", "2.wav,fan_2,train,normal,monday,,-",
        "3.wav,mill,train,normal,n/a,,", "4.wav,mill,train,normal,monday,,",
        "5.wav,mill,train,normal,,,",
    )  # fmt: skip
    clips = Clips(read_manifest(path))
    assert [clip.recording for clip in clips] == ["monday", "monday", None, "monday", None]
    assert clips[0].attributes == {}
    ids = clips.recordings.tolist()
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert ids[2] == content_hash(clips[2].path)
    assert clips[[4, 2]].recordings.tolist() == [ids[4], ids[2]]
    data = FirstShotDataModule(clips)
    assert data.types == {"fan_2": "fan", "mill": "mill"}
    assert data.sites == {"fan_2": "north"}


def test_copies_are_of_one_recording(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(b"the same")
    clips = Clips([Clip(tmp_path / f"{name}.wav", "fan") for name in "abcd"])
    first, second, *absent = clips.recordings
    assert first == second
    assert absent == [str(tmp_path / "c.wav"), str(tmp_path / "d.wav")]


@pytest.mark.parametrize("field", ["type", "site"])
def test_a_machine_has_one_type_and_one_site(table, field):
    values = {"type": ("fan,north", "saw,north"), "site": ("fan,north", "fan,south")}[field]
    path = table(*(f"{i}.wav,m,train,normal,,{value}" for i, value in enumerate(values)))
    with pytest.raises(
        MetadataError, match=rf"m: expected one {field} for all .*/0\.wav and .*/1\.wav"
    ):
        read_manifest(path)


def test_types_and_sites_may_be_configured(tmp_path):
    clips = [Clip(tmp_path / "a.wav", "fan", type="x", site="y"), Clip(tmp_path / "b.wav", "101")]
    data = FirstShotDataModule(clips, types={"101": "fan", "fan": "fan"}, sites={101: "north"})
    assert data.types == {"101": "fan", "fan": "fan"}
    assert data.sites == {"101": "north", "fan": "y"}
    with pytest.raises(MetadataError, match="'fann' is not among the machines: 101, fan"):
        FirstShotDataModule(clips, types={"fann": "fan"})


def test_types_and_sites_are_in_no_key_but_recordings_are(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"a")

    def description(**known):
        return describe_clips(Clips([Clip(tmp_path / "a.wav", "fan", **known)]))

    assert description(type="fan", site="north") == description()
    assert description(recording="monday") != description()
