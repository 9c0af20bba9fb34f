"""AudioLDM's components: sizes, folder layout, loud loading."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fsasd.generation import checkpoint
from fsasd.generation.checkpoint import CheckpointError, build, load, save

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
    shutil.rmtree(broken / "scheduler")
    with pytest.raises(CheckpointError, match="no folder vae, scheduler"):
        load(broken)


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
    with pytest.raises(CheckpointError, match=r"give its path as generator\.checkpoint"):
        load("cvssp/audioldm-s-full-v2")
