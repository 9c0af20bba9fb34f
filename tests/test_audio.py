import logging
import os
import time

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsasd.data import audio
from fsasd.data.audio import SAMPLE_RATE, AudioError, Clips, FeatureCache, LogMel, identity, read
from fsasd.data.metadata import Clip
from fsasd.detectors.twfr_gmm import twfr

FRONT_ENDS = {"twfr": LogMel.twfr(), "audioldm": LogMel.audioldm()}


def sine(hz, seconds=0.5, rate=SAMPLE_RATE):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


# Reading


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_recording_is_read_as_it_was_written(make_wav, suffix):
    waveform = sine(440)
    read_back = read(make_wav(f"clip.{suffix}", waveform))
    assert read_back.dtype == np.float32
    assert read_back.shape == waveform.shape
    np.testing.assert_allclose(read_back, waveform, atol=1 / 2**15)


def test_another_rate_is_resampled_and_told_once(make_wav, caplog, monkeypatch):
    monkeypatch.setattr(audio, "_rates_told", set())  # other tests have such clips, too
    rate = 24_000
    paths = [make_wav(f"{i}.wav", sine(440, rate=rate), rate=rate) for i in range(3)]
    with caplog.at_level(logging.WARNING, "fsasd.data.audio"):
        waveforms = [read(path) for path in paths]
    assert [record.getMessage() for record in caplog.records] == [
        f"{paths[0]} and others have 24000 Hz: resampling to 16000 Hz"
    ]
    inner = slice(200, -200)
    for waveform in waveforms:
        assert waveform.dtype == np.float32
        np.testing.assert_allclose(waveform[inner], sine(440)[inner], atol=2e-3)


@pytest.mark.parametrize(("channel", "hz"), [(0, 440), (1, 1000)])
def test_a_channel_may_be_chosen(make_wav, channel, hz):
    path = make_wav("stereo.wav", np.stack([sine(440), sine(1000)], axis=1))
    np.testing.assert_allclose(read(path, channel=channel), sine(hz), atol=1 / 2**15)


def test_channels_may_be_averaged(make_wav):
    path = make_wav("stereo.wav", np.stack([sine(440), sine(1000)], axis=1))
    mean = (sine(440) + sine(1000)) / 2
    np.testing.assert_allclose(read(path, channel="mean"), mean, atol=1 / 2**15)


@pytest.mark.parametrize("channel", [None, 2, -1, "left"])
def test_several_channels_and_no_choice_are_told_with_the_choices(make_wav, channel):
    path = make_wav("stereo.wav", np.zeros((100, 2)))
    with pytest.raises(
        AudioError,
        match=r"stereo\.wav: expected mono, found 2 .*say data\.channel=.*mean or an index below 2",
    ):
        read(path, channel=channel)


@pytest.mark.parametrize(("channel", "hz"), [("near", 440), ("far", 1000)])
def test_the_channels_of_dcase_2026_have_names(make_wav, channel, hz):
    path = make_wav("stereo.wav", np.stack([sine(440), sine(1000)], axis=1))
    np.testing.assert_allclose(read(path, channel=channel), sine(hz), atol=1 / 2**15)


@pytest.mark.parametrize("channel", ["far", 1])
def test_a_mono_recording_has_no_second_channel(make_wav, channel):
    with pytest.raises(AudioError, match=rf"mono\.wav: expected several .* {channel}, found mono"):
        read(make_wav("mono.wav"), channel=channel)


def test_a_mono_recording_needs_no_choice(make_wav):
    path = make_wav("mono.wav", sine(440))
    for channel in (0, "near", "mean"):
        np.testing.assert_array_equal(read(path, channel=channel), read(path))


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    return path


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_truncated_wav_is_refused(make_wav, share):
    with pytest.raises(AudioError, match=r"cut\.wav: cut short: its header announces more audio"):
        read(cut(make_wav("cut.wav"), share))


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_flac_is_refused(make_wav, share):
    with pytest.raises(AudioError, match=r"cut\.flac: (cut short|not readable)"):
        read(cut(make_wav("cut.flac", seconds=2), share))


