"""Encoders that do not load, and those that do: one line says what was expected and found."""

import json
import shutil

import hub_server
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoConfig,
    AutoFeatureExtractor,
    ClapAudioModel,
    ClapModel,
)

from fsasd.data.content import content_hash
from fsasd.detectors.encoders import Encoder, TrainableEncoder
from fsasd.detectors.encoders.loading import load
from fsasd.detectors.encoders.pooling import pool
from fsasd.detectors.systems.pretrained import Pretrained
from fsasd.settings.spec import spec_of

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


# Encoders of the hub

CLIENT = """
import numpy as np

from fsasd.detectors.encoders import Encoder
from fsasd.detectors.encoders.loading import load
from fsasd.runtime.commits import loaded

waveform = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
answers = []
for source, revision in json.loads(sys.argv[2]):
    try:
        encoder = Encoder(source, revision=revision)
        answers.append([float(np.abs(encoder(waveform)).sum()), repr(encoder)])
    except FileNotFoundError as error:
        answers.append(str(error))
print(json.dumps([answers, loaded()]))
"""


def ask(server, cache, *encoders, **environment):
    """Load encoders in a process of its own."""
    done = hub_server.client(CLIENT, server, cache, json.dumps(encoders), **environment)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_revision_of_the_hub_is_pinned_noted_and_found_without_a_network(tiny_encoders, tmp_path):
    folder = tiny_encoders("wav2vec2")
    whole, pickled = tmp_path / "whole", tmp_path / "pickled"
    shutil.copytree(folder, whole)
    shutil.copytree(folder, pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    # Of two forms of the weights, and of code, only what is read is downloaded.
    (whole / "pytorch_model.bin").write_bytes(b"")
    (whole / "code.py").write_text("raise SystemExit")
    repositories = {"a/whole": whole, "a/pickled": pickled, "a/gated": whole}
    pinned = ("a/whole", hub_server.COMMIT)
    refused = [("a/whole", "v9"), ("a/none", None), ("a/gated", None)]
    with hub_server.serve(repositories, gated=["a/gated"]) as server:
        answers, commits = ask(
            server, tmp_path / "home", ("a/whole", "v1"), ("a/pickled", None), *refused
        )
        server.asked.clear()
        (again,), noted = ask(server, tmp_path / "home", pinned, HF_HUB_OFFLINE="1")
        assert not server.asked
    expected = float(np.abs(Encoder(str(folder))(WAVEFORM)).sum())
    assert [answer[0] for answer in (*answers[:2], again)] == pytest.approx([expected] * 3)
    assert again == answers[0]
    assert commits == {"a/whole": hub_server.COMMIT, "a/pickled": hub_server.COMMIT}
    assert noted == {"a/whole": hub_server.COMMIT}
    kept = {path.name for path in (tmp_path / "home").rglob("snapshots/*/*")}
    assert kept >= {"config.json", "model.safetensors", "pytorch_model.bin"}
    assert "code.py" not in kept
    assert not list(tmp_path.rglob("models--a--whole/snapshots/*/pytorch_model.bin"))
    revision, none, gated = answers[2:]
    assert "encoder 'a/whole@v9' could not be read: the hub has no such revision" in revision
    assert "encoder 'a/none' could not be read: expected the id of a repository of the hub" in none
    assert "encoder 'a/gated' could not be read: its licence has to be accepted first" in gated
    assert all("\n" not in answer for answer in (revision, none, gated))


def test_a_folder_has_no_revision(tiny_encoders):
    folder = str(tiny_encoders("wav2vec2"))
    expected = "expected a hub id with the revision v1, found a folder or a file"
    with pytest.raises(ValueError, match=expected):
        Encoder(folder, revision="v1")
    with pytest.raises(ValueError, match=expected):
        TrainableEncoder(folder, 1.0, revision="v1")
    with pytest.raises(ValueError, match=expected):
        Pretrained(encoder=folder, revision="v1").classifier(0, 2)


def test_a_revision_is_in_the_key():
    encoders = [Encoder("a/b", revision=revision) for revision in (None, "v1", "v2")]
    systems = [Pretrained(encoder="a/b", revision=revision) for revision in (None, "v1", "v2")]
    for each in (encoders, systems):
        assert len({json.dumps(spec_of(one, content_hash)) for one in each}) == 3


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
