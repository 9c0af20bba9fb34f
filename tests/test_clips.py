import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fsasd.data import feature_file
from fsasd.data.clips import Clips, FeatureCache, PooledOnce
from fsasd.data.feature_file import read_features, write_features
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, AudioError, read
from fsasd.data.table import ClipTable
from fsasd.detectors.cmae import Image
from fsasd.settings.code import package_code


class Counting:
    """A front end that knows how often it was asked."""

    def __init__(self, factor=1):
        self.factor = factor
        self.calls = 0

    def __repr__(self):
        return f"Counting({self.factor})"

    def __call__(self, waveform):
        self.calls += 1
        return self.factor * waveform[:4]


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    return FeatureCache(tmp_path / "cache" if request.param == "disk" else None)


@pytest.fixture
def recording(make_wav):
    return Clip(make_wav(), "fan")


def test_features_are_computed_once(cache, recording):
    front_end = Counting()
    first, second = cache.get(front_end, recording), cache.get(front_end, recording)
    assert front_end.calls == 1
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, read(recording.path)[:4])


def test_another_process_finds_the_features_on_disk(tmp_path, recording):
    first, second = Counting(), Counting()
    expected = FeatureCache(tmp_path / "cache").get(first, recording)
    found = FeatureCache(tmp_path / "cache").get(second, recording)
    assert (first.calls, second.calls) == (1, 0)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert not list(tmp_path.glob("cache/**/*.partial"))


def test_an_altered_recording_is_computed_anew(cache, recording):
    front_end = Counting()
    before = cache.get(front_end, recording)
    soundfile.write(recording.path, 0.5 * np.sin(np.arange(8000) / 6), SAMPLE_RATE)
    after = cache.get(front_end, recording)
    assert front_end.calls == 2
    assert not np.array_equal(before, after)


def test_a_recording_that_is_moved_copied_or_touched_is_found_again(cache, recording, tmp_path):
    front_end = Counting()
    before = cache.get(front_end, recording)
    os.utime(recording.path, (0, 0))
    elsewhere = tmp_path / "elsewhere.wav"
    shutil.copy(recording.path, elsewhere)
    for path in (recording.path, elsewhere):
        assert cache.holds(front_end, Clip(path, "pump"))
        np.testing.assert_array_equal(cache.get(front_end, Clip(path, "pump")), before)
    assert front_end.calls == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-30],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: data[:130] + bytes([data[130] ^ 1]) + data[131:],
        lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:],
        lambda data: bytes(len(data)),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
)
def test_a_damaged_file_of_features_is_named_and_computed_anew(tmp_path, recording, damage, caplog):
    cache, front_end = FeatureCache(tmp_path / "cache"), Counting()
    before = cache.get(front_end, recording)
    (path,) = tmp_path.glob("cache/*/*.npy")
    np.testing.assert_array_equal(np.load(path), before)
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(cache.get(front_end, recording), before)
    assert f"features in {path} are damaged" in caplog.text
    assert front_end.calls == 2
    np.testing.assert_array_equal(cache.get(front_end, recording), before)
    assert front_end.calls == 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_features_of_any_shape_are_read_as_they_were_written(tmp_path, order):
    for shape in ((), (3,), (0, 4), (2, 3)):
        values = np.random.default_rng(0).normal(size=shape)
        features = np.asarray(values, np.float16, order=order)
        write_features(tmp_path / "a.npy", features)
        again = read_features(tmp_path / "a.npy")
        np.testing.assert_array_equal(again, features)
        assert (again.dtype, again.shape, again.flags.writeable) == (np.float16, shape, True)


