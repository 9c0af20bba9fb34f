"""What each fault does to a sound, measured on the sound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks, hilbert, welch

from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.faults import CREST, FAULTS

VALUES = {
    "rate": 5.0, "resonance": 2500.0, "pitch": 900.0, "shift": 1.5, "duration": 0.1, "above": 2e3,
}  # fmt: skip


def hum(seconds=1.0, seed=0):
    """Noise over a tone, as of a machine, peaking at about 600 Hz."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.standard_normal(len(time)).cumsum()
    noise = noise - np.convolve(noise, np.ones(64) / 64, mode="same")
    return (0.02 * noise / noise.std() + 0.05 * np.sin(2 * np.pi * 600 * time)).astype(np.float32)


def faulty(kind, waveform, strength=1.0, seed=0, **values):
    fault = FAULTS[kind]
    drawn = {name: values.get(name, VALUES.get(name)) for name in fault.parameters}
    return fault.apply(waveform, np.random.default_rng(seed), **{**drawn, "strength": strength})


def rms(waveform):
    return np.sqrt(np.mean(np.square(waveform, dtype=float)))


def power(waveform, low, high):
    frequencies, density = welch(waveform, SAMPLE_RATE, nperseg=2048)
    return density[(frequencies >= low) & (frequencies < high)].sum()


# What all have in common


@pytest.mark.parametrize("kind", FAULTS)
@given(seed=st.integers(0, 2**32 - 1), strength=st.floats(0.01, 1), seconds=st.floats(0.3, 1.2))
@settings(max_examples=8)
def test_a_fault_changes_a_sound_and_not_its_shape(kind, seed, strength, seconds):
    sound = hum(seconds)
    before = sound.copy()
    changed = faulty(kind, sound, strength, seed)
    np.testing.assert_array_equal(sound, before)
    assert changed.dtype == np.float32
    assert changed.shape == sound.shape
    assert np.isfinite(changed).all()
    assert np.abs(changed - sound).max() > 1e-4 * rms(sound)


@pytest.mark.parametrize("kind", FAULTS)
def test_no_strength_is_no_fault(kind):
    np.testing.assert_allclose(faulty(kind, hum(), 0.0), hum(), atol=1e-7)


@pytest.mark.parametrize("kind", FAULTS)
def test_the_stronger_the_farther_from_the_original(kind):
    away = [rms(faulty(kind, hum(), strength, seed=3) - hum()) for strength in (0.1, 0.4, 1.0)]
    assert away[0] < away[1]
    # A wobble that takes a tone out of phase once cannot do so more.
    assert away[1] < away[2] or kind == "wobble"


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_means_the_same_for_quiet_and_loud_machines(kind):
    quiet, loud = faulty(kind, 0.01 * hum()), faulty(kind, hum())
    np.testing.assert_allclose(quiet, 0.01 * loud, atol=1e-6)


@pytest.mark.parametrize("kind", FAULTS)
def test_the_same_draw_is_the_same_fault(kind):
    np.testing.assert_array_equal(faulty(kind, hum(), seed=7), faulty(kind, hum(), seed=7))
    others = [faulty(kind, hum(), seed=seed) for seed in range(8, 20)]
    assert not all(np.array_equal(faulty(kind, hum(), seed=7), other) for other in others)


@pytest.mark.parametrize("kind", FAULTS)
def test_silence_stays_silent(kind):
    assert not faulty(kind, np.zeros(8000, np.float32)).any()


# What each is


