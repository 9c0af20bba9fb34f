"""Recordings that are scored against those that are fitted on: what differs, and what does not."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy import signal

from fsasd.data.check.findings import find_in_recordings
from fsasd.data.check.inspection import inspect
from fsasd.data.check.likeness import Profile, save_profiles
from fsasd.data.check.measures import BANDS, measure, require_full_scale
from fsasd.data.metadata import read_clips
from fsasd.data.recording import AudioError
from fsasd.deployment.recording_warnings import LikenessMonitor

RATE = 16_000


def machine(seed=0, seconds=1.0, gain=1.0, rate=RATE):
    """A hum whose overtones and noise fall towards high frequencies, as 16 bits."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    hum = sum(np.sin(2 * np.pi * 100 * k * time) / k for k in range(1, 9))
    noise = signal.lfilter([1], [1, -0.7], rng.standard_normal(len(time)))
    return sixteen_bits(gain * (0.05 * hum + 0.01 * noise * rng.uniform(0.8, 1.2)))


def sixteen_bits(waveform):
    return (np.round(waveform * 2**15).clip(-(2**15), 2**15 - 1) / 2**15).astype(np.float32)


def rows(*waveforms, rate=RATE):
    return pd.DataFrame([{"seconds": len(w) / rate, **measure(w, rate)} for w in waveforms])


@pytest.fixture(scope="module")
def profile():
    return Profile.of(rows(*(machine(seed) for seed in range(16))))


def differences(profile, *waveforms):
    return {d.kind: (d.message, d.which.tolist()) for d in profile.differences(rows(*waveforms))}


def at_8_khz(waveform):
    return sixteen_bits(signal.resample_poly(signal.resample_poly(waveform, 1, 2), 2, 1))


def low_passed(waveform):
    return sixteen_bits(signal.sosfilt(signal.butter(6, 4000, fs=RATE, output="sos"), waveform))


# Measures


def test_levels_are_those_of_a_tone():
    tone = 0.5 * np.sin(2 * np.pi * 1250 * np.arange(RATE) / RATE).astype(np.float32)
    measures = measure(tone + np.float32(0.1), RATE)
    assert measures["level"] == pytest.approx(10 * np.log10(0.5**2 / 2 + 0.1**2), abs=0.01)
    assert measures["below_1500"] == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.1)
    assert all(measures[band] < -70 for band in BANDS if band not in ("below_1500", "below_1000"))


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_band_has_the_same_level_at_any_rate(rate):
    noise = 0.1 * np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    measures = measure(noise, rate)
    expected = 20 * np.log10(0.1) + 10 * np.log10(500 / (rate / 2))
    assert [measures[band] for band in BANDS[1:]] == pytest.approx([expected] * 15, abs=1.5)


def test_a_band_that_a_rate_does_not_have_is_empty():
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    measures = measure(noise, 8000)
    assert all(measures[band] == -160 for band in BANDS[9:])
    assert measures["below_3500"] > -40


@pytest.mark.parametrize("samples", [1, 2, 100, 1023, 1025])
def test_a_click_has_measures(samples):
    assert np.isfinite(list(measure(np.full(samples, 0.5, np.float32), RATE).values())).all()


@pytest.mark.parametrize(
    ("waveform", "peak", "bits"),
    [
        (14_730.3 * np.array([0.01, -1.0]), "14730.3", 16),
        (np.array([0.0, 5.0, -3.0]), "5", 16),
        (np.array([0.5, 2.0**22]), "4.1943e+06", 24),
        (np.array([0.5, 2.0**30]), "1.07374e+09", 32),
    ],
)
def test_samples_on_the_scale_of_integers_are_refused(tmp_path, waveform, peak, bits):
    said = f"a.wav: peak {peak} where full scale is 1: on the scale of {bits}-bit".replace(
        "+", r"\+"
    )
    with pytest.raises(AudioError, match=said):
        require_full_scale(waveform.astype(np.float32), tmp_path / "a.wav")


def test_samples_on_no_scale_are_refused(tmp_path):
    with pytest.raises(AudioError, match=r"peak 1e\+30 where full scale is 1: it is to be scaled"):
        require_full_scale(np.array([0.1, -1e30], np.float32), tmp_path / "a.wav")


@pytest.mark.parametrize("waveform", [[1.0, -1.0, 0.0], [1.7, -0.3], [0.4, -12.5]])
def test_floats_may_exceed_full_scale(tmp_path, waveform):
    require_full_scale(np.array(waveform, np.float32), tmp_path / "a.wav")


# Differences


def test_more_of_the_same_differ_in_nothing(profile):
    assert differences(profile, *(machine(seed) for seed in range(100, 108))) == {}


@pytest.mark.parametrize("halved", [at_8_khz, low_passed])
def test_half_the_bandwidth_is_told(profile, halved):
    found = differences(profile, machine(50), halved(machine(51)), halved(machine(52)))
    assert list(found) == ["bandwidth"]
    message, which = found["bandwidth"]
    assert which == [False, True, True]
    assert message in {
        f"nothing above {kilohertz} kHz, unlike the training clips"
        for kilohertz in ("4", "4.5", "5", "5.5")
    }


