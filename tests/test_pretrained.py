"""Pretrained encoders: tiny ones of each family, with random weights, in folders as the hub has."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from sklearn.base import clone
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapAudioModel,
    ClapFeatureExtractor,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.base import load
from fsasd.detectors.knn import KNN
from fsasd.detectors.systems.pretrained import Pretrained, TrainableEncoder

pytestmark = pytest.mark.slow

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
STEMS = {
    "conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 4), "conv_stride": (5, 4, 4),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def tiny(family, fused=False):
    if family == "ast":
        config = ASTConfig(**TINY, max_length=64, num_mel_bins=32)
        return ASTModel(config), ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    if family == "clap":
        config = ClapAudioConfig(
            patch_embeds_hidden_size=8, hidden_size=16, depths=[1, 1], num_attention_heads=[1, 1],
            num_hidden_layers=2, spec_size=64, num_mel_bins=16, window_size=4, aff_block_r=2,
            enable_fusion=fused,
        )  # fmt: skip
        truncation = "fusion" if fused else "rand_trunc"
        extractor = ClapFeatureExtractor(feature_size=16, truncation=truncation, max_length_s=1)
        return ClapAudioModel(config), extractor
    model, config = {
        "wav2vec2": (Wav2Vec2Model, Wav2Vec2Config),
        "hubert": (HubertModel, HubertConfig),
        "wavlm": (WavLMModel, WavLMConfig),
    }[family]
    return model(config(**TINY, **STEMS)), Wav2Vec2FeatureExtractor()


FAMILIES = ["ast", "clap", "wav2vec2", "hubert", "wavlm"]


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    torch.manual_seed(0)
    for family in FAMILIES:
        made[family] = str(tmp_path_factory.mktemp(family))
        for part in tiny(family):
            part.save_pretrained(made[family])
    return made


@pytest.fixture(scope="module")
def all_train(factory_clips):
    return factory_clips.where(split="train")


@pytest.fixture(scope="module")
def train(all_train):
    return all_train.where(machine="bearing")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


def make(encoder, learning_rate=1e-4, **settings):
    training = replace(Pretrained.training, seconds=0.5, epochs=1, learning_rate=learning_rate)
    return Pretrained(**{"encoder": encoder, "dim": 8, "training": training, **settings})


def nearest(representation):
    return KNN(representation, metric="cosine")


def trained(representation, clips):
    """The classifier of a prepared representation."""
    return clone(representation).fit(clips)._embeddings[0].classifier


# Encoders


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pool", ["mean", "max", "mean+std"])
def test_every_family_gives_embeddings_that_do_not_depend_on_the_batch(folders, family, pool):
    encoder = TrainableEncoder(folders[family], 0.5, pool=pool).eval()
    torch.manual_seed(0)
    waveforms = 0.1 * torch.randn(3, 8000)
    together = encoder(waveforms)
    apart = torch.cat([encoder(waveform[None]) for waveform in waveforms])
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-4)
    assert together.shape == (3, 32 if pool == "mean+std" else 16)


@pytest.mark.parametrize("family", ["ast", "wav2vec2"])
def test_embeddings_are_the_pooled_states_of_the_layer_that_was_asked_for(folders, family):
    waveform = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    model = transformers.AutoModel.from_pretrained(folders[family]).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folders[family])
    inputs = extractor([waveform], sampling_rate=16_000, return_tensors="pt")
    states = model(**inputs, output_hidden_states=True).hidden_states
    for layer in range(3):
        encoder = TrainableEncoder(folders[family], 0.5, layer=layer).eval()
        found = encoder(torch.from_numpy(waveform)[None])[0]
        torch.testing.assert_close(found, states[layer][0].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_bands_are_means_over_time_of_each_frequency_band(folders):
    """A tone moves the bands around it more than the others, at the input of the first layer."""
    encoder = TrainableEncoder(folders["ast"], 0.5, layer=0, pool="bands").eval()
    t = torch.arange(8000) / 16_000
    torch.manual_seed(0)
    noise = 0.001 * torch.randn(1, 8000)
    moved = []
    for hz in (200, 2800):
        difference = encoder(noise + torch.sin(2 * torch.pi * hz * t)) - encoder(noise)
        moved.append(difference.reshape(2, 16).norm(dim=1))
    assert moved[0][0] > moved[0][1]
    assert moved[1][1] > moved[1][0]


def test_masks_hide_only_in_training(folders):
    encoder = TrainableEncoder(folders["ast"], 0.5, masks=(16, 32))
    waveforms = 0.1 * torch.randn(1, 8000)
    plain = encoder.eval()(waveforms)
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    torch.manual_seed(0)
    assert not torch.allclose(encoder(waveforms), plain, atol=1e-4)
    torch.testing.assert_close(encoder.eval()(waveforms), plain)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """CLAP with a second way for clips that are longer than it hears."""
    folder = tmp_path_factory.mktemp("fused")
    torch.manual_seed(0)
    for part in tiny("clap", fused=True):
        part.save_pretrained(folder)
    return str(folder)


def test_no_clip_is_drawn_to_be_a_longer_one(fused):
    encoder = TrainableEncoder(fused, 0.5).eval()
    waveforms = 0.1 * torch.randn(3, 8000)
    expected = encoder(waveforms)
    for seed in range(5):
        np.random.seed(seed)  # noqa: NPY002
        torch.testing.assert_close(encoder(waveforms), expected, rtol=0, atol=0)
    apart = torch.cat([encoder(waveform[None]) for waveform in waveforms])
    torch.testing.assert_close(expected, apart, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_fused_clap_is_tuned_and_scores_the_same_again(
    fused, all_train, train, test_clips, tmp_path, tuning
):
    representation = make(fused, tuning=tuning).prepare(all_train, tmp_path, QUIET)
    detector = nearest(representation).fit(train)
    scores = detector.score(test_clips)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(clone(detector).fit(train).score(test_clips), scores)


def test_more_seconds_than_an_encoders_input_are_refused(folders):
    with pytest.raises(
        ValueError, match=r"expected at most the 0\.655 seconds of .*'s input\. Set fewer"
    ):
        TrainableEncoder(folders["ast"], 1.0)
    with pytest.raises(ValueError, match="expected at most the 1 seconds"):
        TrainableEncoder(folders["clap"], 2.0)


def test_an_encoder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"encoder '.*nowhere' could not be read.*folder"):
        TrainableEncoder(str(tmp_path / "nowhere"), 0.5)


def test_a_model_of_another_type_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"kind 'bert': expected one of audio-spectrogram-trans"):
        TrainableEncoder(str(tmp_path), 0.5)


def test_poolings_are_checked(folders):
    with pytest.raises(ValueError, match=r"pool 'median': expected one of mean, max"):
        TrainableEncoder(folders["ast"], 0.5, pool="median")
    with pytest.raises(
        ValueError,
        match=r"pool 'bands': expected an encoder with frequency bands, such as AST, found .*",
    ):
        TrainableEncoder(folders["hubert"], 0.5, pool="bands")


# Fine-tuned


def test_an_unknown_tuning_is_refused_with_the_known_ones(folders, train):
    with pytest.raises(ValueError, match="tuning 'adapter': expected one of lora, full"):
        nearest(make(folders["ast"], tuning="adapter")).fit(train)


@pytest.fixture(scope="module", params=[("ast", "lora"), ("ast", "full"), ("hubert", "lora")])
def tuned(request, folders, all_train, tmp_path_factory):
    family, tuning = request.param
    detector = make(
        folders[family], tuning=tuning, rank=2, learning_rate=1e-2, mask_bins=4, mask_frames=4
    )
    return detector.prepare(all_train, tmp_path_factory.mktemp(tuning), QUIET)


def test_fine_tuning_changes_what_it_may(tuned, train):
    before = tuned.classifier(0, 30)
    start = {k: v.clone() for k, v in before.network[0].state_dict().items()}
    after = trained(tuned, train).network[0].state_dict()
    assert start.keys() == after.keys()
    changed = {k for k in start if not torch.equal(start[k], after[k])}
    assert changed
    if tuned.tuning == "lora":
        assert all("lora_" in name for name in changed)
    else:
        assert {"model.layers.0.attention.q_proj.weight", "model.layers.1.mlp.fc2.bias"} <= changed


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_masks_change_the_training(folders, all_train, tmp_path, tuning):
    learned = []
    for masks in (0, 16):
        detector = make(folders["ast"], tuning=tuning, mask_bins=masks, mask_frames=masks)
        detector.prepare(all_train, tmp_path / str(masks), QUIET)
        learned.append(trained(detector, all_train).weights())
    plain, masked = learned
    assert plain.keys() == masked.keys()
    assert not np.array_equal(plain["network.1.weight"], masked["network.1.weight"])


def test_low_rank_adaptation_is_a_small_part(folders):
    member = make(folders["ast"], tuning="lora", rank=1).classifier(0, 3)
    encoder = member.network[0]
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert 0 < trained < 0.1 * sum(p.numel() for p in encoder.parameters())
    assert all("lora_" in n for n, p in encoder.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("family", ["ast", "wav2vec2", "clap"])
def test_every_weight_that_is_trained_has_a_gradient(folders, family, tuning):
    """Several processes wait for the gradients of all of them."""
    member = make(folders[family], tuning=tuning, layer=1).classifier(0, 3)
    member.train().loss(0.1 * torch.randn(4, 8000), torch.eye(3)[[0, 1, 2, 0]]).backward()
    trained = [p for p in member.parameters() if p.requires_grad]
    assert len(trained) > 3
    assert all(p.grad is not None for p in trained)
    assert not all(p.requires_grad for p in member.parameters())


def test_an_adaptation_without_trainable_weights_is_refused(folders):
    with pytest.raises(ValueError, match=r"tuning=lora would train no weight.*Use tuning=full"):
        make(folders["wavlm"], tuning="lora").classifier(0, 3)


def test_saved_weights_are_the_trained_ones(tuned, train):
    kept = trained(tuned, train).weights()
    assert {"network.1.weight", "head.centres"} <= set(kept)
    encoder = {name for name in kept if name.startswith("network.0")}
    assert all("lora_" in name for name in encoder) == (tuned.tuning == "lora")


def test_a_saved_fine_tuned_detector_scores_the_same(tuned, train, test_clips, tmp_path):
    detector = nearest(tuned).fit(train)
    detector.save(tmp_path / "model")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    loaded = load(tmp_path / "moved")
    scores = detector.score(test_clips)
    np.testing.assert_allclose(loaded.score(test_clips), scores, rtol=1e-5, atol=1e-7)
    assert np.isfinite(scores).all()


def test_fine_tuning_the_same_again_gives_the_same(folders, all_train, train, test_clips, tmp_path):
    scores = [
        nearest(make(folders["ast"], tuning="lora", rank=2))
        .prepare(all_train, tmp_path / name, QUIET)
        .fit(train)
        .score(test_clips)
        for name in ("one", "two")
    ]
    np.testing.assert_array_equal(*scores)


def test_any_clip_has_a_score(tuned, train, make_wav):
    detector = nearest(tuned).fit(train)
    rng = np.random.default_rng(0)
    recordings = {
        "silent": np.zeros(16_000),
        "clipped": np.sign(rng.standard_normal(16_000)),
        "click": np.ones(1),
        "long": 0.1 * rng.standard_normal(16_000 * 7 + 3),
    }
    clips = [Clip(make_wav(f"{name}.wav", x), "bearing") for name, x in recordings.items()]
    assert np.isfinite(detector.score(Clips(clips))).all()