def test_features_of_a_front_end_whose_code_was_altered_are_computed_anew(
    recording, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    cache = FeatureCache(tmp_path / "cache")

    def features(factor):
        source = "class Gain:\n    def __repr__(self): return 'Gain()'\n"
        source += f"    def __call__(self, waveform): return {factor} * waveform\n"
        (tmp_path / "gain_plugin.py").write_text(source)
        monkeypatch.delitem(sys.modules, "gain_plugin", raising=False)
        importlib.invalidate_caches()
        package_code.cache_clear()
        return cache.get(importlib.import_module("gain_plugin").Gain(), recording)

    np.testing.assert_allclose(features(20), 10 * features(2), rtol=1e-6)


def test_another_setting_of_the_front_end_is_computed_anew(cache, recording):
    once, twice = Counting(1), Counting(2)
    np.testing.assert_array_equal(cache.get(twice, recording), 2 * cache.get(once, recording))
    assert (once.calls, twice.calls) == (1, 1)


def test_log_mels_of_different_settings_do_not_meet_in_the_cache(cache, recording):
    found = [cache.get(LogMel.twfr(seconds), recording) for seconds in (0.1, 0.2, 0.1)]
    assert [log_mel.shape[1] for log_mel in found] == [4, 7, 4]


class Beginning:
    """A front end that looks at the first quarter of a second."""

    max_seconds = 0.25

    def __call__(self, waveform):
        assert len(waveform) == 4000
        return waveform[:4000]


def test_no_more_is_decoded_than_a_front_end_looks_at(cache, make_wav, monkeypatch):
    clip = Clip(make_wav(seconds=1, rate=8000), "fan")
    asked = []
    monkeypatch.setattr("fsasd.data.clips.read", lambda *a, **k: asked.append(k) or read(*a, **k))
    np.testing.assert_array_equal(cache.get(Beginning(), clip), read(clip.path)[:4000])
    assert [options["seconds"] for options in asked] == [0.25]


@pytest.mark.parametrize("front_end", [LogMel.twfr(0.3), LogMel.audioldm(), Image(32)], ids=repr)
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_features_are_those_of_the_whole_recording(cache, make_wav, front_end, rate):
    clip = Clip(make_wav(seconds=2, rate=rate), "fan")
    np.testing.assert_array_equal(cache.get(front_end, clip), front_end(read(clip.path)))


def test_a_name_that_is_not_utf_8_has_features_and_a_place_in_the_table(cache, make_wav):
    path = make_wav().rename(make_wav().with_name(os.fsdecode(b"L\xfcfter.wav")))
    clips = Clips([Clip(path, "fan")], cache)
    assert clips[0].path == path
    np.testing.assert_array_equal(next(clips.features(Counting())), read(path)[:4])


def test_a_recording_that_cannot_be_read_leaves_nothing_in_the_cache(tmp_path):
    path = tmp_path / "garbage.wav"
    path.write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"garbage\.wav"):
        FeatureCache(tmp_path / "cache").get(Counting(), Clip(path, "fan"))
    assert not list(tmp_path.glob("cache/**/*.*"))


@pytest.fixture
def clips(tmp_path):
    known = [("a", "normal", "source"), ("b", "anomaly", "target"), ("c", "normal", None)]
    return Clips(
        [
            Clip(tmp_path / f"{name}.wav", "fan", label=label, domain=domain, split="test")
            for name, label, domain in known
        ]
    )


def names(clips):
    return "".join(clip.path.stem for clip in clips)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, None), "bc"),
        ([2, 0], "ca"),
        ([], ""),
        (np.array([True, False, True]), "ac"),
        ([True, False, True], "ac"),
        (np.array([-1]), "c"),
    ],
)
def test_several_clips_are_chosen_like_in_an_array(clips, index, expected):
    chosen = clips[index]
    assert isinstance(chosen, Clips)
    assert names(chosen) == expected
    assert chosen.cache is clips.cache


@pytest.mark.parametrize("index", [0, -3, np.int64(0)])
def test_an_integer_gives_the_clip_itself(clips, index):
    assert clips[index].path.stem == "a"


def test_an_index_beyond_the_end_raises(clips):
    with pytest.raises(IndexError, match="out of bounds"):
        clips[3]
    with pytest.raises(IndexError, match="out of bounds"):
        clips[[3]]