def test_a_decoder_that_stops_early_is_noticed(make_wav, monkeypatch):
    path = make_wav("early.wav", np.zeros(100))
    monkeypatch.setattr(soundfile.SoundFile, "frames", property(lambda file: 101))
    with pytest.raises(AudioError, match=r"early\.wav: cut short"):
        read(path)


@pytest.mark.parametrize("announced", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_wav_from_a_pipe_that_could_not_know_its_length_is_read(make_wav, announced):
    path = make_wav("pipe.wav", sine(440))
    content = path.read_bytes()
    path.write_bytes(content[:4] + announced + content[8:])
    np.testing.assert_allclose(read(path), sine(440), atol=1 / 2**15)


def test_a_recording_without_samples_is_refused(make_wav):
    with pytest.raises(AudioError, match=r"none\.wav: holds no samples"):
        read(make_wav("none.wav", np.zeros(0)))


@pytest.mark.parametrize("content", [b"", b"RIFF", bytes(range(256)) * 20])
def test_what_is_no_audio_is_refused(tmp_path, content):
    path = tmp_path / "garbage.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"garbage\.wav: not readable as audio"):
        read(path)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_counted(make_wav, wrong):
    waveform = sine(440)
    waveform[[3, 700]] = wrong
    with pytest.raises(AudioError, match=r"holes\.wav: 2 samples are NaN or infinite"):
        read(make_wav("holes.wav", waveform, subtype="FLOAT"))


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recording .*gone\.wav does not exist"):
        read(tmp_path / "gone.wav")


# Front ends


@pytest.mark.parametrize("name", FRONT_ENDS)
@settings(deadline=None, max_examples=25)
@given(samples=st.integers(1, 3000))
@example(samples=1)
@example(samples=432)
@example(samples=512)
def test_a_waveform_of_any_length_has_a_spectrogram(name, samples):
    log_mel = FRONT_ENDS[name](np.full(samples, 0.1, np.float32))
    assert log_mel.shape[0] == FRONT_ENDS[name].n_mels
    assert log_mel.shape[1] >= 1
    assert log_mel.dtype == np.float32
    assert np.isfinite(log_mel).all()


@pytest.mark.parametrize("hz", [300, 1000, 4000])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_louder_sine_raises_its_own_band_and_no_frequency_moves(name, hz):
    front_end = FRONT_ENDS[name]
    quiet = front_end((0.01 * sine(hz)).astype(np.float32)).mean(axis=1)
    loud = front_end((0.1 * sine(hz)).astype(np.float32)).mean(axis=1)
    assert quiet.argmax() == loud.argmax()
    gain = loud.max() - quiet.max()
    assert gain == pytest.approx(20 if front_end.decibel else np.log(10), abs=0.01)


def test_bands_are_in_order_of_frequency():
    for front_end in FRONT_ENDS.values():
        peaks = [
            int(front_end(sine(hz).astype(np.float32)).mean(axis=1).argmax())
            for hz in (100, 300, 1000, 3000, 7000)
        ]
        assert peaks == sorted(set(peaks))


def test_silence_lies_on_the_floor():
    silence = np.zeros(16_000, np.float32)
    assert (LogMel.twfr()(silence) == -100).all()
    np.testing.assert_allclose(LogMel.audioldm()(silence), np.log(1e-5), rtol=1e-6)


def test_what_lies_behind_max_seconds_is_not_heard():
    waveform = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    front_end = LogMel.twfr(max_seconds=1.0)
    np.testing.assert_array_equal(front_end(waveform), front_end(waveform[:16_000]))
    assert LogMel.twfr(max_seconds=None)(waveform).shape[1] == 32_000 // 512 + 1


def test_twfr_equals_the_original_from_audio_on(shared, real):
    golden = np.load(shared / "reference/golden/twfr_gmm.npz")
    checked = 0
    for part, machine in (("dev_data", "fan"), ("eval_data", "BLDCMotor")):
        for split in ("train", "test"):
            names = golden[f"{machine}/{split}_files"].tolist()
            keys = [key for key in golden if key.startswith(f"{machine}/{split}/r=")]
            r = [float(key.rpartition("=")[2]) for key in keys]
            # Every fourth clip says as much as all of them.
            for i in range(0, len(names), 4):
                log_mel = LogMel.twfr()(read(real / part / machine / split / names[i]))
                expected = np.stack([golden[key][i] for key in keys])
                np.testing.assert_allclose(twfr(log_mel, r), expected, atol=1e-4, rtol=0)
                checked += 1
    assert checked > 50


def test_the_mel_of_audioldm_equals_the_original(shared, real):
    golden = np.load(shared / "reference/golden/audioldm_mel.npz")
    clips = {key.split("/")[0] for key in golden}
    assert len(clips) == 3
    for clip in clips:
        waveform = read(real / str(golden[f"{clip}/file"]))
        waveform = waveform - waveform.mean()
        waveform *= 0.5 / np.abs(waveform).max()
        padded = np.pad(waveform, (0, 163_840 - len(waveform)))
        log_mel = LogMel.audioldm()(padded.astype(np.float32))
        np.testing.assert_allclose(log_mel, golden[f"{clip}/log_mel"], atol=1e-4, rtol=0)


# Cache


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
    soundfile.write(recording.path, sine(440), SAMPLE_RATE)
    after = cache.get(front_end, recording)
    assert front_end.calls == 2
    assert not np.array_equal(before, after)


def test_a_recording_of_equal_length_but_another_time_is_computed_anew(cache, recording):
    front_end = Counting()
    cache.get(front_end, recording)
    stat = recording.path.stat()
    os.utime(recording.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    cache.get(front_end, recording)
    assert front_end.calls == 2


def test_another_setting_of_the_front_end_is_computed_anew(cache, recording):
    once, twice = Counting(1), Counting(2)
    np.testing.assert_array_equal(cache.get(twice, recording), 2 * cache.get(once, recording))
    assert (once.calls, twice.calls) == (1, 1)


def test_log_mels_of_different_settings_do_not_meet_in_the_cache(cache, recording):
    found = [cache.get(LogMel.twfr(seconds), recording) for seconds in (0.1, 0.2, 0.1)]
    assert [log_mel.shape[1] for log_mel in found] == [4, 7, 4]


def test_a_recording_that_cannot_be_read_leaves_nothing_in_the_cache(tmp_path):
    path = tmp_path / "garbage.wav"
    path.write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"garbage\.wav"):
        FeatureCache(tmp_path / "cache").get(Counting(), Clip(path, "fan"))
    assert not list(tmp_path.glob("cache/**/*.*"))


def test_the_identity_of_a_missing_recording_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        identity(tmp_path / "gone.wav")


# Clips


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


def test_headers_of_features_are_read_one_at_a_time(make_wav, tmp_path, monkeypatch):
    recordings = [Clip(make_wav(f"{i}.wav", np.full(100, i / 10)), "fan") for i in range(8)]
    clips, front_end = Clips(recordings, FeatureCache(tmp_path / "cache")), Counting()
    computed = list(clips.features(front_end))
    reading, read_header = [], np.lib.format.read_array_header_1_0

    def slowly(file):
        reading.append(1)
        assert len(reading) == 1
        time.sleep(0.01)
        reading.pop()
        return read_header(file)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slowly)
    np.testing.assert_array_equal(np.stack(list(clips.features(front_end))), np.stack(computed))
    assert front_end.calls == 8


def test_features_come_in_the_clips_order_and_from_their_cache(make_wav):
    recordings = [Clip(make_wav(f"{i}.wav", np.full(100, i / 10)), "fan") for i in range(4)]
    clips, front_end = Clips(recordings), Counting()
    levels = [features[0] for features in clips[[3, 1]].features(front_end)]
    np.testing.assert_allclose(levels, [0.3, 0.1], atol=1e-4)
    list(clips.features(front_end))
    assert front_end.calls == 4
