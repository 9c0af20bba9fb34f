"""A stream is cut into windows, each scored as the same sound in a file."""

import io
import sys
import tracemalloc
import types
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from fsasd import load
from fsasd.deployment.streaming import Device, Stream, score_window


def pcm(samples):
    return io.BytesIO(np.asarray(samples, dtype="<i2").tobytes())


class Trickle(io.BytesIO):
    """A pipe: fewer bytes than are asked for at a time, also half a sample."""

    def read(self, size=-1):
        return super().read(min(size, 3))


@pytest.mark.parametrize("source", [io.BytesIO, Trickle])
@pytest.mark.parametrize(
    ("window", "hop", "expected"),
    [
        (4, 2, [(0, range(4)), (2, range(2, 6)), (4, range(4, 8))]),
        (4, 4, [(0, range(4)), (4, range(4, 8))]),
        (3, 5, [(0, range(3)), (5, range(5, 8))]),
        (9, 1, [(0, range(9))]),
        (10, 1, []),
    ],
)
def test_windows(source, window, hop, expected):
    stream = Stream(rate=1000, window=window / 1000, hop=hop / 1000)
    data = source(np.arange(9, dtype="<i2").tobytes() + b"\x01")
    found = [
        (round(one.start * 1000), (one.waveform[:, 0] * 2**15).astype(int).tolist())
        for one in stream.windows(data)
    ]
    assert found == [(start, list(samples)) for start, samples in expected]


@pytest.mark.parametrize(
    ("samples", "values"),
    [("s16le", [0, 16384, -32768]), ("s32le", [0, 2**30, -(2**31)]), ("f32le", [0, 0.5, -1.0])],
)
def test_samples_are_on_the_scale_of_one(samples, values):
    stream = Stream(rate=1000, samples=samples, window=0.003)
    kind = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}[samples]
    (window,) = stream.windows(io.BytesIO(np.array(values, dtype=kind).tobytes()))
    assert window.waveform[:, 0].tolist() == [0.0, 0.5, -1.0]


def test_channels_are_interleaved():
    stream = Stream(rate=1000, channels=2, window=0.002, hop=0.002)
    windows = list(stream.windows(pcm(range(8))))
    assert [(w.waveform * 2**15).tolist() for w in windows] == [
        [[0, 1], [2, 3]],
        [[4, 5], [6, 7]],
    ]


def test_memory_does_not_grow_with_the_stream():
    class Endless:
        left = 24 * 3600 * 100

        def read(self, size):
            size = min(size, 2 * self.left)
            self.left -= size // 2
            return bytes(size)

    # A day at 100 Hz would be 35 MB as floats.
    stream = Stream(rate=1000, window=10.0, hop=1.0)
    tracemalloc.start()
    count = sum(1 for _ in stream.windows(Endless()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 8631
    assert peak < 1e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 100}, "rate: expected 1000 to 400000 Hz, found 100"),
        ({"channels": 0}, "channels: expected 1 or more, found 0"),
        ({"samples": "mp3"}, "samples: expected s16le, s32le, f32le, found mp3"),
        ({"window": 0.0}, "window: expected seconds, 1 sample or more, found 0.0"),
        ({"hop": -1.0}, "hop: expected seconds"),
    ],
)
def test_a_stream_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Stream(**options)


class Port:
    """A stand-in for PortAudio: records what it is given."""

    def __init__(self, callback, sounds):
        self.callback, self.sounds = callback, sounds
        self.state = "made"

    def start(self):
        self.state = "started"
        for sound in self.sounds:
            self.callback(sound, len(sound) // 2, None, None)

    def stop(self):
        self.state = "stopped"

    def close(self):
        self.state = "closed"


@pytest.fixture
def sound_card(monkeypatch):
    """Replace sounddevice; return what it was asked for, and the sounds that it records."""
    asked, sounds = {}, []
    module = types.ModuleType("sounddevice")
    module.PortAudioError = type("PortAudioError", (Exception,), {})

    def stream(callback, **options):
        if options["device"] == "absent":
            raise module.PortAudioError("No input device matching 'absent'")
        asked.update(options)
        asked["port"] = Port(callback, sounds)
        return asked["port"]

    module.RawInputStream = stream
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return asked, sounds


def test_a_device_is_a_stream(sound_card):
    asked, sounds = sound_card
    sounds += [np.arange(n, n + 100, dtype="<i2").tobytes() for n in range(0, 1000, 100)]
    stream = Stream(rate=1000, window=0.4, hop=0.2)
    device = Device("2", stream)
    assert {k: asked[k] for k in ("samplerate", "device", "channels", "dtype")} == {
        "samplerate": 1000, "device": 2, "channels": 1, "dtype": "int16",
    }  # fmt: skip
    windows = stream.windows(device)
    first, second = next(windows), next(windows)
    assert (first.start, second.start) == (0.0, 0.2)
    assert (second.waveform[:, 0] * 2**15).tolist() == list(range(200, 600))
    device.close()
    assert asked["port"].state == "closed"


def test_sound_that_is_lost_is_named(sound_card, caplog, monkeypatch):
    _, sounds = sound_card
    sounds += [bytes(200)] * 301
    Device("default", Stream(rate=1000))
    assert caplog.text.count("scoring is too slow: 100 samples are lost") == 1


def test_a_device_that_is_not_there(sound_card, monkeypatch):
    with pytest.raises(ValueError, match="device absent: No input device matching"):
        Device("absent", Stream())
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ImportError, match=r"pip install 'fsasd\[device\]'"):
        Device("default", Stream())


def test_a_window_is_scored_as_a_file(bearing_model, tmp_path):
    """At another rate, of two channels, by two models that take different ones."""
    rng = np.random.default_rng(0)
    samples = (3000 * rng.standard_normal((44_100 * 2, 2))).astype("<i2")
    soundfile.write(tmp_path / "a.wav", samples[44_100:], 44_100, subtype="PCM_16")
    stream = Stream(rate=44_100, channels=2, window=1.0, hop=1.0)
    windows = list(stream.windows(io.BytesIO(samples.tobytes())))
    models = [replace(load(bearing_model), channel=channel) for channel in (0, 1, 0)]
    scores, measures = score_window(models, windows[1], stream.rate, "-")
    expected = [model.score([tmp_path / "a.wav"])[0] for model in models]
    assert [score for _, score in scores] == expected
    assert expected[0] == expected[2] != expected[1]
    assert [rows[0]["seconds"] for rows in measures] == [1.0, 1.0, 1.0]


def test_a_window_that_cannot_be_scored_is_named(bearing_model):
    stream = Stream(samples="f32le", window=1.0, hop=1.0)
    sound = np.full(16_000, np.nan, dtype="<f4").tobytes()
    (window,) = stream.windows(io.BytesIO(sound))
    ((_, error),), _ = score_window([load(bearing_model)], window, stream.rate, "-")
    assert str(error) == "-: 16000 samples are NaN or infinite"