def test_clips_are_chosen_by_what_is_known_of_them(clips):
    assert names(clips.where(label="normal")) == "ac"
    assert names(clips.where(label="normal", domain="source")) == "a"
    assert names(clips.where(domain=None)) == "c"
    assert names(clips.where(machine="pump")) == ""


def test_labels_are_one_for_anomaly(clips):
    assert clips.labels.tolist() == [0, 1, 0]


def test_a_clip_without_a_label_is_named(clips, tmp_path):
    unknown = Clips([*clips, Clip(tmp_path / "d.wav", "fan")])
    with pytest.raises(ValueError, match=r"d\.wav has no label: no ground truth"):
        _ = unknown.labels


def test_without_a_domain_a_clip_counts_as_source(clips):
    assert clips.domains.tolist() == ["source", "target", "source"]


def test_headers_of_features_are_read_one_at_a_time_and_equal_ones_once(
    make_wav, tmp_path, monkeypatch
):
    levels = [(i, 100 + i % 4) for i in range(8)]
    recordings = [Clip(make_wav(f"{i}.wav", np.full(n, i / 10)), "fan") for i, n in levels]
    clips = Clips(recordings, FeatureCache(tmp_path / "cache"))
    computed = list(clips.features(np.abs))
    reading, headers, read_header = [], [], np.lib.format.read_array_header_1_0

    def slowly(file):
        reading.append(1)
        assert len(reading) == 1
        time.sleep(0.01)
        reading.pop()
        headers.append(file.getvalue())
        return read_header(file)

    feature_file._header.cache_clear()
    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slowly)
    for again, features in zip(clips.features(np.abs), computed, strict=True):
        np.testing.assert_array_equal(again, features)
    assert len(headers) == len(set(headers)) == 4


@dataclass(frozen=True)
class Loudest:
    """A representation whose instances are equal."""

    front_end: Callable = np.abs

    def pool(self, features):
        return features.max(keepdims=True)


class Unhashable(Loudest):
    __hash__ = None


@pytest.fixture
def levels(make_wav):
    """Clips of constant level 0, 0.1, ... 0.5."""
    return Clips(Clip(make_wav(f"{i}.wav", np.full(100, i / 10)), "fan") for i in range(6))


def counted(clips, monkeypatch):
    """Note which recordings of a cache features were taken of."""
    taken, get = [], clips.cache.get

    def noted(front_end, clip):
        taken.append(clip.path.stem)
        return get(front_end, clip)

    monkeypatch.setattr(clips.cache, "get", noted)
    return taken


def test_pooled_features_come_in_the_clips_order(levels, monkeypatch):
    taken = counted(levels, monkeypatch)
    pooled = np.concatenate(levels[[3, 1, 3, 5]].pooled(Loudest()))
    np.testing.assert_allclose(pooled, [0.3, 0.1, 0.3, 0.5], atol=1e-4)
    assert sorted(taken) == ["1", "3", "5"]
    assert levels[:0].pooled(Loudest()) == []


def test_clips_are_pooled_once_if_the_cache_keeps_it(levels, monkeypatch):
    taken = counted(levels, monkeypatch)
    clips = Clips(levels, PooledOnce(levels.cache))
    for some in ([4, 2], [2, 0, 1], range(6)):
        pooled = clips[list(some)].pooled(Loudest())
        np.testing.assert_allclose(np.concatenate(pooled), 0.1 * np.array(some), atol=1e-4)
    assert sorted(taken) == list("012345")
    # Others are kept apart: another front end, and clips whose rows are of another table.
    np.testing.assert_allclose(clips[[5]].pooled(Loudest(np.square))[0], 0.25, atol=1e-4)
    np.testing.assert_allclose(Clips([clips[5]], clips.cache).pooled(Loudest())[0], 0.5, atol=1e-4)
    assert sorted(taken) == list("01234555")


def test_a_representation_that_is_not_hashable_is_computed_each_time(levels, monkeypatch):
    taken = counted(levels, monkeypatch)
    clips = Clips(levels, PooledOnce(levels.cache))
    for _ in range(2):
        np.testing.assert_allclose(clips[[1]].pooled(Unhashable())[0], 0.1, atol=1e-4)
    assert taken == ["1", "1"]


