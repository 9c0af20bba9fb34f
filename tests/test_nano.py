"""The nano model's own parts: tokenizer, a text encoder that reads, VAE."""

import lightning as L
import pytest
import torch

from fsasd.data.captions import anomalous, default_captions
from fsasd.data.clips import Clips
from fsasd.data.metadata import read_clips
from fsasd.generation.audioldm import checkpoint, nano
from fsasd.generation.audioldm.clap import embed_captions

pytestmark = pytest.mark.slow

CLIPS = nano.draw_clips(default_captions(), 400)
CORPUS = [default_captions()(clip) for clip in CLIPS]


@pytest.fixture
def options(tmp_path):
    return {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "default_root_dir": tmp_path,
    }


def test_clips_are_drawn_alike_from_the_same_seed():
    assert nano.draw_clips(default_captions(), 20) == nano.draw_clips(default_captions(), 20)
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


@pytest.mark.nightly
def test_a_reader_tells_normal_from_anomalous_captions_apart(options):
    L.seed_everything(0)
    tokenizer = nano.train_tokenizer(CORPUS)
    encoder = checkpoint.build_nano_text_encoder(len(tokenizer))
    dataset, machines, keys = nano.caption_dataset(CLIPS, default_captions(), tokenizer)
    before = cosine_of_opposites(encoder.eval(), tokenizer)
    nano.train(nano.CaptionReader(encoder, machines, keys), dataset, 64, 60, options)
    assert before > 0.99
    assert cosine_of_opposites(encoder.eval(), tokenizer) < 0.95


def test_the_targets_are_the_metadata_of_the_captions():
    tokenizer = nano.train_tokenizer(CORPUS)
    dataset, machines, keys = nano.caption_dataset(CLIPS, default_captions(), tokenizer)
    ids, mask, label, machine, values = dataset[3]
    assert tokenizer.decode(ids[mask.bool()], skip_special_tokens=True) == CORPUS[3]
    assert label == (CLIPS[3].label == "anomaly")
    assert 0 <= machine < machines
    assert values.shape == (keys,)
    values_read = [nano.VALUES[v] for v in values if v < len(nano.VALUES)]
    assert sorted(values_read) == sorted(CLIPS[3].attributes.values())


@pytest.mark.nightly
def test_parts_from_nothing_reconstruct_better_than_the_mean(factory, options):
    clips = Clips([c for c in read_clips(factory) if c.machine == "fan"])
    L.seed_everything(0)
    parts = nano.pretrain_components(default_captions(), clips, 2, 12, options)
    crops = nano.MelCrops(clips)
    mels = torch.stack([crops[i] for i in range(4)])
    with torch.no_grad():
        latents = parts.vae.encode(mels).latent_dist.mean
        rebuilt = parts.vae.decode(latents).sample
    assert (rebuilt - mels).abs().mean() < (mels - mels.mean()).abs().mean()
    assert float((latents * parts.vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.3)
    assert not any(module.training for module in parts.frozen())
