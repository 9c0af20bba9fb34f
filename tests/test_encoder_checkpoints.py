"""BEATs, Dasheng, CED and EAT against the numbers of their authors' code.

``encoder_references.json`` holds every n-th number of each layer's states of ``WAVEFORM``, computed
in single precision by the authors' networks with the tiny settings and the weights of
``tiny_checkpoints``: microsoft/unilm at 768a3c8 (``beats``: ``BEATs.preprocess``, then ``encoder``
with ``layer=2``), RicherMans/Dasheng at db73093 (``Dasheng.forward``), RicherMans/CED at 60a0f54
(``front_end``, ``init_bn``, ``forward_features``), cwx-worst-one/EAT at 06c1c34 (its ``AltBlock``,
``BlockEncoder`` and ``PatchEmbed_new``, in the order of ``Data2VecMultiModel.forward``, and the
spectrogram of ``feature_extract.py`` with ``target_length`` 112). States between the first and the
last were taken by hooks of the blocks. All agree with ours within 2e-5 of values up to 50.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_checkpoints
import torch
from safetensors.torch import save_file

from fsasd.detectors.encoders import Encoder, TrainableEncoder
from fsasd.detectors.encoders.beats import BEATsNetwork
from fsasd.detectors.encoders.dasheng import DashengNetwork
from fsasd.detectors.encoders.eat import EATNetwork
from fsasd.detectors.encoders.loading import load
from fsasd.detectors.networks.classifier import Training
from fsasd.detectors.systems.pretrained import Pretrained

KINDS = ("beats", "ced", "dasheng", "eat")
SAMPLES = {"beats": 16_000, "ced": 15_200, "dasheng": 7520, "eat": 16_000}
KEPT = 12


def waveform() -> np.ndarray:
    """Silence, noise, and a tone."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    noise[8000:] += 0.3 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 16_000).astype(np.float32)
    noise[:2000] *= np.float32(1e-8)
    return noise


WAVEFORM = waveform()


