"""Recordings by two microphones: what both have in common is taken from the near one."""

import os
import sys
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import soundfile
from hydra import compose, initialize_config_module
from runs import Run
from sklearn.metrics import roc_auc_score

import fsasd.cli.main  # noqa: F401, registers the resolvers of the configuration
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip, read_clips
from fsasd.data.recording import AudioError, read
from fsasd.data.simulate import simulate, write_factory
from fsasd.data.two_microphones import Denoised, EachChannel
from fsasd.detectors.base import load
from fsasd.detectors.knn import KNN
from fsasd.detectors.representations import NearFar, TimeStatistics, count_parameters
from fsasd.pipeline.detector_input import takes_both

RULES = ("subtraction", "wiener")
KINDS = [
    NearFar(TimeStatistics(pool_by="mean")),
    TimeStatistics(Denoised(LogMel.twfr(), "wiener"), pool_by="mean"),
]


@pytest.fixture(scope="module")
def clips(two_microphones):
    cache = FeatureCache(channel="near")
    return Clips(read_clips(two_microphones), cache).where(machine="bearing")


def machine_in_noise(seed=0, leak=0.2, level=0.01):
    """A machine near one microphone, in noise that reaches both; the machine alone beside it."""
    rng, time = np.random.default_rng(seed), np.arange(32_000) / 16_000
    machine = sum(0.05 * np.sin(2 * np.pi * 300 * k * time + k) for k in (1, 2, 5, 9))
    noise = level * rng.standard_normal(len(time))
    # It arrives later at the far microphone.
    return np.stack([machine + noise, leak * machine + np.roll(noise, 40)]), machine


@pytest.mark.parametrize(("rule", "lost"), [("subtraction", 5.0), ("wiener", 8.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_noise_of_both_goes_and_the_machine_stays(rule, lost, seed):
    recording, machine = machine_in_noise(seed)
    denoised = Denoised(LogMel.twfr(), rule).denoise(recording)
    bands = LogMel.twfr()
    before, after, clean = (bands(one).mean(axis=1) for one in (recording[0], denoised, machine))
    running, silent = clean > before.max() - 20, clean < before.min() - 20
    assert running.any()
    assert silent.any()
    assert np.abs(after - clean)[running].max() < 0.5
    assert (before - after)[silent].min() > lost


def surrounded(folder, seed, faulty=False):
    """A machine; in test clips there are tones around it that no training clip has."""
    rng, time = np.random.default_rng(seed), np.arange(32_000) / 16_000
    both, _ = machine_in_noise(seed, level=0.003)
    tones = np.sin(2 * np.pi * np.outer(rng.uniform(400, 7000, rng.integers(1, 9)), time))
    around = (seed >= 100) * rng.uniform(0.005, 0.05) * tones.sum(axis=0)
    fault = faulty * 0.008 * np.sin(2 * np.pi * 2050 * time)
    path = folder / f"{seed}.wav"
    soundfile.write(path, (both + around + np.outer([1, 0.2], fault)).T, 16_000, subtype="FLOAT")
    return Clip(path, "fan", label="anomaly" if faulty else "normal")


def test_a_fault_is_detected_in_surroundings_that_no_training_clip_has(tmp_path):
    cache = FeatureCache(channel="near")
    train = Clips([surrounded(tmp_path, seed) for seed in range(20)], cache)
    test = Clips([surrounded(tmp_path, seed, seed >= 116) for seed in range(100, 132)], cache)

    def auc(representation):
        detector = KNN(representation).fit(train)
        return roc_auc_score(test.labels, detector.score(test))

    near = TimeStatistics(pool_by="mean")
    assert auc(near) < 0.75
    assert auc(NearFar(near)) < 0.75
    assert auc(TimeStatistics(Denoised(LogMel.twfr()), pool_by="mean")) > 0.95


@pytest.mark.parametrize("rule", RULES)
def test_gains_are_those_of_the_formula(rule):
    rng = np.random.default_rng(0)
    power, noise = rng.uniform(0.1, 2, (2, 7, 5))
    gain = Denoised(np.abs, rule, noise=1.5, floor=0.04).gain(power, noise)
    for x, n, found in zip(power.flat, noise.flat, gain.flat, strict=True):
        # Berouti's subtraction of 1.5 times the noise, and Lim and Oppenheim's S / (S + N).
        left = max(x - 1.5 * n, 0.04 * x)
        expected = (left / x) ** 0.5 if rule == "subtraction" else left / (left + (x - left))
        assert found == pytest.approx(expected)


def test_what_is_subtracted_is_the_mean_power_of_some_frames():
    far = np.zeros(32_000)
    far[16_000] = 1.0
    near = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    changed = {}
    for frames in (1, 9):
        difference = Denoised(np.abs, frames=frames, noise=100.0).denoise(np.stack([near, far]))
        changed[frames] = np.flatnonzero(np.abs(difference - near) > 1e-3)
    assert np.ptp(changed[1]) <= 2 * 1024
    assert 4 * 1024 < np.ptp(changed[9]) <= 11 * 512 + 1024


@pytest.mark.parametrize("rule", RULES)
def test_without_noise_or_with_a_silent_far_channel_nothing_changes(rule):
    recording, _ = machine_in_noise()
    near = recording[0]
    np.testing.assert_allclose(
        Denoised(np.abs, rule, noise=0.0).denoise(recording), near, atol=1e-6
    )
    silent = np.stack([near, 0 * near])
    np.testing.assert_allclose(Denoised(np.abs, rule).denoise(silent), near, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 3, 160, 1023, 16_001])
def test_a_waveform_of_any_length_is_denoised(samples):
    waveforms = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    denoised = Denoised(LogMel.twfr()).denoise(waveforms)
    assert denoised.shape == (samples,)
    assert denoised.dtype == np.float32
    assert np.isfinite(denoised).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rule": "median"}, "rule 'median': expected 'wiener' or 'subtraction'"),
        ({"noise": -1.0}, "noise=-1"),
        ({"floor": 2.0}, "floor=2"),
        ({"frames": 0}, "frames=0"),
    ],
)
def test_what_cannot_be_subtracted_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        Denoised(LogMel.twfr(), **options)


