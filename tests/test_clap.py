"""CLAP: captions and recordings on one sphere; captions that are too close, too long, spread."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from torchaudio.functional import resample

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.audioldm import AudioLDM, checkpoint, clap

CAPTIONS = ["This is the normal sound of a fan.", "This is the anomaly sound of a fan."]


@pytest.fixture
def parts():
    return checkpoint.load("nano")


@pytest.fixture
def random_encoder(parts):
    """As at the start of a model of one's own: captions are almost collinear."""
    torch.manual_seed(0)
    return checkpoint.build_nano_text_encoder(len(parts.tokenizer)).eval()


# Captions


def test_embeddings_do_not_depend_on_padding(parts):
    together = clap.embed_captions(parts.text_encoder, parts.tokenizer, [*CAPTIONS, "A fan."])
    alone = clap.embed_captions(parts.text_encoder, parts.tokenizer, ["A fan."])
    torch.testing.assert_close(together[2], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_padding_to_the_longest_caption_is_padding_to_the_limit(parts):
    padded = parts.tokenizer(CAPTIONS, padding="max_length", return_tensors="pt")
    assert padded.input_ids.shape[1] == 120
    with torch.no_grad():
        wanted = F.normalize(parts.text_encoder(**padded).text_embeds, dim=-1)
    result = clap.embed_captions(parts.text_encoder, parts.tokenizer, CAPTIONS)
    torch.testing.assert_close(result, wanted, atol=1e-5, rtol=0)


def test_frozen_parts_compute_the_same_twice(parts):
    """In train mode, in which modules are built, CLAP's dropout makes conditions random."""
    first = clap.embed_captions(parts.text_encoder, parts.tokenizer, CAPTIONS)
    assert torch.equal(first, clap.embed_captions(parts.text_encoder, parts.tokenizer, CAPTIONS))
    parts.text_encoder.train()
    again = clap.embed_captions(parts.text_encoder, parts.tokenizer, CAPTIONS)
    assert not torch.allclose(first, again, atol=1e-3)


def test_the_shipped_encoder_tells_captions_of_one_word_apart(parts):
    first, second = clap.embed_captions(parts.text_encoder, parts.tokenizer, CAPTIONS)
    assert float(first @ second) < clap.TOO_CLOSE


@pytest.mark.parametrize("limit", [20, 10**30])
def test_long_captions_are_counted_cut_off_and_one_is_named(parts, caplog, limit):
    # A tokenizer without a limit would let the text encoder look for positions it has not.
    parts.tokenizer.model_max_length = limit
    long = ["a pump " * 90, "a very long fan " * 90]
    with caplog.at_level(logging.WARNING, "fsasd.generation.audioldm.clap"):
        result = clap.embed_captions(parts.text_encoder, parts.tokenizer, ["a fan", *long])
    assert torch.isfinite(result).all()
    readable = min(limit, 128)
    assert f"2 of 3 captions are longer than the {readable} tokens" in caplog.text
    assert "e.g. 'a very long fan" in caplog.text
    short = caplog.text
    caplog.clear()
    clap.embed_captions(parts.text_encoder, parts.tokenizer, ["a fan"])
    assert short
    assert not caplog.text


def test_captions_that_are_too_close_are_warned_of(parts, random_encoder, caplog):
    result = clap.embed_captions(random_encoder, parts.tokenizer, CAPTIONS)
    with caplog.at_level(logging.WARNING, "fsasd.generation.audioldm.clap"):
        clap.report_closeness(clap.closeness(CAPTIONS, result))
    assert "1 pairs of captions have a cosine above 0.98" in caplog.text
    assert "generator.whiten_captions=true" in caplog.text
    caplog.clear()
    ours = clap.embed_captions(parts.text_encoder, parts.tokenizer, CAPTIONS)
    clap.report_closeness(clap.closeness(CAPTIONS, ours))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_closeness_is_a_matrix_of_cosines(tmp_path):
    angles = torch.tensor([0.0, 0.1, 1.5])
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    result = clap.closeness(["c", "a", "b"], points)
    assert result.captions == ["a", "b", "c"]
    np.testing.assert_allclose(np.diag(result.cosines), 1, atol=1e-6)
    assert (result.pair, result.too_close) == (("a", "c"), 1)
    assert result.closest == pytest.approx(np.cos(0.1))
    clap.report_closeness(result, tmp_path)
    matrix = pd.read_csv(tmp_path / "caption_cosines.csv", index_col=0)
    assert matrix.loc["a", "c"] == pytest.approx(np.cos(0.1), abs=1e-4)
    assert clap.closeness(["a", "a"], points[:2]).too_close == 0


def test_whitening_spreads_captions_and_stays_in_the_weights(parts, random_encoder, tmp_path):
    texts = [*CAPTIONS, "This is the normal sound of a pump.", "This is the anomaly sound of it."]
    before = clap.closeness(texts, clap.embed_captions(random_encoder, parts.tokenizer, texts))
    clap.whiten(random_encoder, parts.tokenizer, texts)
    embedded = clap.embed_captions(random_encoder, parts.tokenizer, texts)
    assert before.closest > 0.99
    assert clap.closeness(texts, embedded).closest < 0.5
    parts.text_encoder = random_encoder
    checkpoint.save(parts, tmp_path / "model")
    again = checkpoint.load(tmp_path / "model")
    result = clap.embed_captions(again.text_encoder, again.tokenizer, texts)
    torch.testing.assert_close(result, embedded, atol=1e-5, rtol=0)


def test_one_caption_cannot_be_whitened(parts):
    with pytest.raises(ValueError, match="needs two captions or more"):
        clap.whiten(parts.text_encoder, parts.tokenizer, ["a fan", "a fan"])


# Recordings


def test_recordings_are_embedded_at_claps_rate(whole_clap):
    waveform = np.sin(np.arange(SAMPLE_RATE) / 5).astype(np.float32)
    audio = clap.ClapAudio(whole_clap)
    result = audio(waveform)
    assert result.shape == (64,)
    assert np.linalg.norm(result) == pytest.approx(1, abs=1e-5)
    at_its_rate = 0.5 * np.sin(np.arange(3 * SAMPLE_RATE) / 15).astype(np.float32)
    inputs = audio.extractor(at_its_rate, sampling_rate=48_000, return_tensors="pt")
    with torch.no_grad():
        wanted = audio.model.get_audio_features(**inputs).pooler_output[0].numpy()
    assert float(result @ wanted) > 0.999


def test_recordings_are_embedded_at_the_level_of_the_originals(whole_clap):
    """Without their mean and with a peak of 0.5, however loud they are."""
    waveform = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE).astype(np.float32)
    audio = clap.ClapAudio(whole_clap)
    result = audio(waveform)
    np.testing.assert_allclose(audio(30 * waveform + 0.1), result, atol=1e-4)
    centred = torch.from_numpy(waveform - waveform.mean())
    resampled = resample(0.5 * centred / centred.abs().max(), SAMPLE_RATE, 48_000)
    inputs = audio.extractor(resampled.numpy(), sampling_rate=48_000, return_tensors="pt")
    with torch.no_grad():
        expected = F.normalize(audio.model.get_audio_features(**inputs).pooler_output[0], dim=0)
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert np.isfinite(audio(np.zeros(SAMPLE_RATE, np.float32))).all()


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.5])
def test_no_crop_of_a_recording_is_random(whole_clap, seconds):
    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE))
    waveform = (noise * np.linspace(0, 1, len(noise))).astype(np.float32)
    audio = clap.ClapAudio(whole_clap)
    result = []
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        result.append(audio(waveform))
    assert np.array_equal(result[0], result[1])
    assert np.array_equal(result[0], result[2])
    assert np.linalg.norm(result[0]) == pytest.approx(1, abs=1e-5)


