"""Encoders that do not load, and those that do: one line says what was expected and found."""

import httpx
import numpy as np
import pytest
import torch
import transformers.utils.hub
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoConfig,
    AutoFeatureExtractor,
    ClapAudioModel,
    ClapModel,
)

from fsasd.detectors.encoders import Encoder, TrainableEncoder, loading
from fsasd.detectors.encoders.loading import load
from fsasd.detectors.encoders.pooling import pool

WAVEFORM = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)


@pytest.fixture
def copied(tiny_encoders, tmp_path):
    """Copy a tiny encoder with changed weights."""

    def copy(kind, change):
        folder = tiny_encoders(kind)
        AutoConfig.from_pretrained(folder).save_pretrained(tmp_path)
        AutoFeatureExtractor.from_pretrained(folder).save_pretrained(tmp_path)
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        return str(tmp_path)

    return copy


def test_missing_weights_are_not_drawn_at_random(copied):
    name = "encoder.layers.0.attention.k_proj.weight"
    with pytest.raises(
        ValueError, match=rf"does not fit its network: it lacks 1 weight \({name}\)"
    ):
        load(copied("wav2vec2", lambda weights: weights.pop(name)))


def test_surplus_weights_of_the_encoder_are_named_and_heads_are_left_out(copied, tiny_encoders):
    def add(weights):
        weights |= {"encoder.layers.7.gate": torch.ones(1), "quantizer.codevectors": torch.ones(1)}

    with pytest.raises(
        ValueError, match=r"another 1 weight \(encoder\.layers\.7\.gate\)\. Expected"
    ):
        load(copied("hubert", add))
    folder = copied("hubert", lambda weights: weights.update(head=torch.ones(1)))
    expected = Encoder(str(tiny_encoders("hubert")))(WAVEFORM)
    np.testing.assert_array_equal(Encoder(folder)(WAVEFORM), expected)


def test_an_encoder_with_a_classifier_is_read_without_it(tiny_encoders, tmp_path):
    """As AST's published checkpoint."""
    folder = tiny_encoders("ast")
    whole = ASTForAudioClassification(ASTConfig.from_pretrained(folder))
    inner = load(str(folder)).network
    whole.audio_spectrogram_transformer.load_state_dict(inner.state_dict())
    whole.save_pretrained(tmp_path)
    AutoFeatureExtractor.from_pretrained(folder).save_pretrained(tmp_path)
    expected = Encoder(str(folder))(WAVEFORM)
    np.testing.assert_array_equal(Encoder(str(tmp_path))(WAVEFORM), expected)


def test_clap_with_its_text_model_is_fine_tuned_from_its_weights(whole_clap, tmp_path):
    """As CLAP's published checkpoints, whose audio model has another name than alone."""
    whole = ClapModel.from_pretrained(whole_clap)
    alone = ClapAudioModel(whole.config.audio_config)
    alone.load_state_dict(whole.audio_model.state_dict())
    alone.save_pretrained(tmp_path)
    AutoFeatureExtractor.from_pretrained(whole_clap).save_pretrained(tmp_path)
    waveforms = torch.from_numpy(WAVEFORM[:16_000]).reshape(2, 8000)
    with torch.inference_mode():
        one, other = (
            TrainableEncoder(str(folder), 0.5).eval()(waveforms)
            for folder in (whole_clap, tmp_path)
        )
    torch.testing.assert_close(one, other)
    with pytest.raises(
        ValueError, match=r"is CLAP's audio model alone: expected one with its proj"
    ):
        Encoder(str(tmp_path))(WAVEFORM)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, r"found a gated one: accept its terms.*`hf auth login`, or give a folder"),
        (
            RepositoryNotFoundError,
            r"expected the id of an encoder on the hub, found none of this n",
        ),
    ],
)
def test_gated_and_unknown_ids_are_told_apart(kind, message, monkeypatch):
    def refuse(*args, **kwargs):
        url = "https://huggingface.co/someone/encoder/resolve/main/config.json"
        raise kind("refused", response=httpx.Response(403, request=httpx.Request("GET", url)))

    monkeypatch.setattr(loading, "go_offline_without_hub", lambda source: None)
    monkeypatch.setattr(transformers.utils.hub, "hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError, match=f"encoder 'someone/encoder' could.*{message}") as e:
        load("someone/encoder")
    assert "\n" not in str(e.value)


# Batches, layers and pooling


def test_an_encoder_of_48_khz_takes_recordings_at_its_rate(tiny_encoders):
    fast = np.random.default_rng(1).normal(0, 0.1, 48_000).astype(np.float32)
    encoder = Encoder(str(tiny_encoders("clap")), sampling_rate=48_000)
    with torch.inference_mode():
        expected = encoder.model.features(torch.from_numpy(fast)[None])[0][0].numpy()
    np.testing.assert_allclose(encoder(fast), expected, atol=1e-6)


def test_several_layers_are_averaged(tiny_encoders):
    waveforms = torch.from_numpy(WAVEFORM[None])
    folder = str(tiny_encoders("wavlm"))
    with torch.inference_mode():
        one, other, both = (
            TrainableEncoder(folder, 1.25, layer=layer).eval()(waveforms)
            for layer in (1, -1, (1, -1))
        )
    torch.testing.assert_close(both, (one + other) / 2)
    with pytest.raises(ValueError, match=r"layer 3: .* has 3, 0 to 2"):
        TrainableEncoder(folder, 1.25, layer=3)(waveforms)


def test_the_generalised_mean_is_between_mean_and_maximum():
    torch.manual_seed(0)
    states = torch.rand(2, 3, 50, 4)
    mean, most = pool(states, "mean"), pool(states, "max")
    torch.testing.assert_close(pool(states, "gem", power=1.0), mean)
    means = [pool(states, "gem", power=power) for power in (1.0, 3.0, 10.0)]
    assert all((low < high).all() for low, high in zip([*means[:-1]], means[1:], strict=True))
    assert (means[-1] < most).all()
    torch.testing.assert_close(pool(-states, "gem"), -pool(states, "gem"))


def test_the_generalised_mean_has_slopes_where_all_is_zero():
    states = torch.zeros(1, 1, 5, 2, requires_grad=True)
    pool(states, "gem").sum().backward()
    assert torch.isfinite(states.grad).all()


def test_statistics_are_checked_before_anything_is_loaded():
    with pytest.raises(ValueError, match=r"pool 'median': expected one of mean, max, std, gem"):
        Encoder("nowhere/at-all", pool="median")


def test_an_exported_program_is_sent_to_its_representation(tiny_encoders):
    asked = r"encoder\.pt2' could not be read: .* an exported program is representation=exported"
    with pytest.raises(FileNotFoundError, match=asked):
        load(str(tiny_encoders("exported")))
