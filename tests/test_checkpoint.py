"""AudioLDM's components: sizes, folder layout, the original's files, loud loading."""

import json
import shutil

import numpy as np
import pytest
import torch
from original_audioldm import OriginalAudioLDM
from safetensors.torch import load_file, save_file
from small_pipelines import audioldm_pipeline
from torch.nn import functional as F
from transformers import RobertaTokenizer

from fsasd.generation.audioldm import AudioLDM, checkpoint
from fsasd.generation.audioldm.checkpoint import (
    CheckpointError,
    build,
    heads_of,
    load,
    original,
    save,
)
from fsasd.generation.audioldm.checkpoint.components import build_hifigan

pytestmark = pytest.mark.slow

MILLIONS = {"s": 185.0, "m": 416.0, "l": 739.1}


@pytest.mark.parametrize("size", MILLIONS)
def test_unets_have_the_published_sizes(size):
    with torch.device("meta"):
        parts = build(size)
    assert sum(p.numel() for p in parts.unet.parameters()) / 1e6 == pytest.approx(
        MILLIONS[size], abs=0.06
    )
    assert sum(p.numel() for p in parts.vae.parameters()) / 1e6 == pytest.approx(55.4, abs=0.1)


def test_heads_are_those_of_the_original_unet():
    with torch.device("meta"):
        unet = build("s").unet
    attention = [block.attentions[0].transformer_blocks[0].attn1 for block in unet.down_blocks[1:]]
    assert [layer.heads for layer in attention] == [8, 12, 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    torch.manual_seed(0)
    save(build("nano"), folder)
    return folder


def test_saved_components_load_with_the_same_weights(folder):
    torch.manual_seed(0)
    before, after = build("nano"), load(folder)
    for name in ("unet", "vae", "text_encoder"):
        was, is_ = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert was.keys() == is_.keys()
        assert all(torch.equal(was[key], is_[key]) for key in was)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]


def test_the_shipped_nano_model_is_complete_and_small():
    parts = load("nano")
    assert sum(p.numel() for p in parts.unet.parameters()) == pytest.approx(2.58e6, rel=0.01)
    size = sum(path.stat().st_size for path in checkpoint.NANO.rglob("*"))
    assert size < 12e6
    assert parts.unet.dtype == torch.float32


def test_a_saved_folder_does_not_tell_where_it_came_from(folder, tmp_path):
    save(load(folder), tmp_path / "again")
    configs = list((tmp_path / "again").rglob("*.json"))
    assert configs
    assert not any(str(folder) in path.read_text() for path in configs)


def test_only_the_nano_model_predicts_velocity():
    with torch.device("meta"):
        assert build("s").scheduler.config.prediction_type == "epsilon"
    assert load("nano").scheduler.config.prediction_type == "v_prediction"


def test_every_frozen_part_is_in_evaluation_mode(folder):
    assert not any(module.training for module in load(folder).frozen())


def test_unknown_size():
    with pytest.raises(CheckpointError, match="unknown size 'xl': expected one of s, m, l, nano"):
        load("random:xl")


