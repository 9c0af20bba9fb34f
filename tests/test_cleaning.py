import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.cleaning import MAX_CLIPPED, Cleaning, fit_length, remove_silence

FRAME = 1024
"""Samples of a frame at 16 kHz."""

FRAME = 1024
"""Samples of a frame at 16 kHz."""


def noise(frames, level=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return (level * rng.uniform(-1, 1, frames * FRAME)).astype(np.float32)


def clean(waveform, **options):
    """What is left of a clip that lasts as long as it should."""
    return Cleaning(**options)(waveform, len(waveform) / SAMPLE_RATE)


def silence(frames):
    return np.zeros(frames * FRAME, np.float32)


@pytest.mark.parametrize(
    "parts",
    [
        [silence(3), noise(10)],
        [noise(10), silence(3)],
        [noise(5), silence(3), noise(5, seed=1)],
        [silence(1), noise(1), silence(1), noise(1, seed=1), silence(2)],
    ],
    ids=["before", "behind", "between", "everywhere"],
)
def test_silence_is_cut_out_and_the_sound_stays_in_order(parts):
    sound = np.concatenate([part for part in parts if part.any()])
    np.testing.assert_array_equal(remove_silence(np.concatenate(parts)), sound)


def test_a_clip_without_silence_stays_as_it_is():
    waveform = np.append(noise(10), np.float32(0.05))
    np.testing.assert_array_equal(remove_silence(waveform), waveform)


@pytest.mark.parametrize(("below_db", "kept"), [(30.0, 10), (50.0, 20)])
def test_silence_is_measured_from_the_loudest_frame(below_db, kept):
    waveform = np.concatenate([noise(10), noise(10, level=0.1 * 10 ** (-40 / 20))])
    assert len(remove_silence(waveform, below_db)) == kept * FRAME


@given(st.floats(1e-3, 1))
def test_the_level_of_the_whole_does_not_matter(gain):
    waveform = np.concatenate([noise(4), noise(3, level=1e-5), noise(4, seed=1)])
    assert len(remove_silence((gain * waveform).astype(np.float32))) == 8 * FRAME


def test_what_has_no_sound_becomes_empty():
    assert remove_silence(silence(5)).shape == (0,)


def test_silence_is_removed_once_and_for_all():
    once = remove_silence(np.concatenate([noise(4), silence(3), noise(4, seed=1)]))
    np.testing.assert_array_equal(remove_silence(once), once)
    assert once.dtype == np.float32


def test_a_good_clip_is_kept_without_its_silence():
    sound, reason = clean(np.concatenate([noise(10), silence(5)]))
    assert reason == ""
    np.testing.assert_array_equal(sound, noise(10))


@pytest.mark.parametrize("level", [0.0, 5e-5])
def test_a_silent_clip_is_rejected(level):
    waveform = noise(20, level)
    kept, reason = clean(waveform)
    assert reason == "silent"
    np.testing.assert_array_equal(kept, waveform)


def test_what_is_just_audible_is_kept():
    assert clean(noise(20, 5e-4))[1] == ""


def test_a_clip_that_is_all_silence_but_a_click_is_rejected():
    waveform = np.concatenate([silence(20), noise(3), silence(20)])
    assert clean(waveform)[1] == "shorter than 0.5 s without its silence"


def test_half_a_second_of_sound_is_enough():
    exact = noise(20)[: SAMPLE_RATE // 2]
    assert clean(exact)[1] == ""
    assert "shorter than 0.5 s" in clean(exact[:-1])[1]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_clip_with_a_sample_that_is_no_number_is_rejected_and_silenced(wrong):
    waveform = noise(20)
    waveform[77] = wrong
    kept, reason = clean(waveform)
    assert reason == "not finite"
    assert kept.shape == waveform.shape
    assert not kept.any()


@pytest.mark.parametrize(("share", "reason"), [(MAX_CLIPPED / 2, ""), (MAX_CLIPPED * 2, "clipped")])
def test_a_clip_that_clips_often_is_rejected(share, reason):
    waveform = noise(20)
    waveform[: round(share * len(waveform))] = -1.2
    assert clean(waveform)[1] == reason


def test_silence_can_be_kept():
    waveform = np.concatenate([noise(10), silence(5)])
    np.testing.assert_array_equal(clean(waveform, silence_db=None)[0], waveform)


def test_silence_in_a_real_recording_is_the_machines():
    waveform = np.concatenate([noise(10), silence(5)])
    kept, reason = Cleaning()(waveform, 1.0, derived=True)
    assert reason == ""
    np.testing.assert_array_equal(kept, waveform)


def test_a_clip_that_lost_its_silence_is_repeated_to_its_sources_length():
    sound = noise(10)
    kept, reason = clean(np.concatenate([sound, silence(5)]), match_duration=True)
    assert (reason, len(kept)) == ("", 15 * FRAME)
    np.testing.assert_array_equal(kept[: 9 * FRAME], sound[: 9 * FRAME])


def test_a_clip_that_is_too_long_is_trimmed():
    waveform = noise(20)
    kept, _ = Cleaning(match_duration=True)(waveform, 1.0)
    np.testing.assert_array_equal(kept, waveform[:SAMPLE_RATE])


@given(st.integers(1, 5), st.integers(0, 10))
def test_a_repeated_clip_has_no_click_at_its_seams(repeats, seed):
    rng = np.random.default_rng(seed)
    # A slow wave that does not come back to where it began: a seam without a fade would jump.
    wave = np.sin(np.linspace(0, rng.uniform(3, 9), 8 * FRAME)).astype(np.float32)
    longer = fit_length(wave, (repeats * 8 + 3) * FRAME)
    steepest = np.abs(np.diff(wave)).max()
    assert np.abs(np.diff(longer)).max() < 2 * steepest + np.pi / FRAME


def test_a_repeated_noise_is_as_loud_at_its_seams():
    sound = noise(40)
    longer = fit_length(sound, 300 * FRAME)
    power = np.array([np.mean(frame**2) for frame in np.split(longer, 300)])
    assert power.min() > 0.7 * np.mean(sound**2)
    assert power.max() < 1.4 * np.mean(sound**2)
