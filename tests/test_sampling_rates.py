"""A fault above 8 kHz: found by a detector that reads at 48 kHz, and by none that reads at 16."""

import os
import sys
from dataclasses import replace

import commands
import numpy as np
import pandas as pd
import pytest
import soundfile
from hydra import compose, initialize_config_module
from runs import Run

import fsasd.cli.main  # noqa: F401, registers the resolvers of the configuration
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.front_ends import Reading
from fsasd.data.log_mel import LogMel, mel_filters
from fsasd.data.manifest import read_folders
from fsasd.data.metadata import Clip
from fsasd.data.recording import AudioError, read
from fsasd.detectors.autoencoder import Autoencoder
from fsasd.detectors.flow import Flow
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.training import NetworkTraining
from fsasd.detectors.representations import TimeStatistics
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.generation.faults import FAULTS
from fsasd.generation.prompts import Prompt
from fsasd.generation.transforms import FaultTransforms
from fsasd.pipeline.detector_input import highest_rate

RATE = 48_000
LEAK = 20_000
"""Hz."""

KNN_AT = ["detector=knn", "representation.front_end.sampling_rate"]
GMM_AT = ["detector=twfr_gmm", "detector.sampling_rate"]


def pump(seed, leaking=False, rate=RATE, seconds=1.0):
    """A hum in noise; a leak is a faint tone beyond what a rate of 16 kHz can hold."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    hum = sum(np.sin(2 * np.pi * (50 * k * time + rng.uniform())) / k for k in range(1, 9))
    waveform = 0.05 * hum + 0.01 * rng.standard_normal(len(time))
    return waveform + leaking * 0.005 * np.sin(2 * np.pi * LEAK * time)


def write_pumps(root, rate=RATE, machine="pump"):
    """Normal recordings to fit a detector on, and others of which half leak."""
    for split, label, seeds in (
        ("train", "normal", range(24)),
        ("test", "normal", range(100, 112)),
        ("test", "anomaly", range(200, 212)),
    ):
        folder = root / machine / split / label
        folder.mkdir(parents=True)
        for seed in seeds:
            sound = pump(seed, leaking=label == "anomaly", rate=rate)
            soundfile.write(folder / f"{seed}.wav", sound, rate, subtype="PCM_16")
    return root


def command(folder, *overrides, name="main"):
    done = commands.run(
        [sys.executable, "-m", f"fsasd.cli.{name}", *map(str, overrides)],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "FSASD_STORE": str(folder / "store")},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def run(folder, root, *overrides):
    return command(
        folder, "data=folder", f"data.root={root}", "data.targets=[pump]", "logger=none",
        "hydra.run.dir=run", *overrides,
    )  # fmt: skip


def configured(folder, root, *overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose(
            "config",
            [
                "data=folder", f"data.root={root}", "data.targets=[pump]", "logger=none",
                f"store={folder / 'store'}", *overrides,
            ],
        )  # fmt: skip
    return Run(cfg, folder / "run")


def built(folder):
    return list((folder / "store").rglob("provenance.json"))


@pytest.fixture(scope="module")
def pumps(tmp_path_factory):
    return write_pumps(tmp_path_factory.mktemp("pumps"))


def auc(folder):
    metrics = pd.read_csv(folder / "run/metrics.csv")
    return float(metrics.loc[metrics["machine"] == "pump", "auc"].iloc[0])


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("detector", [KNN_AT, GMM_AT], ids=["knn", "twfr_gmm"])
def test_a_leak_above_8_khz_is_found_at_48_khz_and_not_at_16(detector, pumps, tmp_path):
    choice, rate = detector
    code, _, err = run(tmp_path, pumps, choice, "generator=none")
    assert code == 0, err
    assert 0.2 < auc(tmp_path) < 0.8
    code, _, err = run(tmp_path, pumps, choice, f"{rate}={RATE}", "generator=none")
    assert code == 0, err
    assert auc(tmp_path) > 0.99
    # The saved detector reads at its rate, and says so of a recording that has none of its bands.
    soundfile.write(tmp_path / "low.wav", pump(1, rate=16_000), 16_000)
    leaking, normal = pumps / "pump/test/anomaly/200.wav", pumps / "pump/test/normal/100.wav"
    code, out, err = command(
        tmp_path, "--model", "run/models/pump", normal, leaking, "low.wav", name="score"
    )
    assert code == 1
    assert "low.wav: expected 48000 Hz or more, at which the detector reads recordings" in err
    decisions = [line.split(",")[3] for line in out.splitlines()[1:]]
    assert decisions == ["0", "1"]


@pytest.mark.parametrize("kind", [Autoencoder, Flow])
def test_networks_of_one_machine_hear_a_leak_at_48_khz_only(kind, pumps, tmp_path):
    twins = []
    for leaking in (False, True):
        path = tmp_path / f"{leaking}.wav"
        soundfile.write(path, pump(100, leaking), RATE, subtype="PCM_16")
        twins.append(Clip(path, "pump"))
    train = Clips(read_folders(pumps, ["pump"])).where(split="train")
    changes = []
    for rate in (16_000, RATE):
        fitted = kind(sampling_rate=rate, training=NetworkTraining(1)).fit(train)
        normal, leak = fitted.score(Clips(twins))
        changes.append(abs(leak / normal - 1))
    assert 30 * changes[0] < changes[1] > 5e-3, changes


@pytest.mark.nightly
@pytest.mark.slow
def test_a_setting_is_chosen_on_clips_of_the_detectors_rate(pumps, tmp_path):
    made = ["generator=transforms", "generator.sampling_rate=48000", "synthesis.clips_per_label=4"]
    code, _, err = run(tmp_path, pumps, "detector=knn", f"{KNN_AT[1]}={RATE}", *made)
    assert code == 0, err
    assert auc(tmp_path) > 0.99
    synthetic = list((tmp_path / "run/synthetic").rglob("*.wav"))
    assert {soundfile.info(path).samplerate for path in synthetic} == {RATE}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["generator=transforms"],
            r"generator \(FaultTransforms\): its clips have 16000 Hz, and the detector reads "
            r"recordings at 48000 Hz: .* generator.sampling_rate=48000",
        ),
        (["generator=audioldm_nano"], r"generator \(AudioLDM\): its clips have 16000 Hz"),
    ],
)
def test_clips_without_the_detectors_bands_are_refused_before_any_stage(
    overrides, message, pumps, tmp_path
):
    asked = configured(
        tmp_path, pumps, "detector=twfr_gmm",
        "detector.sampling_rate=48000", *overrides,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        asked()
    assert not built(tmp_path)


def test_transferred_anomalies_without_the_detectors_bands_are_refused(tmp_path):
    root = write_pumps(write_pumps(tmp_path / "data"), machine="fan")
    asked = configured(
        tmp_path, root, "detector=twfr_gmm", "detector.sampling_rate=48000", "selection=combined",
        "selection/sources=[synthetic,transfer]", "generator=transforms",
        "generator.sampling_rate=48000",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"selection.sources.transfer: its clips have 16000 Hz"):
        asked()
    assert not built(tmp_path)


def test_recordings_without_the_detectors_bands_are_refused_before_any_stage(tmp_path):
    root = write_pumps(tmp_path / "low", rate=44_100)
    asked = configured(
        tmp_path, root, "detector=twfr_gmm",
        "detector.sampling_rate=48000", "generator=none",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"48 recordings of 48 cannot .* found 44100 Hz: there is"):
        asked()
    assert not built(tmp_path)


def test_a_grid_does_not_vary_the_rate_of_a_front_end(pumps, tmp_path):
    asked = configured(
        tmp_path, pumps, "detector=knn",
        "generator=transforms",
        "+selection.grid.representation__front_end__sampling_rate=[16000,48000]",
    )  # fmt: skip
    told = r"frames and bands .* Sweep it instead: fsasd -m representation.front_end.sampling_rate="
    with pytest.raises(ValueError, match=told):
        asked()


def test_the_rate_of_a_detector_is_that_of_all_its_components():
    fast = TimeStatistics(LogMel.twfr(sampling_rate=96_000))
    assert highest_rate(KNN(fast)) == 96_000
    assert highest_rate(KNN()) == highest_rate(TWFRGMM(sampling_rate=8000)) == 16_000
    assert highest_rate(TWFRGMM(), [{"r": 1.0}, {"sampling_rate": 32_000}]) == 32_000


def test_bands_and_frames_follow_the_rate():
    """Of a sound below 8 kHz, what the front end has of it is the same at every rate."""
    at_16, at_48 = LogMel.twfr(), LogMel.twfr(sampling_rate=RATE)
    assert (at_48.n_fft, at_48.hop, at_48.max_hz) == (3072, 1536, 24_000)
    # The same bands of both, those up to 8 kHz.
    below = replace(at_48, max_hz=8000.0)
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(RATE))
    spectrum[np.fft.rfftfreq(RATE, 1 / RATE) > 7000] = 0
    fine = np.fft.irfft(spectrum, RATE)
    coarse = fine[::3]
    # A window of three times as many samples: 9 times the power.
    levels = below(fine)[20:100, 2:-2] - 10 * np.log10(9)
    np.testing.assert_allclose(levels, at_16(coarse)[20:100, 2:-2], atol=0.1)


def test_the_highest_band_ends_at_half_the_rate():
    filters = mel_filters(LogMel.twfr(sampling_rate=96_000))
    frequencies = np.linspace(0, 48_000, filters.shape[1])
    assert 47_900 < frequencies[filters[-1] > 0].max() <= 48_000


@pytest.mark.parametrize(("max_hz", "rate"), [(8000.1, 16_000), (8000.0, 8000), (0.0, 16_000)])
def test_a_band_above_half_the_rate_is_refused(max_hz, rate):
    with pytest.raises(ValueError, match=rf"max_hz=.*: expected {rate / 2:g} Hz at most"):
        LogMel(max_hz=max_hz, sampling_rate=rate)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_a_recording_keeps_its_upper_bands(rate, tmp_path):
    path = tmp_path / "leak.wav"
    soundfile.write(path, pump(0, leaking=True, rate=96_000), 96_000, subtype="FLOAT")
    waveform = read(path, sampling_rate=rate)
    assert len(waveform) == rate
    power = np.abs(np.fft.rfft(waveform)) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / rate)
    near = np.abs(hertz - LEAK) < 5
    assert power[near].max() > 100 * power[(hertz > 15_000) & ~near].max()
    # The beginning is that of the whole.
    np.testing.assert_allclose(read(path, seconds=0.4, sampling_rate=rate),
                               waveform[: round(0.4 * rate)], atol=1e-6)  # fmt: skip


@pytest.mark.parametrize(("rate", "wanted"), [(16_000, 48_000), (44_100, 48_000), (8000, 16_001)])
def test_a_recording_below_the_rate_is_refused(rate, wanted, tmp_path):
    path = tmp_path / "low.wav"
    soundfile.write(path, pump(0, rate=rate), rate)
    limit = max(rate, 16_000)
    told = f"low.wav: expected {wanted} Hz or more.*found {rate} Hz.*sampling_rate to {limit} at"
    with pytest.raises(AudioError, match=told):
        read(path, sampling_rate=wanted)


@pytest.mark.parametrize("wanted", [8000, 16_000])
def test_up_to_16_khz_any_recording_is_resampled(wanted, tmp_path):
    soundfile.write(tmp_path / "low.wav", pump(0, rate=4000), 4000)
    assert len(read(tmp_path / "low.wav", sampling_rate=wanted)) == wanted


@pytest.mark.parametrize("folder", [None, "cache"])
def test_features_of_two_rates_are_kept_apart(folder, tmp_path):
    path = tmp_path / "pump.wav"
    soundfile.write(path, pump(0, leaking=True), RATE)
    clip, cache = Clip(path, "pump"), FeatureCache(folder and tmp_path / folder)
    ends = [LogMel.twfr(sampling_rate=rate) for rate in (16_000, RATE)]
    first = [cache.get(end, clip) for end in ends]
    again = [cache.get(end, clip) for end in ends]
    assert not np.array_equal(*first)
    for end, one, other in zip(ends, first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        expected = end(read(path, sampling_rate=Reading.of(end).sampling_rate))
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_as_strong_at_every_rate(kind):
    """Below 7 kHz, where both have room for it, its spectrum is about the same."""
    values = {
        "strength": 0.5, "rate": 10.0, "resonance": 2000.0, "pitch": 500.0, "shift": 1.5,
        "duration": 0.1, "above": 2000.0,
    }  # fmt: skip
    fault = FAULTS[kind]
    drawn = {name: values[name] for name in fault.parameters}
    changes = []
    for rate in (16_000, RATE):
        rng = np.random.default_rng(0)
        spectrum = np.fft.rfft(rng.standard_normal(4 * RATE))[: 2 * 16_000 + 1]
        # The same noise below 8 kHz, at either rate.
        spectrum = np.pad(spectrum, (0, 2 * rate + 1 - len(spectrum)))
        sound = np.fft.irfft(spectrum, 4 * rate)
        sound = (0.1 * sound / sound.std()).astype(np.float32)
        levels = []
        for one in (sound, fault.apply(sound, np.random.default_rng(1), rate, **drawn)):
            power = np.abs(np.fft.rfft(one)) ** 2 / len(one) ** 2
            below = power[np.fft.rfftfreq(len(one), 1 / rate) < 7000]
            levels.append([10 * np.log10(band.sum()) for band in np.array_split(below, 7)])
        changes.append(np.subtract(*levels[::-1]))
    # A hiss is spread over more bands, so that there is less of it in each.
    tolerance = 4.0 if kind == "leak" else 3.0
    np.testing.assert_allclose(*changes, atol=tolerance)


def test_a_transformed_clip_has_the_bands_of_its_source(tmp_path):
    path = tmp_path / "leak.wav"
    soundfile.write(path, pump(0, leaking=True), RATE, subtype="FLOAT")
    prompt = Prompt(
        "a.wav", "pump", None, None, "normal", "A pump.", 1.0, 1.0, seed=0, source=str(path)
    )
    ranges = {"leak": {"strength": [0.1, 0.5], "above": [10_000, 20_000]}}
    (waveform,) = FaultTransforms(ranges, sampling_rate=RATE).generate([prompt])
    np.testing.assert_allclose(waveform, read(path, sampling_rate=RATE), atol=1e-7)
    with pytest.raises(ValueError, match=r"leak: above .* at most 7000, found \[10000, 20000\]"):
        FaultTransforms(ranges)
