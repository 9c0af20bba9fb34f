"""Encoders with random weights, small, saved and loaded as pretrained ones are."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torchaudio
from sklearn.base import clone
from torchaudio.functional import resample
from transformers import AutoConfig, PeAudioConfig, PeAudioModel

from fsasd.data.recording import read
from fsasd.detectors.base import load
from fsasd.detectors.encoders import Encoder, ExportedEncoder, Layer
from fsasd.detectors.encoders.loading import load as load_encoder
from fsasd.detectors.knn import KNN

WAVEFORM = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


ALL = ["ast", "clap", "clap_fused", "hubert", "wav2vec2", "wavlm"]


@pytest.fixture(scope="module", params=ALL)
def checkpoint(request, tiny_encoders):
    return str(tiny_encoders(request.param))


scripted = pytest.mark.filterwarnings("ignore:`torch.jit")
"""TorchScript is on its way out, and what users exported with it is still there."""

SHAPES = {"ast": (3, 96), "clap": (1, 12), "clap_fused": (1, 12)}


@pytest.mark.parametrize("name", ALL)
def test_a_clip_becomes_layers_whatever_its_length(name, tiny_encoders):
    encoder = Encoder(str(tiny_encoders(name)))
    for samples in (320, 5000, 20_000, 60_000):
        layers = encoder(np.resize(WAVEFORM, samples))
        assert layers.shape == SHAPES.get(name, (3, 16))
        assert layers.dtype == np.float32
        assert np.isfinite(layers).all()
    assert np.isfinite(encoder(np.zeros(16_000, np.float32))).all()


def test_the_same_clip_has_the_same_layers(checkpoint):
    np.random.seed(0)  # noqa: NPY002
    one = Encoder(checkpoint)(WAVEFORM)
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(Encoder(checkpoint)(WAVEFORM), one)


def test_ast_keeps_its_bands_apart(tiny_encoders):
    """Two tokens, then patches, all of the lowest band first; layers are transformers' own."""
    folder = tiny_encoders("ast")
    encoder = Encoder(str(folder))
    model = encoder.model
    piece = torch.from_numpy(WAVEFORM[: model.window])
    inputs = model.extractor(piece.numpy(), sampling_rate=16_000, return_tensors="pt")
    assert inputs["input_values"].shape == (1, 64, 64)
    with torch.inference_mode():
        states = model.network(**inputs, output_hidden_states=True).hidden_states
    patches = torch.stack(states)[:, 0, 2:].reshape(3, 6, 6, 16)
    expected = patches.mean(dim=2).flatten(1).numpy()
    np.testing.assert_allclose(encoder(piece.numpy()), expected, atol=1e-5)
    averaged = Encoder(str(folder), bands=False)(piece.numpy())
    np.testing.assert_allclose(averaged, patches.mean(dim=(1, 2)).numpy(), atol=1e-5)
    both = Encoder(str(folder), bands=False, pool="mean+std")(piece.numpy())
    spread = patches.mean(dim=1).std(dim=1, correction=0).numpy()
    np.testing.assert_allclose(both, np.concatenate([averaged, spread], axis=1), atol=1e-5)


def test_ast_has_high_sounds_in_its_high_bands(tiny_encoders):
    """At layer 0, before attention mixes bands, a tone changes its own band's patches most."""
    encoder = Encoder(str(tiny_encoders("ast")))
    time = np.arange(WAVEFORM.size) / 16_000
    quiet = encoder(WAVEFORM)[0].reshape(6, 16)
    changed = []
    for hz in (150, 6500):
        loud = encoder(WAVEFORM + np.sin(2 * np.pi * hz * time, dtype=np.float32))[0]
        changed.append(np.linalg.norm(loud.reshape(6, 16) - quiet, axis=1).argmax())
    assert changed[0] < changed[1]