def test_missing_parts_are_listed(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    shutil.rmtree(broken / "vae")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (broken / "text_encoder" / "config.json").unlink()
    (broken / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(CheckpointError) as error:
        load(broken)
    message = "the diffusers layout, but it has no unet/*.safetensors or *.bin, vae/config.json, "
    message += (
        "vae/*.safetensors or *.bin, text_encoder/config.json, scheduler/scheduler_config.json"
    )
    assert message in str(error.value)


def test_missing_and_superfluous_weights_are_listed(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    path = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_inn.weight"] = weights.pop("conv_in.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"conv_in\.weight.*conv_inn\.weight"):
        load(broken)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="absent does not exist"):
        load(tmp_path / "absent")


def test_an_unreachable_hub_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    # Not that "it has no file config.json", as the libraries have it.
    offline = r"offline mode is enabled.*give its path as generator\.checkpoint"
    with pytest.raises(CheckpointError, match=offline):
        AudioLDM("cvssp/audioldm-s-full-v2")


# Folders of others


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of the folder, and a way to alter the weights of a part."""

    def alter(part, change):
        (path,) = (tmp_path / "broken" / part).glob("*.safetensors")
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return shutil.copytree(folder, tmp_path / "broken"), alter


def misfit(weights):
    weights["conv_inn.weight"] = weights.pop("conv_in.weight")
    weights["conv_out.bias"] = torch.zeros(3)


def test_all_that_does_not_fit_is_in_one_error(broken):
    path, alter = broken
    alter("unet", misfit)
    alter("text_encoder", lambda w: w.pop("text_projection.linear1.bias"))
    with pytest.raises(CheckpointError) as error:
        load(path)
    message = str(error.value)
    assert "2 missing: unet.conv_in.weight, text_encoder.text_projection.linear1.bias" in message
    assert "1 unexpected: unet.conv_inn.weight" in message
    assert "1 of another shape: unet.conv_out.bias [3] instead of [4]" in message
    assert "generator.allow=[...]" in message


def test_what_is_allowed_by_name_is_no_error(broken):
    path, alter = broken
    alter("unet", misfit)
    with pytest.raises(CheckpointError, match=r"1 of another shape: unet\.conv_out\.bias"):
        load(path, allow=["unet.conv_in*.weight"])
    parts = load(path, allow=["unet.conv_in*.weight", "unet.conv_out.bias"])
    assert parts.unet.conv_out.bias.shape == (4,)


def test_old_names_files_and_buffers_are_understood(folder, tmp_path):
    """Folders of 2023: pickled weights, VAE attention under other names, position ids."""
    torch.manual_seed(1)
    sizes = checkpoint.Size(
        (32, 64), (1, 2), (False, True), (32, 64), layers=1, latents=4, embedding=64
    )
    parts = build("nano")
    parts.vae = checkpoint.build_vae(sizes)
    save(parts, tmp_path / "old")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "pytorch_model"),
    ):
        (path,) = (tmp_path / "old" / part).glob("*.safetensors")
        weights = load_file(path)
        path.unlink()
        if part == "vae":
            for new, old in names.items():
                weights = {key.replace(f".{new}.", f".{old}."): w for key, w in weights.items()}
            assert any("proj_attn" in key for key in weights)
        if part == "text_encoder":
            weights["text_model.embeddings.position_ids_old_position_ids"] = torch.arange(5)
        torch.save(weights, path.with_name(f"{stem}.bin"))
    again = load(tmp_path / "old")
    for name in ("unet", "vae", "text_encoder"):
        was, is_ = getattr(parts, name).state_dict(), getattr(again, name).state_dict()
        assert all(torch.equal(was[key], is_[key]) for key in was)


def test_a_tokenizer_of_vocabulary_and_merges_reads_as_before(folder, tmp_path):
    """Hub folders of 2023 have `vocab.json` and `merges.txt`, which transformers 5 can drop."""
    old = shutil.copytree(folder, tmp_path / "old")
    whole = json.loads((old / "tokenizer" / "tokenizer.json").read_text())["model"]
    (old / "tokenizer" / "tokenizer.json").unlink()
    (old / "tokenizer" / "vocab.json").write_text(json.dumps(whole["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in whole["merges"]]
    (old / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    text = "This is the normal sound of a fan."
    assert load(old).tokenizer(text).input_ids == load(folder).tokenizer(text).input_ids


def test_a_tokenizer_without_words_is_an_error(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    for path in (bare / "tokenizer").iterdir():
        path.unlink()
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    RobertaTokenizer(vocab=special, merges=[]).save_pretrained(bare / "tokenizer")
    with pytest.raises(
        CheckpointError, match=r"tokenizer .*could not be loaded \(it has no words: no vocab\.json"
    ):
        load(bare)


def test_the_pipeline_of_diffusers_loads_what_is_saved(tmp_path):
    torch.manual_seed(0)
    parts = build("nano")
    parts.vocoder = build_hifigan(channels=64).eval()
    save(parts, tmp_path / "model")
    pipeline = audioldm_pipeline().from_pretrained(tmp_path / "model", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    audio = pipeline("a fan", audio_length_in_s=0.64, num_inference_steps=1).audios
    assert audio.shape == (1, 10_240)
    assert np.isfinite(audio).all()


# Attention heads


def test_heads_that_are_set_are_those_of_a_unet_built_with_them():
    torch.manual_seed(0)
    unet = build("nano").unet.eval()
    sizes = checkpoint.SIZES["nano"]
    other = checkpoint.build_unet(checkpoint.Size(**{**vars(sizes), "heads": (8, 8, 8)})).eval()
    other.load_state_dict(unet.state_dict())
    x, e = torch.randn(1, 4, 16, 16), torch.randn(1, 64)

    def predict(model):
        with torch.no_grad():
            return model(x, 500, encoder_hidden_states=None, class_labels=e).sample

    before = predict(unet)
    assert not torch.allclose(before, predict(other), atol=1e-5)
    checkpoint.set_heads(unet, (8, 8, 8))
    assert torch.equal(predict(unet), predict(other))
    assert heads_of(unet) == (8, 8, 8)
    checkpoint.set_heads(unet, checkpoint.original_heads(unet))
    assert torch.equal(predict(unet), before)


def test_heads_that_do_not_divide_the_channels():
    with pytest.raises(CheckpointError, match="level 1: 64 channels for 5 attention heads"):
        checkpoint.set_heads(build("nano").unet, (1, 5, 3))


@pytest.mark.parametrize("size", MILLIONS)
def test_the_hubs_eight_heads_are_not_the_originals(size):
    with torch.device("meta"):
        unet = build(size).unet
    unet.register_to_config(attention_head_dim=8)
    assert heads_of(unet) == (8, 8, 8, 8)
    assert checkpoint.original_heads(unet) == tuple(checkpoint.SIZES[size].heads)


# Files of the original


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(2)
    return OriginalAudioLDM().eval()


@pytest.fixture(scope="module")
def ckpt(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "audioldm.ckpt"
    torch.save({"state_dict": theirs.state_dict(), "global_step": 1}, path)
    return path


@pytest.fixture(scope="module")
def converted(ckpt):
    return load(ckpt, tokenizer=str(checkpoint.NANO))


def test_an_original_unet_predicts_the_same(theirs, converted):
    x, t, e = torch.randn(2, 4, 16, 16), torch.tensor([3, 800]), F.normalize(torch.randn(2, 16))
    with torch.no_grad():
        wanted = theirs.model.diffusion_model(x, t, e)
        result = converted.unet(x, t, encoder_hidden_states=None, class_labels=e).sample
        torch.testing.assert_close(result, wanted, atol=2e-5, rtol=1e-4)
        # Weights are as good as any with the wrong heads; the prediction is not.
        checkpoint.set_heads(converted.unet, (8, 8, 8))
        wrong = converted.unet(x, t, encoder_hidden_states=None, class_labels=e).sample
        checkpoint.set_heads(converted.unet, (1, 2, 3))
    assert (wrong - wanted).abs().max() > 1e-3


def test_an_original_vae_encodes_and_decodes_the_same(theirs, converted):
    vae, mel = theirs.first_stage_model, torch.randn(1, 1, 32, 16)
    with torch.no_grad():
        moments = vae.quant_conv(vae.encoder(mel))
        result = converted.vae.encode(mel).latent_dist
        torch.testing.assert_close(result.parameters, moments, atol=1e-5, rtol=1e-4)
        wanted = vae.decoder(vae.post_quant_conv(result.mean))
        torch.testing.assert_close(
            converted.vae.decode(result.mean).sample, wanted, atol=1e-5, rtol=1e-4
        )
    assert converted.vae.config.scaling_factor == pytest.approx(0.9227)


def test_an_original_text_branch_and_vocoder_compute_the_same(theirs, converted):
    tokens = converted.tokenizer(["a fan", "a pump runs"], padding=True, return_tensors="pt")
    mel = torch.randn(1, 8, 64)
    with torch.no_grad():
        wanted = theirs.cond_stage_model.model(**tokens)
        result = converted.text_encoder(**tokens).text_embeds
        torch.testing.assert_close(result, wanted, atol=1e-5, rtol=1e-4)
        wave = theirs.first_stage_model.vocoder(mel.mT)[:, 0]
        torch.testing.assert_close(converted.vocoder(mel), wave, atol=1e-6, rtol=1e-4)


@pytest.mark.nightly
def test_names_of_the_published_small_model():
    """Spot checks of names and shapes that the published `audioldm-s-full` file has."""
    with torch.device("meta"):
        parts = build("s")
    names = original.original_names(parts)
    theirs = {
        name: tuple(getattr(parts, part).state_dict()[key].shape)
        for part, keys in names.items()
        for key, name in keys.items()
    }
    unet = "model.diffusion_model."
    assert theirs[f"{unet}input_blocks.3.0.op.weight"] == (128, 128, 3, 3)
    assert theirs[f"{unet}input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"] == (256, 256)
    assert theirs[f"{unet}input_blocks.11.0.in_layers.2.weight"] == (640, 640, 3, 3)
    assert theirs[f"{unet}middle_block.1.transformer_blocks.0.ff.net.0.proj.weight"] == (5120, 640)
    assert theirs[f"{unet}output_blocks.2.2.conv.weight"] == (640, 640, 3, 3)
    assert theirs[f"{unet}output_blocks.11.0.skip_connection.weight"] == (128, 256, 1, 1)
    assert theirs[f"{unet}film_emb.weight"] == (512, 512)
    assert theirs[f"{unet}input_blocks.1.0.emb_layers.1.weight"] == (128, 1024)
    assert theirs["first_stage_model.encoder.down.1.block.0.nin_shortcut.weight"][0] == 256
    assert theirs["first_stage_model.decoder.up.2.upsample.conv.weight"] == (512, 512, 3, 3)
    assert theirs["first_stage_model.vocoder.ups.0.weight"] == (1024, 512, 16)
    assert theirs["cond_stage_model.model.text_projection.2.weight"] == (512, 512)
    assert "cond_stage_model.model.text_branch.pooler.dense.weight" in theirs
    assert len(theirs) == sum(map(len, names.values()))


def test_the_average_of_the_unet_is_preferred(theirs, tmp_path):
    state = theirs.state_dict()
    prefix = "model.diffusion_model."
    for key in [key for key in state if key.startswith(prefix)]:
        state["model_ema." + key.removeprefix("model.").replace(".", "")] = state[key] + 1
    state["model_ema.decay"] = torch.tensor(0.9999)
    torch.save({"state_dict": state}, tmp_path / "ema.ckpt")
    parts = load(tmp_path / "ema.ckpt", tokenizer=str(checkpoint.NANO))
    torch.testing.assert_close(parts.unet.conv_in.bias, state[prefix + "input_blocks.0.0.bias"] + 1)


def test_what_an_original_file_lacks_or_has_too_much_is_listed(theirs, tmp_path):
    state = theirs.state_dict()
    del state["model.diffusion_model.out.0.bias"]
    state["model.diffusion_model.input_blocks.4.2.norm.weight"] = torch.zeros(64)
    state["first_stage_model.quant_conv.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as error:
        load(tmp_path / "odd.pth", tokenizer=str(checkpoint.NANO))
    message = str(error.value)
    assert "1 missing: unet.conv_norm_out.bias" in message
    unexpected = "original.model.diffusion_model.input_blocks.4.2.norm.weight"
    assert f"1 unexpected: {unexpected}" in message
    assert "1 of another shape: vae.quant_conv.bias [3] instead of [8]" in message


def test_a_file_of_another_model(tmp_path):
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "vae.pth")
    with pytest.raises(CheckpointError, match=r"lacks .*film_emb\.weight.*scale_factor"):
        load(tmp_path / "vae.pth", tokenizer=str(checkpoint.NANO))


def test_another_noise_schedule_is_an_error(theirs, tmp_path):
    state = {**theirs.state_dict(), "alphas_cumprod": torch.linspace(1, 0, 1000)}
    torch.save(state, tmp_path / "schedule.ckpt")
    with pytest.raises(CheckpointError, match="trained with another noise schedule"):
        load(tmp_path / "schedule.ckpt", tokenizer=str(checkpoint.NANO))


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"state_dict": {}, "callbacks": Unpickled()}, tmp_path / "code.ckpt")
    with pytest.raises(CheckpointError, match=r"tensors alone, found a \S+\. .*weights_only=False"):
        load(tmp_path / "code.ckpt", tokenizer=str(checkpoint.NANO))


class Unpickled:
    def __reduce__(self):
        return pytest.fail, ("code of a checkpoint was run",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.ckpt", [torch.zeros(2)], "expected weights by name, found list"),
        ("tensor.pth", torch.zeros(2), "expected weights by name, found Tensor"),
        ("odd.ckpt", b"\x80\x04\x95garbage", "expected a file of tensors alone"),
        ("half.safetensors", b"\x10\x00\x00", "expected safetensors"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name}: {message}"):
        load(tmp_path / name, tokenizer=str(checkpoint.NANO))


@pytest.mark.parametrize("content", ["code", "damage"])
@pytest.mark.parametrize(
    ("part", "pickled"),
    [("unet", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")],
)
def test_code_and_damage_in_the_weights_of_a_folder_are_named(tmp_path, part, pickled, content):
    """Of folders with pickled ``.bin`` weights, as they were in 2023."""
    folder = shutil.copytree(checkpoint.NANO, tmp_path / "model")
    (weights,) = (folder / part).glob("*.safetensors")
    if content == "code":
        weights.unlink()
        torch.save({"conv_in.weight": Unpickled()}, weights.with_name(pickled))
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="model: could not be loaded"):
        load(folder)


def test_an_original_file_without_its_tokenizer_says_how_to_give_one(ckpt, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"roberta-base.*path as generator\.tokenizer"):
        load(ckpt)


def test_a_tokenizer_of_another_model_is_an_error(theirs, tmp_path):
    state = theirs.state_dict()
    words = "cond_stage_model.model.text_branch.embeddings.word_embeddings.weight"
    torch.save({**state, words: state[words][:100]}, tmp_path / "few.ckpt")
    with pytest.raises(CheckpointError, match=r"knows 100 words, the tokenizer \d+"):
        load(tmp_path / "few.ckpt", tokenizer=str(checkpoint.NANO))


def test_half_a_file_is_named(ckpt, tmp_path):
    (tmp_path / "half.ckpt").write_bytes(ckpt.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"half\.ckpt: expected a file of tensors alone"):
        load(tmp_path / "half.ckpt", tokenizer=str(checkpoint.NANO))


def test_a_file_of_the_original_gives_its_sizes(ckpt):
    assert checkpoint.files(ckpt) == [ckpt]