def test_twice_the_bandwidth_is_told():
    profile = Profile.of(rows(*(at_8_khz(machine(seed)) for seed in range(16))))
    assert differences(profile, at_8_khz(machine(50))) == {}
    found = differences(profile, machine(51), at_8_khz(machine(52)))
    assert found == {
        "bandwidth": ("sound above 4 kHz, where the training clips have none", [True, False])
    }


def test_a_fault_that_hisses_is_no_other_bandwidth(profile):
    rng = np.random.default_rng(0)
    hiss = signal.sosfilt(signal.butter(4, 4000, "high", fs=RATE, output="sos"),
                          0.2 * rng.standard_normal(RATE))  # fmt: skip
    assert differences(profile, sixteen_bits(machine(60) + hiss)) == {}


def test_a_loud_hum_is_no_other_bandwidth(profile):
    hum = 0.5 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    assert "bandwidth" not in differences(profile, sixteen_bits(machine(60) + hum))


def test_other_gains_are_told_and_no_other_bandwidth(profile):
    quiet = [machine(seed, gain=0.05) for seed in range(70, 73)]
    assert differences(profile, *quiet) == {
        "level": ("more than 20 dB quieter than all training clips", [True] * 3)
    }
    loud = differences(profile, *(machine(seed, gain=16.0) for seed in range(70, 72)))
    assert loud["level"] == ("more than 20 dB louder than all training clips", [True] * 2)


def test_a_shift_of_most_clips_is_told_where_each_could_be_by_chance():
    gains = np.geomspace(0.1, 1, 16)
    wide = Profile.of(rows(*(machine(seed, gain=gain) for seed, gain in enumerate(gains))))
    quiet = [machine(seed, gain=0.04) for seed in range(70, 74)]
    assert differences(wide, *quiet[:3]) == {}
    message, which = differences(wide, *quiet)["level"]
    assert message == "in the median 18 dB quieter than the training clips"
    assert which == [True] * 4


def test_lengths_silence_and_clipping_are_told(profile):
    short, long = machine(80, seconds=0.4), machine(81, seconds=2.5)
    silent, loud = np.zeros(RATE, np.float32), sixteen_bits(np.full(RATE, 1.0))
    loud[::2] = machine(82)[::2]
    loud[100:110] = 1 - 2**-15
    assert differences(profile, short, machine(83)) == {
        "length": ("less than half as long as all training clips", [True, False])
    }
    assert (
        differences(profile, long)["length"][0] == "more than twice as long as all training clips"
    )
    assert differences(profile, silent) == {"silent": ("silent, unlike the training clips", [True])}
    assert differences(profile, loud)["clipped"] == ("clipped, unlike the training clips", [True])


def test_silent_training_clips_are_no_measure(profile):
    silence = np.zeros(RATE, np.float32)
    with_silence = Profile.of(rows(*(machine(seed) for seed in range(16)), silence))
    assert with_silence.lowest == profile.lowest
    assert Profile.of(rows(silence)) is None


# Saved


def test_a_profile_is_read_as_it_was_saved(profile, tmp_path):
    profile.save(tmp_path)
    again = Profile.load(tmp_path)
    assert (again.lowest, again.median_level) == (profile.lowest, profile.median_level)
    assert differences(again, at_8_khz(machine(50))).keys() == {"bandwidth"}
    assert Profile.load(tmp_path / "none") is None


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"level": 1})])
def test_a_file_that_is_no_profile_is_named(tmp_path, text):
    (tmp_path / "recordings.json").write_text(text)
    with pytest.raises(ValueError, match=r"recordings\.json: expected a profile"):
        Profile.load(tmp_path)


def test_each_detector_gets_the_profile_of_its_section(factory, tmp_path):
    recordings = inspect(read_clips(factory))
    model = tmp_path / "bearing/section_00"
    model.mkdir(parents=True)
    save_profiles(tmp_path, recordings)
    assert Profile.load(model).seconds == (1.0, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["bearing"]


# No false alarm


def test_real_machines_are_like_themselves(real):
    for root in (real, real.parent / "more-real"):
        kinds = {finding.kind for finding in find_in_recordings(inspect(read_clips(root)))}
        assert kinds <= {"duplicate"}


def test_real_recordings_without_their_upper_half_are_told(real):
    for name, own in inspect(read_clips(real)).groupby("machine"):
        profile = Profile.of(own[(own["split"] == "train") & (own["label"] == "normal")])
        tests = own.loc[own["split"] == "test", "path"].iloc[::8]
        halved = [at_8_khz(load(path)) for path in tests]
        found = differences(profile, *halved)
        assert found["bandwidth"][1] == [True] * len(halved), name


def load(path):
    waveform = soundfile.read(path, dtype="float32", always_2d=True)[0]
    return waveform[:, 0]


@pytest.mark.parametrize(
    ("names", "listed"),
    [("----", "-"), ("ab", "a, b"), ("abcde", "a, b, c and 2 more")],
)
def test_windows_of_a_stream_are_named_once(names, listed):
    bands = dict.fromkeys(BANDS, -60.0)
    sound = {"silent": False, "clipped": False, "level": -40.0, **bands}
    monitor = LikenessMonitor(Profile.of(pd.DataFrame([{"seconds": 3.0, **sound}])))
    for name in names:
        monitor.update([{"path": name, "seconds": 10.0, **sound}])
    n = len(names)
    assert list(monitor.summary()) == [
        f"{n} of {n} recordings: more than twice as long as all training clips ({listed})"
    ]