def test_a_long_recording_is_the_mean_of_pieces_that_cover_it(whole_clap):
    waveform = np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE // 2).astype(np.float32)
    # Both pieces have the mean and the peak of the whole.
    waveform[:] = np.resize(waveform[: SAMPLE_RATE // 2], len(waveform))
    audio = clap.ClapAudio(whole_clap)
    both = [audio(waveform[:SAMPLE_RATE]), audio(waveform[-SAMPLE_RATE:])]
    expected = np.mean(both, axis=0)
    np.testing.assert_allclose(audio(waveform), expected / np.linalg.norm(expected), atol=1e-3)


def test_a_clap_of_another_text_space_is_refused(whole_clap, parts, random_encoder, tmp_path):
    audio = clap.ClapAudio(whole_clap)
    audio.require_text_space(parts.text_encoder, parts.tokenizer, CAPTIONS)
    audio.require_text_space(parts.text_encoder.half().float(), parts.tokenizer, CAPTIONS)
    with pytest.raises(ValueError, match=r"audio_clap=.*text encoder embed 'This is .* expected 1"):
        audio.require_text_space(random_encoder, parts.tokenizer, CAPTIONS)
    clap.whiten(parts.text_encoder, parts.tokenizer, CAPTIONS)
    with pytest.raises(ValueError, match=r"embed 'This is .* would be in another space"):
        audio.require_text_space(parts.text_encoder, parts.tokenizer, CAPTIONS)
    random_encoder.config.projection_dim = 32
    with pytest.raises(
        ValueError, match="embeds in 64 dimensions, the checkpoint's text encoder in"
    ):
        audio.require_text_space(random_encoder, parts.tokenizer, CAPTIONS)


def test_other_weights_in_the_same_place_are_another_front_end(whole_clap):
    before = repr(clap.ClapAudio(whole_clap))
    weights = next(Path(whole_clap).glob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = repr(clap.ClapAudio(whole_clap))
    weights.write_bytes(content)
    assert after != before == repr(clap.ClapAudio(whole_clap))


def test_the_scorer_compares_clips_with_their_captions(whole_clap, make_wav):
    clips = Clips(
        [Clip(make_wav(f"{i}.wav", seconds=1.0), "fan", label="normal") for i in range(2)],
        FeatureCache(),
    )
    scorer = clap.ClapScorer(whole_clap)
    result = scorer(clips, pd.DataFrame({"caption": CAPTIONS}))
    recordings = [scorer.audio(clips.cache.read(clip)) for clip in clips]
    tokens = scorer.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        texts = scorer.audio.model.get_text_features(**tokens).pooler_output.numpy()
    np.testing.assert_allclose(
        result, [h @ s for h, s in zip(recordings, texts, strict=True)], atol=1e-5
    )


def test_a_revision_is_one_of_the_hub(whole_clap):
    with pytest.raises(ValueError, match=r"CLAP .*: expected a hub id with the revision v1"):
        clap.ClapAudio(whole_clap, revision="v1")
    with pytest.raises(
        ValueError, match=r"audio_clap_revision=v1: .* generator\.audio_clap, found"
    ):
        AudioLDM("nano", audio_clap_revision="v1")
    # Another revision is another front end, before it is loaded.
    names = {repr(clap.ClapAudio("a/clap", revision)) for revision in (None, "v1", "v2")}
    assert len(names) == 3


def test_a_clap_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"CLAP .*absent: could not be loaded.*copy its folder"):
        _ = clap.ClapAudio(tmp_path / "absent").model
