"""What distinguishes two recordings goes into a third: where, how strongly, and nothing else."""

import numpy as np
import pytest

from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.spectra import BANDS, band_levels, spectra
from fsasd.generation.transplant import BandQuantiles, Difference, difference, rms, transplant

SAMPLES = 4 * SAMPLE_RATE


def noise(seed, samples=SAMPLES, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(samples)


def tone(hertz, level=0.05, samples=SAMPLES):
    return level * np.sin(2 * np.pi * hertz / SAMPLE_RATE * np.arange(samples))


def without(waveform, low, high):
    """A waveform without the frequencies of a band."""
    spectrum = np.fft.rfft(waveform)
    hertz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    spectrum[(hertz >= low) & (hertz < high)] *= 1e-2
    return np.fft.irfft(spectrum, len(waveform))


def change_in_db(after, before, low, high):
    """How much the power between two frequencies rose."""
    hertz = np.fft.rfftfreq(len(before), 1 / SAMPLE_RATE)
    band = (hertz >= low) & (hertz < high)
    power = [np.sum(np.abs(np.fft.rfft(x)[band]) ** 2) for x in (after, before)]
    return 10 * np.log10(power[0] / power[1])


def put_in(target, anomaly, usual, strength=1.0, seed=0):
    return transplant(target, difference(anomaly, usual), strength, np.random.default_rng(seed))


def test_a_tone_of_the_reference_is_heard_in_the_target_and_nothing_else():
    target = noise(2)
    changed = put_in(target, noise(0) + tone(3000), noise(1))
    assert change_in_db(changed, target, 2990, 3010) > 10
    for low, high in ((50, 500), (500, 2000), (4000, 8000)):
        assert abs(change_in_db(changed, target, low, high)) < 0.5
    assert np.abs(np.fft.rfft(changed - target)).argmax() == 3000 * 4


def test_a_band_that_the_reference_lost_is_lost_in_the_target():
    target = noise(2)
    changed = put_in(target, without(noise(0), 2812.5, 3468.75), noise(1))
    assert change_in_db(changed, target, 2900, 3400) < -15
    for low, high in ((50, 2700), (3600, 8000)):
        assert abs(change_in_db(changed, target, low, high)) < 0.5


def test_losses_grow_with_strength_in_decibels():
    target, thinner = noise(2), noise(0, level=0.05)
    falls = [
        change_in_db(put_in(target, thinner, noise(1), s), target, 0, 8000) for s in (0.5, 1, 2)
    ]
    np.testing.assert_allclose(falls, [-3, -6, -12], atol=0.4)


def test_what_is_added_is_proportional_to_the_strength():
    added = difference(noise(0) + tone(3000, 0.2), noise(1)).added
    change = Difference(added, np.zeros((9, BANDS), np.float32))
    one, two = (
        transplant(noise(2), change, strength, np.random.default_rng(0)) - noise(2)
        for strength in (1, 2)
    )
    np.testing.assert_allclose(two, 2 * one, atol=1e-5)
    assert rms(one) == pytest.approx(0.2 / np.sqrt(2), rel=0.1)


def test_it_is_as_loud_beside_the_target_as_it_was_beside_the_reference():
    quiet, loud = noise(2, level=0.01), noise(2, level=0.3)
    change = difference(noise(0) + tone(3000), noise(1))
    changed = [transplant(x, change, 1.0, np.random.default_rng(0)) for x in (quiet, loud)]
    np.testing.assert_allclose(changed[0] * 30, changed[1], rtol=1e-3, atol=1e-4)
    # A reference that was recorded ten times as loud has the same difference.
    louder = difference(10 * (noise(0) + tone(3000)), 10 * noise(1))
    np.testing.assert_allclose(louder.added, change.added, atol=1e-4)


def test_a_blow_is_as_short_as_it_was():
    blow = np.zeros(SAMPLES)
    blow[30_000:30_400] = 2 * noise(3, 400, level=1.0)
    target = noise(2)
    changed = put_in(target, noise(0) + blow, noise(1))
    added = np.square(changed - target)
    assert added[29_000:31_500].sum() > 0.95 * added.sum()


def test_two_normal_sounds_leave_the_spectrum_within_some_decibels():
    target = noise(2)
    for strength in (0.35, 0.7, 1.4):
        changed = put_in(target, noise(0), noise(1), strength)
        levels = [band_levels(spectra(x)).mean(axis=0) for x in (changed, target)]
        assert np.abs(levels[0] - levels[1]).max() < 2


def test_a_recording_that_is_like_its_neighbour_changes_nothing():
    target = noise(2)
    np.testing.assert_allclose(put_in(target, noise(0), noise(0)), target, atol=1e-6)


def test_when_the_sounds_were_does_not_matter():
    usual = noise(1)
    rolled = np.roll(usual, 64 * 256)
    change = difference(usual[: 3 * SAMPLE_RATE], rolled[: 3 * SAMPLE_RATE])
    assert rms(change.added) < 0.15
    quantiles = BandQuantiles()(usual)
    np.testing.assert_allclose(quantiles[4:-4], BandQuantiles()(rolled)[4:-4], atol=1.0)
    assert quantiles.shape == (64, BANDS)
    assert (np.diff(quantiles, axis=0) >= 0).all()


@pytest.mark.parametrize("samples", [300, SAMPLE_RATE, SAMPLES, 6 * SAMPLE_RATE + 7])
def test_a_shorter_one_is_repeated_of_a_longer_one_a_part_is_taken(samples):
    target = noise(2)
    changed = put_in(target, noise(0, samples) + tone(3000, 0.2, samples), noise(1))
    assert changed.shape == target.shape
    assert changed.dtype == np.float32
    for part in np.split(np.arange(SAMPLES), 4):
        assert change_in_db(changed[part], target[part], 2900, 3100) > 10


def test_the_part_of_a_longer_one_is_drawn():
    beginning = tone(3000, 0.2, 12 * SAMPLE_RATE) * (np.arange(12 * SAMPLE_RATE) < SAMPLES)
    longer = noise(0, 12 * SAMPLE_RATE) + beginning
    rises = [
        change_in_db(put_in(noise(2), longer, noise(1), seed=seed), noise(2), 2990, 3010)
        for seed in range(8)
    ]
    assert min(rises) < 3 < 10 < max(rises)


@pytest.mark.parametrize("silent", ["recording", "usual", "target"])
def test_silence_is_no_level(silent):
    clips = {"recording": noise(0), "usual": noise(1), "target": noise(2)}
    clips[silent] = np.zeros(SAMPLES)
    changed = put_in(clips["target"], clips["recording"], clips["usual"])
    assert np.isfinite(changed).all()
    if silent == "target":
        assert not changed.any()
    if silent == "recording":
        assert rms(changed) < 1e-4