@pytest.mark.parametrize("windows", [1.5, 5.5], ids=["few", "more than at a time"])
def test_long_clips_are_encoded_in_pieces_that_cover_them(windows, tiny_encoders):
    encoder = Encoder(str(tiny_encoders("ast")))
    window = encoder.model.window
    assert window == 63 * 160 + 400
    long = np.resize(WAVEFORM, int(windows * window))
    starts = np.linspace(0, len(long) - window, math.ceil(windows)).round().astype(int)
    pieces = [encoder(long[start : start + window]) for start in starts]
    np.testing.assert_allclose(encoder(long), np.mean(pieces, axis=0), atol=1e-5)


def test_short_clips_are_repeated(tiny_encoders):
    encoder = Encoder(str(tiny_encoders("ast")))
    short = WAVEFORM[:3000]
    np.testing.assert_array_equal(encoder(short), encoder(np.resize(short, encoder.model.window)))


@pytest.mark.parametrize("kind", ["clap", "clap_fused"])
def test_clap_is_given_its_sampling_rate(kind, tiny_encoders):
    encoder = Encoder(str(tiny_encoders(kind)))
    assert (encoder.model.rate, encoder.model.window) == (48_000, 48_000)
    fast = resample(torch.from_numpy(WAVEFORM[:16_000]), 16_000, 48_000)
    inputs = encoder.model.extractor(fast.numpy(), sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        expected = encoder.model.network(**inputs).audio_embeds.numpy()
    np.testing.assert_allclose(encoder(WAVEFORM[:16_000]), expected, atol=1e-6)


def test_speech_encoders_hidden_states_are_averaged(tiny_encoders):
    encoder = Encoder(str(tiny_encoders("wavlm")))
    inputs = encoder.model.extractor(WAVEFORM, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        states = encoder.model.network(**inputs, output_hidden_states=True).hidden_states
    expected = torch.cat(states).mean(dim=1).numpy()
    np.testing.assert_allclose(encoder(WAVEFORM), expected, atol=1e-6)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A pipeline of torchaudio whose small weights lie where it keeps what it downloaded."""
    small = torchaudio.pipelines.WAVLM_BASE._params | {
        "extractor_conv_layer_config": [(16, 10, 5), (16, 3, 2)],
        "encoder_embed_dim": 16,
        "encoder_num_layers": 2,
        "encoder_num_heads": 2,
        "encoder_ff_interm_features": 16,
        "encoder_pos_conv_kernel": 4,
        "encoder_pos_conv_groups": 2,
    }
    made = dataclasses.replace(torchaudio.pipelines.WAVLM_BASE, _path="tiny.pth", _params=small)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torchaudio.pipelines, "TINY", made, raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = torchaudio.models.wavlm_model(**small)
    torch.save(network.state_dict(), folder / "tiny.pth")
    return network.eval()


def test_torchaudios_layers_are_averaged(bundle):
    encoder = Encoder("torchaudio:TINY")
    with torch.inference_mode():
        layers, _ = bundle.extract_features(torch.from_numpy(WAVEFORM)[None])
    expected = torch.cat(layers).mean(dim=1).numpy()
    assert expected.shape == (2, 16)
    np.testing.assert_allclose(encoder(WAVEFORM), expected, atol=1e-6)
    assert encoder.n_parameters() == sum(p.numel() for p in bundle.parameters())


class Frames(torch.nn.Module):
    """Splits what it hears into frames; a stand-in for a user's network with its front end."""

    def __init__(self, layers=None):
        super().__init__()
        self.layers = layers
        self.dense = torch.nn.Linear(100, 8)

    def forward(self, waveform):
        frames = self.dense(waveform.unflatten(1, (-1, 100)))
        if self.layers is None:
            return frames
        return torch.stack([frames * (i + 1) for i in range(self.layers)], dim=1)


@scripted
@pytest.mark.parametrize("layers", [None, 3])
def test_a_scripted_encoder_is_a_front_end(layers, tmp_path):
    torch.manual_seed(0)
    network = Frames(layers).eval()
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 20_000)), tmp_path / "mine.pt")
    found = ExportedEncoder(str(tmp_path / "mine.pt"))(WAVEFORM)
    with torch.inference_mode():
        expected = network(torch.from_numpy(WAVEFORM)[None]).reshape(layers or 1, -1, 8).mean(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_an_exported_encoder_of_fixed_length_is_a_front_end(tiny_encoders):
    path = tiny_encoders("exported")
    encoder = ExportedEncoder(str(path), seconds=0.5)
    dense = torch.export.load(path).module()
    long = np.resize(WAVEFORM, 24_000)
    with torch.inference_mode():
        pieces = [dense(torch.from_numpy(piece)[None])[0] for piece in long.reshape(3, 8000)]
    expected = torch.cat(pieces).mean(dim=0).numpy()
    np.testing.assert_allclose(encoder(long), expected[None], atol=1e-6)
    assert encoder(WAVEFORM[:100]).shape == (1, 8)


@scripted
def test_what_an_exported_encoder_returns_is_checked(tmp_path):
    class Flat(torch.nn.Module):
        def forward(self, waveform):
            return waveform.mean(dim=1)

    torch.jit.save(torch.jit.trace(Flat(), torch.zeros(1, 2000)), tmp_path / "flat.pt")
    with pytest.raises(ValueError, match=r"flat\.pt: expected \(1, dim\), .* found \(1,\)"):
        ExportedEncoder(str(tmp_path / "flat.pt"))(WAVEFORM)


def test_other_weights_in_the_same_place_are_another_front_end(tiny_encoders, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoders("wav2vec2"), folder)
    encoder = Encoder(str(folder))
    key, before = repr(encoder), encoder(WAVEFORM)
    assert key.startswith(
        "Encoder(pool='mean', bands=True, power=3.0, sampling_rate=16000, checkpoint='sha256:"
    )
    shutil.copytree(tiny_encoders("hubert"), folder, dirs_exist_ok=True)
    assert repr(encoder) != key
    assert not np.allclose(encoder(WAVEFORM), before)


def test_the_same_weights_elsewhere_are_the_same_front_end(tiny_encoders, tmp_path):
    folder = tiny_encoders("wav2vec2")
    shutil.copytree(folder, tmp_path / "copy")
    assert repr(Encoder(str(tmp_path / "copy"))) == repr(Encoder(str(folder)))


def test_an_encoder_is_loaded_once(tiny_encoders):
    folder = str(tiny_encoders("wav2vec2"))
    assert Encoder(folder).model is Encoder(folder, pool="max").model


def test_layers_are_chosen_and_put_side_by_side(tiny_encoders, train):
    encoder = Encoder(str(tiny_encoders("wav2vec2")))
    one, other = (Layer(encoder, layer=number)(train[:3]) for number in (1, -1))
    np.testing.assert_array_equal(other, Layer(encoder, layer=2)(train[:3]))
    both = Layer(encoder, layer=[1, -1])
    np.testing.assert_array_equal(both(train[:3]), np.concatenate([one, other], axis=1))
    assert both == Layer(encoder, layer=(1, -1))
    with pytest.raises(ValueError, match="layer 3: the encoder has 3, 0 to 2"):
        Layer(encoder, layer=3)(train[:1])


def test_a_detector_on_an_encoder_is_saved_without_it(tiny_encoders, train, test_clips, tmp_path):
    encoder = Encoder(str(tiny_encoders("wav2vec2")))
    detector = KNN(Layer(encoder, layer=1), metric="cosine").fit(train)
    detector.save(tmp_path)
    assert (tmp_path / "detector.safetensors").stat().st_size < 10_000
    loaded = load(tmp_path)
    assert loaded.representation == detector.representation
    np.testing.assert_array_equal(loaded.score(test_clips), detector.score(test_clips))
    assert detector.n_parameters() == encoder.n_parameters() + 16 * len(train)


def test_a_grid_of_layers_encodes_each_clip_once(tiny_encoders, train, test_clips):
    encoder = Encoder(str(tiny_encoders("wav2vec2")))
    detector = KNN(Layer(encoder))
    grid = [{"representation__layer": layer} for layer in (0, 1, 2)]
    rows = detector.score_path(grid, train, test_clips)
    for row, params in zip(rows, grid, strict=True):
        one = clone(detector).set_params(**params).fit(train)
        np.testing.assert_array_equal(row, one.score(test_clips))
    encoded = [key for key in train.cache._memory if key[0].startswith(repr(encoder))]
    assert len(encoded) == len(train) + len(test_clips)


def test_what_is_no_encoder_is_refused(tmp_path):
    AutoConfig.for_model("bert", num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"is a model of kind 'bert': expected one of audio-spectrogram-tr"
    ):
        Encoder(str(tmp_path))(WAVEFORM)
    with pytest.raises(
        ValueError, match="torchaudio has no encoder 'HUBERT': expected one such as"
    ):
        Encoder("torchaudio:HUBERT")(WAVEFORM)
    with pytest.raises(FileNotFoundError, match=r"exported encoder .*none\.pt does not exist"):
        ExportedEncoder(str(tmp_path / "none.pt"))(WAVEFORM)


def test_sounds_that_differ_have_embeddings_that_differ(checkpoint, test_clips):
    one, other = (Encoder(checkpoint)(read(clip.path)) for clip in test_clips[:2])
    assert np.linalg.norm(one - other) > 1e-3 * np.linalg.norm(one)


def test_a_missing_encoder_is_named(tmp_path):
    asked = r"encoder '.*nowhere' could not be read: expected a folder.*without a network, give a"
    with pytest.raises(FileNotFoundError, match=asked):
        Encoder(str(tmp_path / "nowhere"))(np.zeros(1600))


@pytest.mark.parametrize("content", ["code", "damage"])
def test_code_and_damage_in_the_weights_of_an_encoder_are_named(tiny_encoders, tmp_path, content):
    folder = shutil.copytree(tiny_encoders("wav2vec2"), tmp_path / "encoder")
    weights = folder / "model.safetensors"
    if content == "code":
        weights.unlink()
        torch.save({"masked_spec_embed": Planted()}, folder / "pytorch_model.bin")
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FileNotFoundError, match=r"encoder '.*' could not be read"):
        Encoder(str(folder))(WAVEFORM)


