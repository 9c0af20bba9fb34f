"""What AudioLDM hears, computed once: mels, moments, crops, the cache, shares of processes."""

import errno
import io
import itertools

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data import feature_file
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.draws import Draw
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.generation.audioldm import checkpoint
from fsasd.generation.audioldm.mel import normalised_mel, windows
from fsasd.generation.audioldm.model import AudioLDMModel
from fsasd.generation.audioldm.vocoder import GriffinLim
from fsasd.generation.diffusion.kept_conditions import KeptCondition
from fsasd.generation.diffusion.latents import LatentExamples, LatentFrontEnd, fill_cache
from fsasd.generation.level import normalise


@pytest.fixture(scope="module")
def nano():
    return AudioLDMModel(checkpoint.load("nano"))


@pytest.fixture(scope="module")
def vae(nano):
    return nano.components.vae


@pytest.fixture
def clips(make_wav, tmp_path):
    """Recordings of 0.5, 1 and 2 seconds, with a cache on the disk."""
    result = [
        Clip(make_wav(f"{seconds}.wav", seconds=seconds), "fan", label="normal")
        for seconds in (0.5, 1.0, 2.0)
    ]
    return Clips(result, FeatureCache(tmp_path / "cache"))


def examples(clips, nano, seconds=0.64, frames=16, **options):
    options = {"random_crop": True, **options}
    return LatentExamples(
        clips, ["a fan"] * len(clips), {"a fan": torch.ones(3)}, LatentFrontEnd(nano, seconds),
        frames=frames, **options,
    )  # fmt: skip


# What is heard


def test_short_clips_are_repeated_and_never_padded_with_silence(nano):
    sound = np.sin(np.arange(8000) * 0.3).astype(np.float32)
    moments = LatentFrontEnd(nano, 2.56)(sound)
    assert moments.shape == (8, 64, 16)
    # 131 kB for ten seconds of the real models' 16 channels.
    assert moments.dtype == np.float16
    whole = LatentFrontEnd(nano, 0.1)(np.tile(sound, 6)[:40960])
    np.testing.assert_allclose(moments, whole, atol=1e-2)


def test_long_recordings_are_encoded_in_windows(vae, monkeypatch, nano):
    """What a window does not know, the VAE normalises away: of a steady sound all is the same."""
    sound = np.random.default_rng(0).uniform(-1, 1, 16_000 * 30).astype(np.float32)
    lengths, encode = [], vae.encode
    monkeypatch.setattr(vae, "encode", lambda x: lengths.append(x.shape[2]) or encode(x))
    result = LatentFrontEnd(nano, None)(sound)
    assert lengths == [1024, 1024, 1024, 120]
    with monkeypatch.context() as patch:
        patch.setattr("fsasd.generation.audioldm.mel.WINDOW", 4000)
        whole = LatentFrontEnd(nano, None)(sound)
    assert lengths[4:] == [3000]
    assert result.shape == whole.shape == (8, 750, 16)
    means = result[:4].astype(float), whole[:4].astype(float)
    np.testing.assert_allclose(means[0], means[1], atol=0.05 * means[1].std())


@given(frames=st.integers(4, 10_000))
def test_windows_cover_all_frames(frames):
    places = windows(frames)
    assert (places[0][0], places[-1][1]) == (0, frames)
    assert max(end - begin for begin, end in places) <= 1024
    for (_, end), (begin, after) in itertools.pairwise(places):
        assert (end - begin, after > end) == (64, True)


def test_crops_come_from_all_of_a_long_recording(make_wav, tmp_path, nano):
    clip = Clip(make_wav("long.wav", seconds=40), "fan", label="normal")
    long = examples(Clips([clip], FeatureCache(tmp_path / "cache")), nano, random_crop=True)
    whole = long.clips.cache.get(long.front_end, clip).astype(np.float32)
    starts = []
    for seed in range(40):
        crop = long[Draw(0, seed)]["moments"].numpy()
        starts += [i for i in range(985) if np.array_equal(whole[:, i : i + 16], crop)]
    assert len(starts) == 40
    assert min(starts) < 100 < 900 < max(starts)


