"""The nano model's own parts: tokenizer, whitened text encoder, VAE."""

import lightning as L
import pytest
import torch

from fsasd.data.audio import Clips
from fsasd.data.captions import anomalous, default_captions
from fsasd.data.metadata import read_clips
from fsasd.generation import checkpoint, nano
from fsasd.generation.latents import embed_captions

CORPUS = nano.make_captions(default_captions(), 400)


def test_captions_are_drawn_alike_from_the_same_seed():
    assert nano.make_captions(default_captions(), 20) == nano.make_captions(default_captions(), 20)
    assert all(text.startswith("This is the ") and text.endswith(".") for text in CORPUS)


def test_tokenizer_reads_anything_and_gives_it_back():
    tokenizer = nano.train_tokenizer(CORPUS)
    assert len(tokenizer) > 256
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<s>", "<pad>", "</s>")] == [0, 1, 2]
    for text in (CORPUS[0], "Größe 5 µm"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def cosine_of_opposites(text_encoder, tokenizer):
    texts = sorted({text for text in CORPUS if "normal" in text})[:40]
    normal = embed_captions(text_encoder, tokenizer, texts)
    opposite = embed_captions(text_encoder, tokenizer, [anomalous(text) for text in texts])
    return float((normal * opposite).sum(1).mean())


def test_whitening_tells_normal_from_anomalous_captions_apart():
    torch.manual_seed(0)
    tokenizer = nano.train_tokenizer(CORPUS)
    encoder = checkpoint.build_nano_text_encoder(len(tokenizer)).eval()
    before = cosine_of_opposites(encoder, tokenizer)
    nano.whiten(encoder, tokenizer, CORPUS)
    assert before > 0.998
    assert cosine_of_opposites(encoder, tokenizer) < 0.97


def test_whitened_projections_have_unit_covariance():
    torch.manual_seed(0)
    tokenizer = nano.train_tokenizer(CORPUS)
    encoder = checkpoint.build_nano_text_encoder(len(tokenizer)).eval()
    nano.whiten(encoder, tokenizer, CORPUS, floor=0.0 + 1e-6)
    tokens = tokenizer(CORPUS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder(**tokens).text_embeds.double()
    assert float(states.mean(0).abs().max()) < 0.05
    variance = torch.linalg.eigvalsh(torch.cov(states.T))
    assert float(variance.max()) == pytest.approx(1.0, abs=0.05)


def test_parts_from_nothing_reconstruct_better_than_the_mean(factory, tmp_path):
    clips = Clips([c for c in read_clips(factory) if c.machine == "fan"])
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "default_root_dir": tmp_path,
    }
    L.seed_everything(0)
    parts = nano.pretrain_parts(default_captions(), clips, 25, options)
    crops = nano.MelCrops(clips)
    mels = torch.stack([crops[i] for i in range(4)])
    with torch.no_grad():
        latents = parts.vae.encode(mels).latent_dist.mean
        rebuilt = parts.vae.decode(latents).sample
    assert (rebuilt - mels).abs().mean() < (mels - mels.mean()).abs().mean()
    assert float((latents * parts.vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.3)