def test_a_cache_that_pools_once_is_as_the_one_behind_it(levels, tmp_path):
    behind = FeatureCache(tmp_path / "cache", channel="mean")
    once = PooledOnce(behind)
    assert (once.folder, once.channel) == (behind.folder, "mean")
    np.testing.assert_array_equal(once.read(levels[3]), read(levels[3].path))
    assert not once.holds(np.abs, levels[3])
    np.testing.assert_array_equal(once.get(np.abs, levels[3]), read(levels[3].path))
    assert once.holds(np.abs, levels[3])
    assert behind.holds(np.abs, levels[3])


def test_clips_are_added_to_clips(levels):
    both = levels[[4, 0]] + levels[[2]]
    assert [clip.path.stem for clip in both] == ["4", "0", "2"]
    others = Clips([levels[5]])
    assert [clip.path.stem for clip in levels[:1] + others] == ["0", "5"]
    assert (levels[:1] + others).cache is levels.cache
    # Rows of one table stay that, so that what a cache keeps by them is found.
    kept = Clips(levels, PooledOnce(levels.cache))
    assert kept.pooled(Loudest())[4] is (kept[[2]] + kept[[4]]).pooled(Loudest())[1]


def test_features_come_in_the_clips_order_and_from_their_cache(make_wav):
    recordings = [Clip(make_wav(f"{i}.wav", np.full(100, i / 10)), "fan") for i in range(4)]
    clips, front_end = Clips(recordings), Counting()
    levels = [features[0] for features in clips[[3, 1]].features(front_end)]
    np.testing.assert_allclose(levels, [0.3, 0.1], atol=1e-4)
    list(clips.features(front_end))
    assert front_end.calls == 4


def test_features_that_are_no_numbers_are_an_error_that_names_the_file(make_wav):
    class Logarithm:
        def __call__(self, waveform):
            return np.log(waveform)

    silent = Clip(make_wav("silent.wav", np.zeros(400)), "fan")
    cache, logarithm = FeatureCache(), Logarithm()
    with pytest.raises(AudioError, match=r"silent\.wav: its features are NaN or infinite"):
        cache.get(logarithm, silent)
    assert not cache.holds(logarithm, silent)


@pytest.fixture
def two_machines():
    rows = [("fan", "01"), ("pump", None), ("fan", None), ("fan", "00"), ("pump", "02")]
    return Clips(
        Clip(Path(f"{i}.wav"), machine, section=section, split="train" if i % 2 else "test")
        for i, (machine, section) in enumerate(rows)
    )


def test_clips_are_split_by_section_in_order(two_machines):
    split = two_machines.sections
    assert list(map(str, split)) == [
        "fan section 00", "fan section 01", "pump section 00", "pump section 02",
    ]  # fmt: skip
    assert [clip.path.stem for clip in split["fan", "00"]] == ["2", "3"]


def test_a_machine_of_some_clips_is_only_that_of_these(two_machines):
    assert [clip.path.stem for clip in two_machines.where(machine="fan", split="test")] == [
        "0",
        "2",
    ]
    some = two_machines[[4, 3]]
    assert [clip.path.stem for clip in some.where(machine="pump")] == ["4"]
    assert [clip.path.stem for clip in some.where(split="test")] == ["4"]
    assert len(some.where(machine="valve")) == 0


def test_asking_for_each_machine_in_turn_visits_a_clip_once(monkeypatch):
    visited = []
    of_kinds = ClipTable._groups

    def counted(self, group_of, rows):
        visited.append(len(rows))
        return of_kinds(self, group_of, rows)

    monkeypatch.setattr(ClipTable, "_groups", counted)
    clips = Clips(Clip(Path(f"{i}.wav"), f"m{i % 50}") for i in range(500))
    assert sum(len(clips.where(machine=f"m{i}")) for i in range(50)) == 500
    assert sum(visited) == 500