@pytest.fixture(scope="module")
def references():
    return json.loads(Path(__file__).with_name("encoder_references.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_the_authors_code(kind, references, tiny_encoders):
    encoder = load(str(tiny_encoders(kind)))
    with torch.inference_mode():
        states = encoder(torch.from_numpy(WAVEFORM[None, : SAMPLES[kind]]))
    assert len(states) == len(references[kind])
    for layer, expected in zip(states, references[kind], strict=True):
        kept = layer.flatten()[:: max(1, layer.numel() // KEPT)][:KEPT]
        np.testing.assert_allclose(kept.numpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_states_do_not_depend_on_the_batch(kind, tiny_encoders):
    encoder = load(str(tiny_encoders(kind)))
    quiet_and_loud = torch.from_numpy(WAVEFORM[:7520]) * torch.tensor([[1e-3], [1.0]])
    with torch.inference_mode():
        together = encoder(quiet_and_loud)
        apart = [encoder(one[None]) for one in quiet_and_loud]
    for number, layer in enumerate(together):
        expected = torch.cat([states[number] for states in apart])
        torch.testing.assert_close(layer, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_high_sounds_are_in_high_bands(kind, tiny_encoders):
    """At layer 0 a tone changes the patches of its own band most."""
    encoder = load(str(tiny_encoders(kind)))
    time = torch.arange(7520) / 16_000
    quiet = torch.from_numpy(WAVEFORM[None, :7520])
    changed = []
    for hz in (150, 6500):
        tone = torch.sin(2 * torch.pi * hz * time)
        with torch.inference_mode():
            grids = [encoder.steps.grid(encoder(x)[0])[0] for x in (quiet, quiet + tone)]
        changed.append((grids[1] - grids[0]).norm(dim=(1, 2)))
    assert len(changed[0]) == encoder.steps.bands == {"ced": 4, "dasheng": 1}.get(kind, 8)
    if kind != "dasheng":
        assert changed[0].argmax() < changed[1].argmax()


@pytest.mark.parametrize(
    ("network", "shapes", "expected", "million"),
    [
        # What the authors' networks have, without classifiers; in millions, what they publish.
        ("beats", {}, 90_311_792, 90),
        ("dasheng", {"dim": 768, "depth": 12}, 85_447_808, 86),
        ("dasheng", {"dim": 1280, "depth": 32}, None, 600),
        ("dasheng", {"dim": 1536, "depth": 40}, None, 1200),
        ("ced", {"dim": 192, "depth": 12}, 5_401_088, 5.5),
        ("ced", {"dim": 256, "depth": 12}, 9_560_704, 9.6),
        ("ced", {"dim": 384, "depth": 12}, 21_418_880, 22),
        ("ced", {"dim": 768, "depth": 12}, 85_304_960, 86),
        ("eat", {"dim": 768, "depth": 12}, 89_972_736, 88),
        ("eat", {"dim": 1024, "depth": 24}, 308_867_072, 309),
    ],
)
def test_published_sizes(network, shapes, expected, million):
    with torch.device("meta"):
        if network == "beats":
            model = BEATsNetwork({})
        elif network == "eat":
            model = EATNetwork(meta(tiny_checkpoints.eat_shapes(**sizes(shapes), frames=768)))
        else:
            patch, grid = {"ced": ((16, 16), (4, 63)), "dasheng": ((64, 4), (1, 252))}[network]
            published = tiny_checkpoints.dasheng_shapes(**sizes(shapes), patch=patch, grid=grid)
            model = DashengNetwork(meta(published), heads=4)
    count = sum(p.numel() for p in model.parameters())
    assert expected in (None, count)
    assert math.isclose(count, 1e6 * million, rel_tol=0.06)


def sizes(shapes):
    return {**shapes, "hidden": 4 * shapes["dim"]}


def meta(shapes):
    """Weights without values, by the names of the network."""
    return {bare_name(name): torch.empty(shape, device="meta") for name, shape in shapes.items()}


def bare_name(name):
    """A weight's name without what only its authors' files have in it."""
    name = name.removeprefix(tiny_checkpoints.EAT)
    return name.replace("context_encoder.norm", "pre_norm").replace("init_bn.1.", "init_bn.")


# Files


@pytest.mark.parametrize("kind", ["ced", "dasheng", "eat"])
def test_folders_of_the_hub_hold_the_same_encoder(kind, tiny_encoders, tmp_path):
    """Their weights have other names there, and ``config.json`` names code that is not run."""
    content = tiny_checkpoints.checkpoint(kind)
    weights = {name: w for name, w in content["model"].items() if isinstance(w, torch.Tensor)}
    if kind == "eat":
        kept = {name: w for name, w in weights.items() if "decoder" not in name}
        hub = {f"model.{bare_name(name)}": w for name, w in kept.items()}
    else:
        bare = {name: w for name, w in weights.items() if not name.startswith("front_end")}
        bn = "init_bn." if kind == "ced" else "init_bn.1."
        hub = {
            name
            if name.startswith("outputlayer")
            else "encoder." + name.replace("init_bn.1.", bn): w
            for name, w in bare.items()
        }
    save_file(hub, tmp_path / "model.safetensors")
    config = {"model_type": kind, "auto_map": {"AutoModel": "hostile.Model"}}
    config |= content.get("config", {})
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "hostile.py").write_text("raise SystemExit('code of an encoder was run')\n")
    expected = Encoder(str(tiny_encoders(kind)))(WAVEFORM)
    np.testing.assert_array_equal(Encoder(str(tmp_path))(WAVEFORM), expected)


def changed(kind, folder, change):
    """The path of a tiny checkpoint to which something was done."""
    content = tiny_checkpoints.checkpoint(kind)
    change(content)
    path = folder / f"{kind}.pt"
    torch.save(content, path)
    return str(path)


BETWEEN = {
    "beats": "encoder.layers.1.fc1.bias",
    "ced": "blocks.1.attn.qkv.weight",
    "dasheng": "time_pos_embed",
    "eat": "blocks.0.mlp.fc1.weight",
}


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_surplus_weights_are_named(kind, tmp_path):
    name = BETWEEN[kind]
    path = changed(kind, tmp_path, lambda content: content["model"].pop(name))
    if kind == "dasheng":
        # Its family is told by this weight.
        with pytest.raises(ValueError, match=r"expected the weights of BEATs, Dasheng, CED or EAT"):
            load(path)
    else:
        with pytest.raises(ValueError, match=rf"beats|{kind}.*it lacks 1 weight \({name}\)"):
            load(path)
    extra = {"blocks.0.ls1.gamma": torch.ones(1), "quantize.weight": torch.ones(1)}
    path = changed(kind, tmp_path, lambda content: content["model"].update(extra))
    with pytest.raises(
        ValueError, match=r"it has another 2 weights \(blocks\.0\.ls1\.gamma, quant"
    ):
        load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_another_size_are_named(kind, tmp_path):
    def shorten(content):
        name = {"beats": "layer_norm.bias", "eat": f"{tiny_checkpoints.EAT}extra_tokens"}.get(
            kind, "norm.bias"
        )
        content["model"][name] = content["model"][name][..., :3]

    with pytest.raises(ValueError, match=r"expected \w+(\.bias)? of shape .*, found \(.*3,?\)"):
        load(changed(kind, tmp_path, shorten))


@pytest.mark.parametrize(
    ("kind", "part", "settings", "message"),
    [
        ("beats", "cfg", {"layer_norm_first": True}, "expected layer_norm_first=False.*found True"),
        ("dasheng", "config", {"hop_size": 320}, "expected hop_size=160.*found 320"),
        ("eat", "cfg", {"norm_eps": 1e-5}, "expected norm_eps=1e-06.*found 1e-05"),
    ],
)
def test_settings_of_no_published_encoder_are_refused(kind, part, settings, message, tmp_path):
    path = changed(kind, tmp_path, lambda content: content[part].update(settings))
    with pytest.raises(ValueError, match=f"{message}.*use representation=exported"):
        load(path)


def test_other_files_are_refused(tmp_path):
    asked = r"could not be read: expected the file of a checkpoint, of tensors and plain values"
    with pytest.raises(FileNotFoundError, match=rf"none\.pt' {asked}.*there is no such file"):
        load(str(tmp_path / "none.pt"))
    for name, content in {"text.pt": b"no weights", "empty.safetensors": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileNotFoundError, match=rf"{name}' {asked}"):
            load(str(tmp_path / name))
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt': expected weights by name, found a list"):
        load(str(tmp_path / "list.pt"))
    torch.save({"model": {"fc.weight": torch.ones(1)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"expected the weights of BEATs.*others \(fc\.weight ..."):
        load(str(tmp_path / "other.pt"))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Planted:
        def __reduce__(self):
            return pytest.fail, ("code of a checkpoint was run",)

    path = changed("beats", tmp_path, lambda content: content.update(extra=Planted()))
    with pytest.raises(FileNotFoundError, match="could not be read: expected the file of a check"):
        load(path)


def test_half_precision_weights_are_converted(tiny_encoders, tmp_path):
    def halve(content):
        content["model"] = {
            name: w.half() if w.is_floating_point() else w for name, w in content["model"].items()
        }

    path = changed("beats", tmp_path, halve)
    expected = Encoder(str(tiny_encoders("beats")))(WAVEFORM)
    np.testing.assert_allclose(Encoder(path)(WAVEFORM), expected, atol=0.02)


# Use


@pytest.mark.parametrize("kind", KINDS)
def test_long_clips_are_the_mean_of_their_pieces(kind, tiny_encoders):
    encoder = Encoder(str(tiny_encoders(kind)))
    window = encoder.model.window
    long = np.resize(WAVEFORM, int(1.5 * window))
    pieces = [encoder(long[start : start + window]) for start in (0, len(long) - window)]
    np.testing.assert_allclose(encoder(long), np.mean(pieces, axis=0), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_short_clips_are_repeated(kind, tiny_encoders):
    encoder = Encoder(str(tiny_encoders(kind)))
    short = WAVEFORM[8000:8100]
    expected = encoder(np.resize(short, encoder.model.least))
    np.testing.assert_array_equal(encoder(short), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_computes_the_same(kind, tiny_encoders):
    """As a trainer with ``precision=bf16-mixed`` does; spectrograms stay in single precision."""
    encoder = load(str(tiny_encoders(kind)))
    waveforms = torch.from_numpy(WAVEFORM[None, 8000:14_400])
    with torch.inference_mode():
        plain = encoder(waveforms)[-1]
        with torch.autocast("cpu", torch.bfloat16):
            inputs = encoder.inputs(waveforms)["spectrogram"]
            half = encoder(waveforms)[-1]
    torch.testing.assert_close(inputs, encoder.inputs(waveforms)["spectrogram"])
    assert (half.float() - plain).norm() < 0.1 * plain.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_weights_and_masks_hide_only_in_training(kind, tiny_encoders):
    encoder = TrainableEncoder(str(tiny_encoders(kind)), 0.4, layer=1, masks=(8, 8))
    waveforms = torch.from_numpy(WAVEFORM[8000:14_400])[None]
    plain = encoder.eval()(waveforms)
    plain.sum().backward()
    assert sum(p.grad is not None for p in encoder.parameters()) > 10
    # Its batch normalisation is evaluated as it was learnt.
    encoder.training = True
    torch.manual_seed(0)
    assert not torch.allclose(encoder(waveforms), plain, atol=1e-3)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("kind", [*KINDS, "pe_audio"])
def test_every_weight_that_is_fine_tuned_has_a_gradient(kind, tuning, tiny_encoders):
    encoder = str(tiny_encoders(kind))
    training = Training(seconds=0.4)
    pretrained = Pretrained(
        encoder=encoder, layer=1, tuning=tuning, rank=1, dim=8, training=training
    )
    member = pretrained.classifier(0, 3)
    waveforms = torch.from_numpy(np.resize(WAVEFORM, (3, 6400)))
    member.train().loss(waveforms, torch.eye(3)).backward()
    trained = {name: p for name, p in member.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    inner = [name for name in trained if name.startswith("network.0.")]
    assert len(inner) > 1
    assert all("lora_" in name for name in inner) == (tuning == "lora")
