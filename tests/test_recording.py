import logging
import os
import subprocess
import sys
from math import gcd

import numpy as np
import pytest
import soundfile
from scipy import signal

from fsasd.data import recording
from fsasd.data.recording import RATES, SAMPLE_RATE, AudioError, decode, header, read


def sine(hz, seconds=0.5, rate=SAMPLE_RATE):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_recording_is_read_as_it_was_written(make_wav, suffix):
    waveform = sine(440)
    read_back = read(make_wav(f"clip.{suffix}", waveform))
    assert read_back.dtype == np.float32
    assert read_back.shape == waveform.shape
    np.testing.assert_allclose(read_back, waveform, atol=1 / 2**15)


def test_another_rate_is_resampled_and_told_once(make_wav, caplog, monkeypatch):
    monkeypatch.setattr(recording, "_rates_logged", set())  # other tests have such clips, too
    rate = 24_000
    paths = [make_wav(f"{i}.wav", sine(440, rate=rate), rate=rate) for i in range(3)]
    with caplog.at_level(logging.INFO, "fsasd.data.recording"):
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
    with pytest.raises(AudioError, match=r"early\.wav: cut short: .*: 101 samples, found 100"):
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


@pytest.mark.parametrize(
    "rate", [1000, 1001, 8000, 15_999, 22_051, 26_667, 44_100, 44_101, 48_000, 96_001, 400_000]
)
def test_any_rate_is_resampled_as_scipy_does(make_wav, rate):
    noise = 0.1 * np.random.default_rng(0).standard_normal(max(rate, 4000))
    path = make_wav("noise.wav", noise, rate=rate, subtype="FLOAT")
    divisor = gcd(rate, SAMPLE_RATE)
    expected = signal.resample_poly(noise, SAMPLE_RATE // divisor, rate // divisor)
    waveform = read(path)
    assert waveform.dtype == np.float32
    assert waveform.shape == expected.shape
    assert np.abs(waveform - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("rate", [1, 999, 400_001, 2**31 - 1])
@pytest.mark.parametrize("reader", [read, header, decode])
def test_other_rates_are_refused(make_wav, rate, reader):
    path = make_wav("rate.wav", np.zeros(100), rate=rate)
    with pytest.raises(
        AudioError,
        match=rf"rate\.wav: expected a sampling rate of 1000 to 400000 Hz, found {rate}$",
    ):
        reader(path)


MEASURE = """
import resource, sys, time
from fsasd.data.recording import read
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
read(sys.argv[1])
before = peak()
start = time.process_time()
read(sys.argv[2])
print(time.process_time() - start, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rate", [15_999, 26_667, RATES[1] - 1])
def test_no_rate_takes_long_or_much_memory(make_wav, rate):
    short = make_wav("short.wav", seconds=0.1, rate=48_000)
    long = make_wav("long.wav", seconds=10, rate=rate)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, short, long], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    seconds, megabytes = map(float, done.stdout.split())
    # 0.3 s on a machine that does nothing else.
    assert seconds < 1
    assert megabytes < 200


@pytest.mark.parametrize(
    ("name", "rate"), [("a.wav", 16_000), ("b.wav", 44_100), ("c.wav", 26_667), ("d.flac", 8000)]
)
@pytest.mark.parametrize("seconds", [0.001, 0.37, 1.0, 1.5])
def test_the_beginning_is_as_it_is_in_the_whole(make_wav, name, rate, seconds):
    path = make_wav(name, seconds=1, rate=rate)
    beginning, whole = read(path, seconds=seconds), read(path)
    assert len(beginning) == min(round(seconds * SAMPLE_RATE), len(whole))
    np.testing.assert_array_equal(beginning, whole[: len(beginning)])


def test_no_more_is_decoded_than_is_asked_for(make_wav, monkeypatch):
    path = make_wav("long.wav", seconds=60, rate=8000)
    decoded = []
    read_frames = soundfile.SoundFile.read

    def counted(file, frames=-1, **options):
        decoded.append(frames)
        return read_frames(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert len(read(path, seconds=10)) == 160_000
    assert sum(decoded) < 10.1 * 8000


def test_a_long_recording_is_decoded_in_blocks(make_wav, monkeypatch):
    tone = np.stack([sine(440), sine(1000)], axis=1)
    path = make_wav("stereo.flac", tone)
    whole, rate = decode(path)
    monkeypatch.setattr(recording, "_BLOCK", 7)
    np.testing.assert_array_equal(decode(path)[0], whole)
    np.testing.assert_array_equal(decode(path, 4000 / rate)[0], whole[:4000])


@pytest.mark.parametrize("reader", [read, header])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "device.wav").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("folder", "a folder"), ("device", "a device")):
        with pytest.raises(AudioError, match=rf"{name}\.wav: expected a file, found {kind}"):
            reader(tmp_path / f"{name}.wav")


@pytest.mark.parametrize("reader", [read, header])
def test_links_that_lead_nowhere_are_named(tmp_path, reader):
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(
        FileNotFoundError, match=r"link\.wav does not exist: .* link to .*gone\.wav"
    ):
        reader(tmp_path / "link.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    with pytest.raises(AudioError, match=r"loop\.wav: cannot be read: .*symbolic links"):
        reader(tmp_path / "loop.wav")


def test_a_file_that_may_not_be_read_is_named(make_wav):
    path = make_wav("secret.wav")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(AudioError, match=r"secret\.wav: cannot be read: Permission denied"):
        read(path)


def test_a_name_that_is_not_utf_8_is_read_and_printed(make_wav, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "fsasd.data.recording")
    monkeypatch.setattr(recording, "_rates_logged", set())
    path = make_wav("plain.wav", rate=8000)
    path = path.rename(path.with_name(os.fsdecode(b"L\xfcfter.wav")))
    assert len(read(path)) == 4000
    assert r"L\xfcfter.wav and others have 8000 Hz" in caplog.text
    path.write_bytes(b"RIFF")
    with pytest.raises(AudioError) as raised:
        read(path)
    assert str(raised.value).encode().startswith(rb"%s/L\xfcfter.wav: " % bytes(path.parent))


@pytest.mark.parametrize("peak", [1e30, -1e30, 3e9])
def test_samples_on_no_scale_are_refused(make_wav, peak):
    waveform = np.zeros(100)
    waveform[7] = peak
    path = make_wav("loud.wav", waveform, subtype="FLOAT")
    with pytest.raises(
        AudioError, match=r"loud\.wav: expected samples in \[-1, 1\].*peak of (1e\+30|3e)"
    ):
        read(path)


def test_floats_on_the_scale_of_integers_are_read(make_wav):
    waveform = np.array([-(2.0**31), 0, 2.0**31])
    path = make_wav("integers.wav", waveform, subtype="FLOAT")
    np.testing.assert_array_equal(read(path), waveform)


def test_the_cases_are_read_or_named(shared):
    folder = shared / "cases"
    for name, samples in (("26667", 2400), ("rate15999", 16_002)):
        assert read(folder / "rates" / f"{name}.wav").shape == (samples,), name
    for place, message in (
        ("rates/rate1", "expected a sampling rate"),
        ("extreme/float64_all_1e30", r"expected samples in \[-1, 1\].* a peak of 4\.02316e\+29"),
        *((f"unreadable/{i}", "not readable as audio") for i in range(6)),
    ):
        with pytest.raises(AudioError, match=rf"{place}\.wav: {message}"):
            read(folder / f"{place}.wav")
