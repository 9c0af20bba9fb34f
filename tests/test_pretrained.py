"""Pretrained encoders: tiny ones of each family, with random weights, in folders as the hub has."""

import json
import shutil

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

from fsasd.data.audio import Clips
from fsasd.data.metadata import Clip
from fsasd.detectors.base import load
from fsasd.detectors.pretrained import Encoder, Pretrained

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


def tiny(family):
    if family == "ast":
        config = ASTConfig(**TINY, max_length=64, num_mel_bins=32)
        return ASTModel(config), ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    if family == "clap":
        config = ClapAudioConfig(
            patch_embeds_hidden_size=8, hidden_size=16, depths=[1, 1], num_attention_heads=[1, 1],
            num_hidden_layers=2, spec_size=64, num_mel_bins=16, window_size=4, aff_block_r=2,
        )  # fmt: skip
        extractor = ClapFeatureExtractor(feature_size=16, truncation="rand_trunc", max_length_s=1)
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
def exported(tmp_path_factory):
    class Filters(nn.Module):
        def __init__(self):
            super().__init__()
            self.filters = nn.Conv1d(1, 6, 400, 160)

        def forward(self, waveform):
            return self.filters(waveform[:, None]).transpose(1, 2)

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "encoder.pt2"
    torch.export.save(torch.export.export(Filters(), (torch.zeros(1, 8000),)), path)
    return str(path)


@pytest.fixture(scope="module")
def heard(factory_clips):
    return factory_clips.where(split="train")


@pytest.fixture(scope="module")
def train(heard):
    return heard.where(machine="bearing")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


def make(encoder, **settings):
    return Pretrained(**{"encoder": encoder, "seconds": 0.5, "epochs": 1, "dim": 8, **settings})


# Encoders


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pool", ["mean", "max", "mean+std"])
def test_every_family_gives_embeddings_that_do_not_depend_on_the_batch(folders, family, pool):
    encoder = Encoder(folders[family], 0.5, pool=pool).eval()
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
        encoder = Encoder(folders[family], 0.5, layer=layer).eval()
        found = encoder(torch.from_numpy(waveform)[None])[0]
        torch.testing.assert_close(found, states[layer][0].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_bands_are_means_over_time_of_each_frequency_band(folders):
    """A tone moves the bands around it more than the others, at the input of the first layer."""
    encoder = Encoder(folders["ast"], 0.5, layer=0, pool="bands").eval()
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
    encoder = Encoder(folders["ast"], 0.5, masks=(16, 32))
    waveforms = 0.1 * torch.randn(1, 8000)
    plain = encoder.eval()(waveforms)
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    torch.manual_seed(0)
    assert not torch.allclose(encoder(waveforms), plain, atol=1e-4)
    torch.testing.assert_close(encoder.eval()(waveforms), plain)


def test_an_exported_encoder_is_called_as_it_is(exported):
    encoder = Encoder(exported, 0.5, pool="max")
    waveforms = torch.randn(2, 8000)
    expected = torch.export.load(exported).module()(waveforms[1:]).amax(dim=1)
    torch.testing.assert_close(encoder(waveforms)[1:], expected)
    assert not list(encoder.parameters())


def test_longer_than_an_encoder_hears_is_told(folders):
    with pytest.raises(ValueError, match=r"hears 0\.64 seconds: set seconds to at most that"):
        Encoder(folders["ast"], 1.0)
    with pytest.raises(ValueError, match=r"hears 1 seconds"):
        Encoder(folders["clap"], 2.0)


def test_an_encoder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"encoder '.*nowhere' could not be read.*folder"):
        Encoder(str(tmp_path / "nowhere"), 0.5)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt2 does not exist"):
        Encoder(str(tmp_path / "nowhere.pt2"), 0.5)


def test_a_model_of_another_kind_is_told_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"kind 'bert': expected one of audio-spectrogram-trans"):
        Encoder(str(tmp_path), 0.5)


def test_poolings_are_checked(folders):
    with pytest.raises(ValueError, match=r"pool 'median': expected one of mean, max"):
        Encoder(folders["ast"], 0.5, pool="median")
    with pytest.raises(ValueError, match=r"'bands' is known of an AST, and .* is none"):
        Encoder(folders["hubert"], 0.5, pool="bands")


# Frozen


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_encoder_has_nothing_to_prepare(folders, family, train, test_clips, tmp_path):
    detector = make(folders[family])
    assert detector.recipe() == {}
    scores = detector.prepare(train, tmp_path / "no").fit(train).score(test_clips)
    assert not (tmp_path / "no").exists()
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) > len(scores) // 2
    one = clone(detector).fit(train).score(test_clips[[3]])
    np.testing.assert_allclose(one, scores[[3]], rtol=1e-6)


