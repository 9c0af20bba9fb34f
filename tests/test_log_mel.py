import subprocess
import sys

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsasd.data import log_mel as module
from fsasd.data.clips import FeatureCache
from fsasd.data.log_mel import LogMel, mel_filters
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.detectors.scoring.time_weighting import twfr

FRONT_ENDS = {"twfr": LogMel.twfr(), "audioldm": LogMel.audioldm()}


OTHERS = {
    "baseline": LogMel(scale="slaney", norm="slaney", floor=float(np.finfo(float).eps)),
    "long frames": LogMel(n_fft=2048, hop=300, n_mels=40, max_hz=6000.0, power=1.0),
}


def torchaudio_mel(front_end):
    return torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop,
        f_max=front_end.max_hz,
        n_mels=front_end.n_mels,
        power=front_end.power,
        center=False,
        norm=front_end.norm,
        mel_scale=front_end.scale,
    )


def torchaudio_log_mel(front_end, waveform):
    """The same by torchaudio, of a waveform that is longer than its padding."""
    reach = front_end.n_fft // 2 if front_end.pad is None else front_end.pad
    samples = torch.from_numpy(waveform)[None]
    samples = torch.nn.functional.pad(samples, (reach, reach), mode="reflect")[0]
    mel = torchaudio_mel(front_end)(samples).clamp(min=front_end.floor)
    return (10 * mel.log10() if front_end.decibel else mel.log()).numpy()


def machine(seed, seconds=1.0):
    """Hum, pink noise and knocks: loud below, quiet above, as machines are."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.normal(size=samples))
    noise = np.fft.irfft(spectrum / np.sqrt(1 + np.arange(len(spectrum))), samples)
    time = np.arange(samples) / SAMPLE_RATE
    hum = sum(0.1 / k * np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) for k in (1, 2, 5))
    knocks = 0.1 * (rng.uniform(size=samples) > 0.999)
    return (hum + noise + knocks).astype(np.float32)


def sine(hz, seconds=0.5, rate=SAMPLE_RATE):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


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


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
@pytest.mark.parametrize("name", [*FRONT_ENDS, *OTHERS])
@pytest.mark.parametrize("seed", range(3))
def test_a_log_mel_equals_that_of_torchaudio(name, seed):
    front_end, waveform = {**FRONT_ENDS, **OTHERS}[name], machine(seed, 1.0 + 0.317 * seed)
    expected = torchaudio_log_mel(front_end, waveform)
    atol = 1e-4 if front_end.decibel else 1e-5
    np.testing.assert_allclose(front_end(waveform), expected, rtol=1e-5, atol=atol)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
@pytest.mark.parametrize("name", [*FRONT_ENDS, *OTHERS])
def test_the_filters_are_those_of_torchaudio(name):
    front_end = {**FRONT_ENDS, **OTHERS}[name]
    expected = torchaudio_mel(front_end).mel_scale.fb.numpy().T
    np.testing.assert_allclose(mel_filters(front_end), expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("settings", [{"scale": "bark"}, {"norm": "area"}])
def test_an_unknown_mel_scale_is_an_error(settings):
    with pytest.raises(ValueError, match="expected scale 'htk' or 'slaney' and norm None or 'sl"):
        LogMel(**settings)(machine(0))


def test_another_version_of_the_computation_is_not_found_in_the_cache(
    make_wav, tmp_path, monkeypatch
):
    cache, clip = FeatureCache(tmp_path / "features"), Clip(make_wav("a.wav"), "fan")
    cache.get(LogMel.twfr(), clip)
    assert cache.holds(LogMel.twfr(), clip)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert not cache.holds(LogMel(max_seconds=10.0, version=module.VERSION), clip)


def test_another_version_than_this_releases_is_refused():
    with pytest.raises(ValueError, match=r"log-mel version: expected 2, .* found 1"):
        LogMel(version=1)


@pytest.mark.slow
def test_torch_is_not_needed():
    code = "import sys, fsasd.data.log_mel; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
