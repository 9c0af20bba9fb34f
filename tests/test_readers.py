"""Files from outside: whatever they hold, a reader returns a value or names the file.

For longer, and by what the inputs reach of the code: ``python -m benchmarks.fuzz``.
"""

import json
import struct
import zipfile

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fsasd
from benchmarks.mutations import mutated
from benchmarks.readers import READERS
from fsasd.data.captions import Captions
from fsasd.data.check.likeness import Profile
from fsasd.data.download.archive import unpack
from fsasd.data.download.folder import DataFolder
from fsasd.data.download.transfer import DownloadError
from fsasd.data.log_mel import LogMel
from fsasd.data.manifest import read_manifest
from fsasd.data.metadata import read_clips
from fsasd.data.names import MetadataError
from fsasd.data.recording import AudioError, read
from fsasd.deployment.about import About
from fsasd.detectors.saved import NotAModelError
from fsasd.evaluation.submission.evaluation import evaluate
from fsasd.evaluation.submission.meta import meta_problems
from fsasd.report.results import Results, read_frame
from fsasd.report.runs.status import Status, Sweep
from fsasd.settings.files import read_yaml
from fsasd.store.provenance import Provenance, StoreError

SLOW = {
    "detector.json of a network", "checkpoint", "AudioLDM checkpoint",
    "clips.csv", "metrics.csv", "costs.csv", "failed.csv",
    ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "status.json", "sweep.json",
}  # fmt: skip
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A valid folder of each reader, and valid contents of its file; written when asked for."""
    known = {}

    def folder_of(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("reader")
            known[name] = folder, READERS[name].seeds(folder)
        return known[name]

    return folder_of


@pytest.fixture
def folder(folders, request):
    """The folder of the reader that is the parameter, and the path of its file, valid."""
    place, contents = folders(request.param)
    path = place / READERS[request.param].file
    path.write_bytes(contents[0])
    yield place, path
    path.write_bytes(contents[0])


def of(name):
    return pytest.mark.parametrize("folder", [name], indirect=True)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in READERS]
)
def test_whatever_a_file_holds_is_read_or_named(folders, name):
    reader, (folder, contents) = READERS[name], folders(name)

    @settings(
        max_examples=12, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(content=st.sampled_from(contents), rng=st.randoms())
    def check(content, rng):
        assert reader.error(folder, content) is None
        assert reader.fault(folder, mutated(content, rng, reader.words)) is None

    check()


# What fuzzing has found.


@of("eval_data_list")
def test_a_label_of_a_list_that_is_none_is_named_with_its_row(folder):
    place, path = folder
    path.write_text("pump,,\nid_00_00000000.wav,normal_id_00_00000000.wav,maybe\n")
    with pytest.raises(MetadataError, match=r"eval_data_list\.csv, row 2: .*found 'maybe'"):
        read_clips(place)


@of("scores")
def test_a_row_without_a_name_is_named_with_its_file(folder):
    place, path = folder
    path.write_text(path.read_text().replace("section_00_0001.wav", "."))
    with pytest.raises(ValueError, match=r"anomaly_score_pump_section_00_test\.csv"):
        evaluate(place / "scores", place / "truth", 0)


@pytest.mark.parametrize(
    "damage",
    [
        (b"target", b"\x80arget"),
        (b"PAR1", b"PAR2"),
        # The number of rows of a group, for which 275 GB were asked for.
        (b"\x16\x02&\x08\x16", b"\x16\x80\x80\x80\x80"),
    ],
)
def test_a_damaged_parquet_file_is_named(tmp_path, damage):
    path = tmp_path / "clips.parquet"
    columns = {"path": "a.wav", "machine": "fan", "label": "normal", "role": "target"}
    pd.DataFrame({"split": ["train"], **columns}).to_parquet(path, compression=None)
    path.write_bytes(path.read_bytes().replace(*damage))
    with pytest.raises(MetadataError, match=r"clips\.parquet: expected a Parquet file"):
        read_manifest(path)


def test_a_parquet_file_of_more_rows_than_bytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "clips.parquet"
    columns = {"path": "a.wav", "machine": "fan", "split": "train", "label": "normal"}
    pd.DataFrame(columns, range(100_000)).to_parquet(path, compression="zstd")
    with pytest.raises(MetadataError, match=r"clips\.parquet: .*100,000 rows, which can have no"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("n_fft", 2**31, "n_fft=2147483648: expected a whole number from 1 to 65536"),
        ("pad", 2**31, "pad=2147483648: expected a whole number from 0 to 65536"),
        ("hop", 1, "hop=1: expected 16 or more, a 64th of n_fft=1024"),
        ("n_mels", 65_536, "n_mels=65536: expected 513 at most, as n_fft=1024 has 513 freq"),
        ("max_seconds", 1e308, r"max_seconds=1e\+308: expected a number above 0 and below 3600"),
    ],
)
@of("detector.json")
def test_a_detector_does_not_take_all_the_memory(folder, setting, value, message):
    place, path = folder
    about = json.loads(path.read_text())
    about["params"]["representation"]["params"]["front_end"]["params"][setting] = value
    path.write_text(json.dumps(about))
    with pytest.raises(NotAModelError, match=message):
        fsasd.load(place)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (65_536, r"the array layers.0.weight of the shape \(128, 8388608\), found \(128, 128\)"),
        (65_537, "frames=65537: expected a whole number from 1 to 65536"),
    ],
)
@of("detector.json of a network")
def test_a_network_of_another_size_than_its_weights_takes_no_memory(folder, frames, message):
    place, path = folder
    about = json.loads(path.read_text())
    about["params"]["frames"] = frames
    path.write_text(json.dumps(about))
    with pytest.raises(NotAModelError, match=message):
        fsasd.load(place).score([place / "a.wav"])


def test_filters_take_no_more_memory_than_they_say():
    assert LogMel(n_fft=65_536, hop=1024, n_mels=255).n_mels == 255
    with pytest.raises(ValueError, match="n_mels=256: expected 255 at most, as n_fft=65536 has 32"):
        LogMel(n_fft=65_536, hop=1024, n_mels=256)


@of("detector.json of TWFR-GMM")
def test_a_number_beyond_all_floats_is_no_setting(folder):
    place, path = folder
    about = json.loads(path.read_text())
    about["params"]["r"] = 10**400
    path.write_text(json.dumps(about))
    with pytest.raises(NotAModelError, match=r"r=10+: expected a number of 0 or more"):
        fsasd.load(place)


def test_a_front_end_has_no_more_frames_than_it_says():
    assert LogMel(n_fft=1024, hop=16).hop == 16
    with pytest.raises(ValueError, match="hop=15: expected 16 or more"):
        LogMel(n_fft=1024, hop=15)


@of("decision.json")
def test_a_threshold_beyond_all_floats_is_named(folder):
    place, path = folder
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 10**400}))
    with pytest.raises(NotAModelError, match=r"decision\.json: expected a finite number as"):
        fsasd.load(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": "loud"}, "level: expected a list of 2, found 'loud'"),
        ({"level": []}, r"level: expected a list of 2, found \[\]"),
        ({"seconds": [1, None]}, "seconds: expected a number, found None"),
        ({"median_level": 10**400}, "median_level: expected a number"),
        ({"lowest": {"a": 1}}, "lowest: expected a list, found"),
        ({"lowest": [0.0] * 17}, "expected a level of each of 16 bands"),
        ({"loud": 1}, "found also 'loud'"),
    ],
)
@of("recordings.json")
def test_a_profile_that_is_none_is_named(folder, change, message):
    place, path = folder
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"recordings.json: expected a profile .*{message}"):
        Profile.load(place)


@of("about.json")
def test_what_is_known_of_a_detector_has_its_types(folder):
    place, path = folder
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training": {"clips": "many"}}))
    with pytest.raises(NotAModelError, match=r"training\.clips: expected a whole number, found"):
        About.read(place)


def test_a_header_that_is_longer_than_its_file_is_refused(tmp_path):
    path = tmp_path / "a.au"
    path.write_bytes(b".snd" + struct.pack(">5I", 0x7FFF, 0xFFFF0003, 3, 16_000, 1) + bytes(99))
    with pytest.raises(AudioError, match=r"a\.au: holds no samples"):
        read(path)


@pytest.mark.parametrize(
    ("machines", "attributes", "message"),
    [
        ({"fan": None}, {}, "captions of 'fan': expected its name, or phrases, found None"),
        ({"fan": {"name": 5}}, {}, "captions of 'fan': expected a text as its name, found 5"),
        ({"fan": "a fan"}, {"spd": None}, "phrase 'None' of attribute 'spd' has no {}"),
    ],
)
def test_a_phrase_that_is_no_text_is_named(machines, attributes, message):
    with pytest.raises(ValueError, match=message):
        Captions(machines, attributes)


def test_a_zip_whose_files_begin_before_it_is_named(tmp_path):
    path = tmp_path / "dev_fan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fan/train/a.wav", b"abc")
    content = bytearray(path.read_bytes())
    # Where the end of the file says that its list of files is.
    content[-6:-2] = struct.pack("<I", len(content))
    path.write_bytes(content)
    with pytest.raises(DownloadError, match=r"dev_fan\.zip: expected a zip file, found damage"):
        unpack(path, tmp_path / "fan", "fan")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_is_not_decompressed_where_that_may_take_all_the_memory(tmp_path, method):
    path = tmp_path / "dev_fan.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("fan/train/a.wav", bytes(1000))
    with pytest.raises(DownloadError, match=rf"found a compression \(method {method}\) other than"):
        unpack(path, tmp_path / "fan", "fan")


def test_the_edition_of_a_folder_that_is_no_text_is_another(tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/edition.txt").write_bytes(b"\xff")
    (tmp_path / "archives/dev_fan.zip").touch()
    with pytest.raises(DownloadError, match="dcase2023 has machines of the same names"):
        DataFolder(tmp_path, "dcase2023")


@of("provenance.json")
def test_a_provenance_of_lists_in_lists_is_damaged(folder):
    _, path = folder
    path.write_text(DEEP)
    with pytest.raises(StoreError, match=r"provenance\.json.*lists or objects in each other"):
        Provenance.read(path)


def column(name, values):
    return lambda folder: (
        pd.read_csv(folder / name).assign(**values).to_csv(folder / name, index=False)
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "clips.csv").write_bytes(b"\xd3\xff"), "clips.csv: expected a table"),
        (lambda run: (run / "clips.csv").write_text('machine\n"'), "clips.csv: expected a table"),
        (lambda run: (run / "clips.csv").write_text(""), "clips.csv: expected a table"),
        (lambda run: (run / "costs.csv").write_text("machine\n"), "costs.csv: expected the column"),
        (column("costs.csv", {"parameters": "many"}), "costs.csv: expected numbers as parameters"),
        (lambda run: (run / "metrics.csv").write_text(
            (run / "metrics.csv").read_text().replace("official score", "official")
        ), "metrics.csv: expected the rows .* missing: official score"),
    ],
)  # fmt: skip
def test_a_table_of_a_run_that_is_damaged_is_named(tmp_path, damage, message):
    READERS["metrics.csv"].write(tmp_path)
    damage(tmp_path / "0")
    with pytest.raises(ValueError, match=message):
        Results(tmp_path / "0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("&a [*a]", "found an alias"),
        ("!!int ''", "expected YAML"),
        ("2026-13-01", "expected YAML"),
        (DEEP, "expected YAML"),
        ("- a", "expected an object, found a list"),
        ("\ud800", "expected YAML"),
        ("!!python/object:os.system {}", "expected YAML"),
    ],
)
def test_yaml_that_is_none_is_named(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=rf"config\.yaml: .*{message}"):
        read_yaml(path, dict)
    assert str(path) in meta_problems(path, "Kim_CAU_task2_1")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "1"}, "number: expected a whole number"),
        ({"overrides": "seed=0"}, "overrides: expected a list"),
        ({"started": "now"}, "started: expected a time"),
        ({"started": "2026-01-01"}, "started: expected a time"),
        ({"process": "1 2 3"}, "process: expected"),
        ({"overrides": ["\ud800"]}, r"overrides: expected a text, found '\\ud800'"),
    ],
)
def test_a_status_that_is_none_is_named(tmp_path, change, message):
    status = Status.begin("2026-01-01T00:00:00+00:00", 0, [])
    status.write(tmp_path)
    path = tmp_path / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"status\.json: .*{message}"):
        Status.read(tmp_path)


def test_a_sweep_of_more_jobs_than_there_can_be_is_named(tmp_path):
    Sweep("2026-01-01T00:00:00+00:00", [], 9, None).write(tmp_path)
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text().replace("9", str(10**12)))
    with pytest.raises(ValueError, match=r"sweep\.json: .*n_jobs: expected"):
        Sweep.read(tmp_path)


def test_a_table_of_numbers_may_have_no_rows(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("machine,section,parameters,fit_seconds,score_ms\n")
    assert read_frame(path).empty
    path.write_text(f"machine,section,parameters\npump,00,{10**30}\n")
    assert read_frame(path)["parameters"].tolist() == [1e30]