def test_normalisation_removes_mean_and_gain_restores_the_level():
    sound = np.array([0.1, 0.3, 0.1, -0.1], np.float32)
    normalised, gain = normalise(sound)
    assert np.abs(normalised).max() == pytest.approx(0.5)
    np.testing.assert_allclose(normalised / gain, sound - 0.1, atol=1e-7)


def test_griffin_lim_gives_back_the_mel_it_was_given(factory):
    path = next((factory / "dev_data" / "fan" / "train").glob("*.wav"))
    mel = normalised_mel(read(path))
    waveform = GriffinLim()(torch.from_numpy(mel)[None])[0].numpy()
    again = LogMel.audioldm()(waveform).T
    assert len(waveform) == len(mel) * 160
    assert np.abs(again - mel[: len(again)]).mean() < 0.25


def test_decoded_latents_sound_like_the_clip(factory, vae):
    path = next((factory / "dev_data" / "fan" / "train").glob("*.wav"))
    mel = torch.from_numpy(normalised_mel(read(path)))[None, None, :96]
    with torch.no_grad():
        latents = vae.encode(mel).latent_dist.mean
        error = (vae.decode(latents).sample - mel).abs().mean()
    assert float(error) < 0.6
    assert float((latents * vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.5)


# Crops


def test_a_draws_seed_decides_its_crop(clips, nano):
    data = examples(clips, nano)
    moments = torch.from_numpy(clips.cache.get(data.front_end, clips[2])).float()
    assert moments.shape == (8, 50, 16)
    starts = set()
    for seed in range(40):
        crop = data[Draw(2, seed)]["moments"]
        assert torch.equal(crop, data[Draw(2, seed)]["moments"])
        (start,) = [s for s in range(35) if torch.equal(moments[:, s : s + 16], crop)]
        starts.add(start)
    assert len(starts) > 15


def test_validation_crops_the_middle(clips, nano):
    data = examples(clips, nano, random_crop=False)
    moments = torch.from_numpy(clips.cache.get(data.front_end, clips[2])).float()
    assert torch.equal(data[Draw(2, 9)]["moments"], moments[:, 17:33])


def test_whole_clips_are_repeated_to_one_length_that_is_known(clips, nano):
    data = examples(clips, nano, seconds=None, frames=None)
    batch = data.collate([data[Draw(i, i)] for i in range(3)])
    assert batch["frames"].tolist() == [12, 25, 50]
    assert batch["moments"].shape == (3, 8, 50, 16)
    short = batch["moments"][0]
    for start in (12, 24, 36):
        assert torch.equal(short[:, start : start + 12], short[:, :12])
    assert batch["draws"] == [Draw(i, i) for i in range(3)]


# The cache


@pytest.mark.parametrize("shape", [(5,), (4, 3), (1, 6), (4, 2, 3)])
def test_a_condition_is_kept_as_it_was(shape):
    tensor = torch.randn(shape)
    tensor[-1] = 0
    for condition in (tensor, torch.zeros(shape), torch.zeros(shape, dtype=torch.long)):
        again = KeptCondition(condition).condition()
        assert torch.equal(again, condition)
        assert again.dtype == condition.dtype
    both = KeptCondition({"a": tensor, "b": tensor > 0}).condition()
    assert torch.equal(both["a"], tensor)
    assert torch.equal(both["b"], tensor > 0)


def test_a_batch_of_conditions_is_not_kept_by_one_of_them():
    batch = torch.randn(100, 8, 4)
    kept = KeptCondition(batch[3])
    assert kept._tensors[""].rows.untyped_storage().nbytes() == batch[3].nbytes


def test_moments_are_read_when_they_are_normalised_and_not_kept(clips, monkeypatch, nano):
    data = examples(clips, nano)
    kept = [value for value in vars(data).values() if isinstance(value, (torch.Tensor, list))]
    assert not any(isinstance(item, torch.Tensor) for value in kept for item in value)
    before, get = data[Draw(2, 0)]["moments"], clips.cache.get
    monkeypatch.setattr(clips.cache, "get", lambda *args: get(*args) + 1)
    torch.testing.assert_close(data[Draw(2, 0)]["moments"], before + 1, atol=0.02, rtol=0)


def test_what_is_there_is_not_computed_again(clips, nano, monkeypatch):
    moments = LatentFrontEnd(nano, 0.64)
    calls, encode = [], nano.encode
    monkeypatch.setattr(nano, "encode", lambda sound: calls.append(1) or encode(sound))
    fill_cache(clips[:2], moments, "moments")
    fill_cache(clips, moments, "moments")
    assert len(calls) == 3


def test_processes_each_compute_their_share(clips, nano):
    moments = LatentFrontEnd(nano, 0.64)
    fill_cache(clips, moments, "moments", share=(1, 2))
    assert [clips.cache.holds(moments, clip) for clip in clips] == [False, True, False]
    fill_cache(clips, moments, "moments", share=(0, 2))
    assert all(clips.cache.holds(moments, clip) for clip in clips)


def test_without_a_folder_to_share_each_process_computes_all(clips, nano):
    alone, moments = Clips(clips, FeatureCache()), LatentFrontEnd(nano, 0.64)
    fill_cache(alone, moments, "moments", share=(1, 2))
    assert all(alone.cache.holds(moments, clip) for clip in alone)


def test_a_recording_that_is_altered_while_training_is_noticed(clips, nano):
    data = examples(clips, nano)
    soundfile.write(clips[1].path, 0.5 * clips.cache.read(clips[1]), SAMPLE_RATE)
    with pytest.raises(RuntimeError, match="recording was altered, or the cache emptied"):
        data[Draw(1, 0)]


def test_other_weights_have_other_latents(clips, nano):
    examples(clips, nano)
    other = AudioLDMModel(checkpoint.build("nano"))
    assert not clips.cache.holds(LatentFrontEnd(other, 0.64), clips[0])
    assert not clips.cache.holds(LatentFrontEnd(nano, 1.28), clips[0])
    assert clips.cache.holds(LatentFrontEnd(nano, 0.64), clips[0])


def test_a_full_disk_leaves_no_half_file_and_says_how_to_go_on(clips, monkeypatch, nano):
    class Full(io.FileIO):
        def writelines(self, lines):
            self.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return Full(path, "w")

    monkeypatch.setattr(feature_file, "_opened", opened)
    with pytest.raises(OSError, match=r"No space left.*data\.cache.*used again"):
        examples(clips, nano)
    files = {path.name for path in clips.cache.folder.rglob("*") if path.is_file()}
    assert all(name.startswith("content.txt") for name in files)


def test_cached_latents_and_those_computed_anew_give_the_same_loss(clips, vae, nano):
    """What a step costs 2.3 times less, and must not change."""
    data = examples(clips, nano, seconds=0.64, random_crop=False)
    cached = data[Draw(0, 0)]["moments"]
    with torch.no_grad():
        mel = normalised_mel(np.pad(clips.cache.read(clips[0]), (0, 2240), mode="wrap"))
        anew = vae.encode(torch.from_numpy(mel)[None, None]).latent_dist.parameters[0]
    unet = checkpoint.load("nano").unet
    noise = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(0))

    def loss(moments):
        latents = moments.chunk(2)[0] * vae.config.scaling_factor
        with torch.no_grad():
            result = unet(
                (latents + noise)[None], 500, encoder_hidden_states=None,
                class_labels=torch.zeros(1, 64),
            ).sample  # fmt: skip
        return float((result - noise).square().mean())

    assert loss(cached) == pytest.approx(loss(anew), rel=1e-3)