def test_frozen_scores_are_distances_to_the_nearest_embedding(folders, train, test_clips):
    encoder = Encoder(folders["ast"], 0.5).eval()

    def embedded(clips):
        waveforms = np.stack([clips.cache.read(clip)[:8000] for clip in clips])
        return nn.functional.normalize(encoder(torch.from_numpy(waveforms))).detach().numpy()

    expected = 1 - (embedded(test_clips) @ embedded(train).T).max(axis=1)
    found = make(folders["ast"]).fit(train).score(test_clips)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_grid_over_layers_is_that_of_fitting_one_by_one(folders, train, test_clips):
    grid = [{"layer": 0}, {"layer": 1, "k": 2}, {"layer": 1, "steps": "max"}, {"layer": 2}]
    rows = make(folders["ast"]).score_path(grid, train, test_clips)
    for row, params in zip(rows, grid, strict=True):
        np.testing.assert_array_equal(
            row, make(folders["ast"], **params).fit(train).score(test_clips)
        )
    assert len({tuple(row) for row in rows}) == len(grid)


def test_a_frozen_encoder_is_not_saved_with_the_detector(folders, train, test_clips, tmp_path):
    detector = make(folders["ast"]).fit(train)
    detector.save(tmp_path)
    loaded = load(tmp_path)
    np.testing.assert_allclose(loaded.score(test_clips), detector.score(test_clips), rtol=1e-6)
    assert not any("encoder" in k or "network.0" in k for k in loaded.networks_["0"])
    assert detector.n_parameters() > 5000


def test_other_weights_under_the_same_name_are_other_features(train, folders, tmp_path):
    folder = shutil.copytree(folders["wav2vec2"], tmp_path / "encoder")
    before = make(str(folder)).fit(train)._embedding
    torch.manual_seed(1)
    tiny("wav2vec2")[0].save_pretrained(folder)
    after = Pretrained(encoder=str(folder), seconds=0.5, seed=1).fit(train)._embedding
    assert repr(before) != repr(after)


def test_an_exported_encoder_scores(exported, train, test_clips):
    detector = make(exported).fit(train)
    assert np.isfinite(detector.score(test_clips)).all()
    with pytest.raises(ValueError, match="was exported and stays as it is: tuning=frozen"):
        make(exported, tuning="lora").fit(train)


def test_a_frozen_encoder_knows_no_classes(folders, train):
    with pytest.raises(ValueError, match="a frozen encoder knows no classes"):
        make(folders["ast"], back_end="probability").fit(train)


def test_an_unknown_tuning_is_told_the_known_ones(folders, train):
    with pytest.raises(ValueError, match="tuning 'adapter': expected one of frozen, lora, full"):
        make(folders["ast"], tuning="adapter").fit(train)


# Fine-tuned


@pytest.fixture(scope="module", params=[("ast", "lora"), ("ast", "full"), ("hubert", "lora")])
def tuned(request, folders, heard, tmp_path_factory):
    family, tuning = request.param
    detector = make(
        folders[family], tuning=tuning, rank=2, learning_rate=1e-2, mask_bins=4, mask_frames=4
    )
    return detector.prepare(heard, tmp_path_factory.mktemp(tuning), QUIET)


def test_fine_tuning_changes_what_it_may(tuned):
    before = tuned.classifier(0, 30)
    start = {k: v.clone() for k, v in before.network[0].state_dict().items()}
    after = tuned._trained_on(None).members[0].network[0].state_dict()
    assert start.keys() == after.keys()
    changed = {k for k in start if not torch.equal(start[k], after[k])}
    assert changed
    if tuned.tuning == "lora":
        assert all("lora_" in name for name in changed)
    else:
        assert {"model.layers.0.attention.q_proj.weight", "model.layers.1.mlp.fc2.bias"} <= changed


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


def test_an_adaptation_that_would_not_be_heard_is_refused(folders):
    with pytest.raises(ValueError, match=r"tuning=lora would train nothing.*Use tuning=full"):
        make(folders["wavlm"], tuning="lora").classifier(0, 3)


def test_what_is_kept_is_what_was_trained(tuned):
    kept = tuned._trained_on(None).members[0].kept()
    assert {"network.1.weight", "head.centres"} <= set(kept)
    encoder = {name for name in kept if name.startswith("network.0")}
    assert all("lora_" in name for name in encoder) == (tuned.tuning == "lora")


def test_a_saved_fine_tuned_detector_scores_the_same(tuned, train, test_clips, tmp_path):
    detector = clone(tuned).fit(train)
    detector.save(tmp_path / "model")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    loaded = load(tmp_path / "moved")
    scores = detector.score(test_clips)
    np.testing.assert_allclose(loaded.score(test_clips), scores, rtol=1e-5, atol=1e-7)
    assert np.isfinite(scores).all()


def test_fine_tuning_the_same_again_gives_the_same(folders, heard, train, test_clips, tmp_path):
    scores = [
        make(folders["ast"], tuning="lora", rank=2)
        .prepare(heard, tmp_path / name, QUIET)
        .fit(train)
        .score(test_clips)
        for name in ("one", "two")
    ]
    np.testing.assert_array_equal(*scores)


def test_any_clip_has_a_score(folders, train, make_wav):
    detector = make(folders["ast"]).fit(train)
    rng = np.random.default_rng(0)
    recordings = {
        "silent": np.zeros(16_000),
        "clipped": np.sign(rng.standard_normal(16_000)),
        "click": np.ones(1),
        "long": 0.1 * rng.standard_normal(16_000 * 7 + 3),
    }
    clips = [Clip(make_wav(f"{name}.wav", x), "bearing") for name, x in recordings.items()]
    assert np.isfinite(detector.score(Clips(clips))).all()
