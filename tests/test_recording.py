import logging

import numpy as np
import pytest
import soundfile

from fsasd.data import recording
from fsasd.data.recording import SAMPLE_RATE, AudioError, read


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
    monkeypatch.setattr(recording, "_rates_told", set())  # other tests have such clips, too
    rate = 24_000
    paths = [make_wav(f"{i}.wav", sine(440, rate=rate), rate=rate) for i in range(3)]
    with caplog.at_level(logging.WARNING, "fsasd.data.recording"):
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