def test_the_far_microphone_has_less_of_the_machine_and_as_much_around(two_microphones, factory):
    for stereo in sorted(two_microphones.rglob("eval_data/bearing/train/*.wav"))[:4]:
        both, _ = soundfile.read(stereo)
        mono, _ = soundfile.read(factory / stereo.relative_to(two_microphones))
        np.testing.assert_array_equal(both[:, 0], mono)
    point = {"spd": "1200", "load": "1", "mic": "1"}
    one, other = (
        simulate("fan", point, "normal", np.random.default_rng(0), 1.0, far_microphone=far)
        for far in (False, True)
    )
    np.testing.assert_array_equal(other[:, 0], one)
    assert other[:, 1].std() < other[:, 0].std()


def test_both_channels_are_read_at_any_rate(tmp_path):
    path = tmp_path / "two.wav"
    sound = 0.1 * np.random.default_rng(0).standard_normal((48_000, 2))
    soundfile.write(path, sound, 48_000, subtype="FLOAT")
    for rate in (16_000, 48_000):
        both = read(path, channel="both", sampling_rate=rate, seconds=0.5)
        assert both.shape == (2, rate // 2)
        for name, waveform in zip(("near", "far"), both, strict=True):
            alone = read(path, channel=name, sampling_rate=rate, seconds=0.5)
            np.testing.assert_array_equal(waveform, alone)


@pytest.mark.parametrize("channels", [1, 3])
def test_both_of_other_than_two_channels_are_refused(channels, tmp_path):
    path = tmp_path / "some.wav"
    soundfile.write(path, np.full((99, channels), 0.1), 16_000)
    told = (
        f"some.wav: expected two channels, near and far, which the detector takes, found {channels}"
    )
    with pytest.raises(AudioError, match=told):
        read(path, channel="both")


def test_features_of_one_channel_and_of_both_are_kept_apart(clips, tmp_path):
    cache, clip = FeatureCache(tmp_path, channel="near"), clips[0]
    near, both = cache.get(LogMel.twfr(), clip), cache.get(EachChannel(LogMel.twfr()), clip)
    np.testing.assert_array_equal(both[0], near)
    far = FeatureCache(channel="far").get(LogMel.twfr(), clip)
    np.testing.assert_array_equal(both[1], far)
    np.testing.assert_array_equal(cache.get(LogMel.twfr(), clip), near)


def test_a_front_end_of_both_reads_what_the_one_within_does():
    end = Denoised(LogMel.twfr(3.0, sampling_rate=48_000))
    assert (end.max_seconds, end.sampling_rate, end.channel) == (3.0, 48_000, "both")
    assert EachChannel(np.abs).max_seconds is None


@pytest.mark.parametrize("representation", KINDS, ids=["near_far", "denoised"])
def test_a_representation_of_both_is_its_settings(representation, clips, tmp_path):
    points = representation(clips)
    assert points.shape == (len(clips), 256 if isinstance(representation, NearFar) else 128)
    np.testing.assert_array_equal(representation(clips[[3]])[0], points[3])
    detector = KNN(representation).fit(clips.where(split="train"))
    detector.save(tmp_path)
    again = load(tmp_path)
    assert again.representation == representation
    np.testing.assert_array_equal(again.score(clips), detector.score(clips))
    assert takes_both(detector)
    assert count_parameters(representation) == 0


def test_near_and_far_are_those_of_each_channel(clips):
    near, far = np.split(KINDS[0](clips), 2, axis=1)
    inner = KINDS[0].representation
    np.testing.assert_array_equal(near, inner(clips))
    np.testing.assert_array_equal(far, inner(Clips(clips, FeatureCache(channel="far"))))


# The command


def configured(folder, root, *overrides):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose(
            "config",
            ["data=dcase", f"data.root={root}", "data.channel=near", "logger=none",
             f"store={folder / 'store'}", *overrides],
        )  # fmt: skip
    return Run(cfg, folder / "run")


@pytest.mark.parametrize("representation", ["near_far", "denoised"])
def test_mono_clips_are_refused_before_any_stage(
    representation, two_microphones, factory, tmp_path
):
    detector = "detector=knn", f"representation={representation}"
    synthetic = configured(tmp_path, two_microphones, *detector, "generator=transforms")
    with pytest.raises(ValueError, match=r"\(FaultTransforms\): its clips are mono, and the det"):
        synthetic()
    recorded = configured(tmp_path, factory, *detector, "generator=none")
    with pytest.raises(ValueError, match=r"wav: expected two channels, near and far, .* found 1"):
        recorded()
    assert not list((tmp_path / "store").rglob("provenance.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "representation", ["near_far", pytest.param("denoised", marks=pytest.mark.nightly)]
)
def test_the_layout_of_2026_end_to_end(representation, two_microphones, tmp_path):
    def command(name, *arguments):
        done = commands.run(
            [sys.executable, "-m", f"fsasd.cli.{name}", *map(str, arguments)],
            cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "FSASD_STORE": str(tmp_path / "store")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    command(
        "main", "data=dcase2026", f"data.root={two_microphones}", "data.references=[fan,valve]",
        "data.targets=[bearing]", "detector=knn", f"representation={representation}",
        "generator=none", "logger=none", "hydra.run.dir=run",
    )  # fmt: skip
    clips = pd.read_csv(tmp_path / "run/clips.csv")
    assert np.isfinite(clips["score"]).all()
    # The saved detector takes both channels, too.
    folder = two_microphones / "eval_data/bearing/test"
    table = command("score", "--model", "run/models/bearing", folder).splitlines()[1:]
    scores = {Path(row.split(",")[0]).name: float(row.split(",")[1]) for row in table}
    expected = dict(zip(clips["file"], clips["score"], strict=True))
    assert scores == pytest.approx({Path(name).name: expected[name] for name in expected})


def test_a_synthetic_clip_has_no_far_channel(tmp_path):
    path = tmp_path / "mono.wav"
    soundfile.write(path, np.full(16_000, 0.1), 16_000)
    clip = Clip(path, "fan", synthetic=True)
    with pytest.raises(AudioError, match="expected two channels, near and far"):
        FeatureCache(channel="near").get(EachChannel(LogMel.twfr()), clip)


def test_a_far_microphone_is_written_by_the_factory(tmp_path):
    root = write_factory(
        tmp_path / "two", references=(), targets=["fan"], seconds=0.5, train_clips=2,
        target_domain_clips=1, test_clips=1, far_microphone=True,
    )  # fmt: skip
    assert {soundfile.info(path).channels for path in root.rglob("*.wav")} == {2}