def test_impacts_come_at_their_rate_and_ring_at_their_resonance():
    sound = hum(4.0)
    blows = faulty("impacts", sound, rate=10.0, resonance=3000.0) - sound
    envelope = np.abs(hilbert(blows))
    result, _ = find_peaks(envelope, height=0.15 * envelope.max(), distance=SAMPLE_RATE // 20)
    assert len(result) == pytest.approx(40, abs=2)
    gaps = np.diff(result) / SAMPLE_RATE
    assert np.median(gaps) == pytest.approx(0.1, rel=0.02)
    assert 0.001 < gaps.std() < 0.01
    frequencies, density = welch(blows, SAMPLE_RATE, nperseg=2048)
    ringing = frequencies[density.argmax()]
    assert ringing == pytest.approx(3000, rel=0.05) or 1.25 < ringing / 3000 < 2.25


def test_impacts_of_full_strength_are_as_high_as_the_clips_peaks():
    sound = hum(4.0)
    blows = faulty("impacts", sound, rate=10.0) - sound
    heights = np.sort(np.abs(blows))[-400:]
    assert CREST / 2 < heights.mean() / rms(sound) < CREST * 3


def test_the_rarest_impact_still_comes_once():
    for seed in range(20):
        sound = hum(0.5)
        assert np.abs(faulty("impacts", sound, seed=seed, rate=0.1) - sound).max() > rms(sound)


@pytest.mark.parametrize("strength", [0.3, 0.9])
def test_modulation_swings_the_level_at_its_rate_and_depth(strength):
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    swung = faulty("modulation", tone, strength, rate=5.0)
    level = np.abs(hilbert(swung))[1000:-1000]
    assert (level.max() - level.min()) / (level.max() + level.min()) == pytest.approx(
        strength, abs=0.02
    )
    turns = np.abs(np.fft.rfft(level - level.mean(), 16 * len(level)))
    rate = turns.argmax() * SAMPLE_RATE / (16 * len(level))
    assert rate == pytest.approx(5.0, abs=0.1)
    assert rms(swung) == pytest.approx(rms(tone), rel=0.01)


def test_harmonics_are_at_multiples_of_the_pitch():
    sound = hum(2.0)
    added = faulty("harmonics", sound, 0.5, pitch=1000.0) - sound
    assert rms(added) == pytest.approx(0.5 * rms(sound), rel=1e-3)
    near = sum(power(added, k * 980, k * 1020) for k in range(1, 8))
    assert near > 0.95 * power(added, 0, 8000)


def test_the_main_resonance_moves():
    sound = hum(2.0)
    moved = faulty("resonance_shift", sound, shift=2.0)
    assert power(moved, 550, 650) < 0.2 * power(sound, 550, 650)
    up, down = (power(moved, *band) / power(sound, *band) for band in ((1150, 1250), (280, 320)))
    assert max(up, down) > 5
    assert min(up, down) == pytest.approx(1, abs=0.3)


def test_a_wobble_is_a_speed_that_goes_up_and_down_by_a_tenth():
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)
    wobbled = faulty("wobble", tone, 1.0, rate=2.0)
    pitch = np.diff(np.unwrap(np.angle(hilbert(wobbled)))) * SAMPLE_RATE / (2 * np.pi)
    pitch = pitch[4000:-4000]
    assert np.quantile(pitch, 0.99) == pytest.approx(550, rel=0.02)
    assert np.quantile(pitch, 0.01) == pytest.approx(450, rel=0.02)


def test_dropouts_take_the_level_down_for_a_while_and_give_it_back():
    sound = np.full(4 * SAMPLE_RATE, 0.1, np.float32)
    fallen = faulty("dropouts", sound, 0.8, rate=1.0, duration=0.1) / sound
    assert fallen.min() == pytest.approx(0.2, abs=1e-3)
    assert fallen.max() == pytest.approx(1.0, abs=1e-6)
    assert 0.01 < np.mean(fallen < 0.5) < 0.4
    # No click: the level needs some milliseconds.
    assert np.abs(np.diff(fallen)).max() < 0.05


@pytest.mark.parametrize("kind", ["leak", "rubbing"])
def test_noise_is_added_above_its_frequency_and_at_its_level(kind):
    sound = hum(2.0)
    added = faulty(kind, sound, 0.5, above=3000.0) - sound
    assert rms(added) == pytest.approx(0.5 * rms(sound), rel=1e-3)
    assert power(added, 3000, 8000) > 5 * power(added, 0, 1500)


def test_a_scrape_swells_once_per_turn_and_a_leak_does_not():
    sound = hum(4.0)
    swings = {}
    for kind in ("rubbing", "leak"):
        added = faulty(kind, sound, rate=4.0, above=2000.0) - sound
        level = np.abs(hilbert(added)).reshape(-1, 160).mean(axis=1)
        spectrum = np.abs(np.fft.rfft(level - level.mean()))
        swings[kind] = spectrum[16] / level.sum()
    assert swings["rubbing"] > 0.3
    assert swings["leak"] < 0.1


def test_squeals_are_cries_at_their_pitch():
    sound = hum(4.0)
    cries = faulty("squeal", sound, pitch=2000.0, rate=1.0) - sound
    assert power(cries, 1880, 2120) > 0.6 * power(cries, 0, 8000)
    loud = np.abs(hilbert(cries)) > 0.1 * np.abs(cries).max()
    assert 0.01 < loud.mean() < 0.95