class Planted:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code of an encoder was run",)


def test_code_in_the_repository_of_an_encoder_is_not_run(tiny_encoders, tmp_path):
    folder = shutil.copytree(tiny_encoders("wav2vec2"), tmp_path / "encoder")
    (folder / "hostile.py").write_text("raise SystemExit('code of an encoder was run')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "hostile.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is a model of kind 'mine': expected one of"):
        Encoder(str(folder))(WAVEFORM)


def test_perception_encoders_states_are_those_of_transformers(tiny_encoders, tmp_path):
    """The token of the clip leads all layers; text models of whole checkpoints are left out."""
    folder = tiny_encoders("pe_audio")
    encoder = load_encoder(str(folder))
    waveforms = torch.from_numpy(WAVEFORM[:10_000].reshape(2, 5000))
    inputs = encoder.extractor(list(waveforms.numpy()), sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        states = encoder(waveforms)
        expected = encoder.network(**inputs, output_hidden_states=True)
    assert [layer.shape for layer in states] == [(2, 4, 16)] * 3
    for layer, other in zip(states[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(layer, other)
    torch.testing.assert_close(states[-1][:, 1:], expected.last_hidden_state)
    torch.testing.assert_close(states[-1][:, 0], expected.pooler_output)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 30, "pad_token_id": 0}  # fmt: skip
    config = PeAudioConfig(text_config=text, audio_config=encoder.network.config.to_dict())
    whole = PeAudioModel(config)
    whole.audio_encoder.load_state_dict(encoder.network.state_dict())
    whole.save_pretrained(tmp_path)
    encoder.extractor.save_pretrained(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(load_encoder(str(tmp_path))(waveforms)[-1], states[-1])
