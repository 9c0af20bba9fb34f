"""What fine-tuning changes: all of the UNet, adapters beside it, or parts by name."""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from fsasd.generation.audioldm import checkpoint
from fsasd.generation.diffusion.adaptation import (
    ATTENTION,
    EVERYWHERE,
    Full,
    Lora,
    SelectedComponents,
    load_adapters,
)


def unet():
    return checkpoint.load("nano").unet.eval()


@torch.no_grad()
def predict(model):
    generator = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 64, generator=generator)
    return model(x, 500, encoder_hidden_states=None, class_labels=e).sample


@torch.no_grad()
def disturb(model):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_everything_is_trained_by_default():
    model = unet()
    Full().apply(model)
    assert len(trained(model)) == len(list(model.parameters()))
    assert Full().merged(model) is model


@pytest.mark.parametrize("layers", ["attention", "all", ["to_q"]])
def test_adapters_change_nothing_at_first_and_are_all_that_is_trained(layers):
    model = unet()
    before = predict(model)
    Lora(rank=2, layers=layers).apply(model)
    assert torch.equal(predict(model), before)
    assert trained(model)
    assert all(".lora_" in name for name in trained(model))
    adapted = {name.split(".lora_")[0] for name in trained(model)}
    wanted = {"attention": ATTENTION, "all": EVERYWHERE}.get(str(layers), ["to_q"])
    for layer in wanted:
        assert any(name.endswith(layer) for name in adapted), layer


@pytest.mark.slow
def test_merged_adapters_compute_the_same_without_adapters():
    model, lora = unet(), Lora(rank=4, alpha=32)
    lora.apply(model)
    disturb(model)
    before = predict(model)
    assert not torch.allclose(before, predict(unet()), atol=1e-2)
    merged = lora.merged(model)
    torch.testing.assert_close(predict(merged), before, atol=1e-5, rtol=0)
    assert merged.state_dict().keys() == unet().state_dict().keys()
    # What is trained goes on being trained.
    assert torch.equal(predict(model), before)
    assert trained(model)


def test_adapters_alone_give_the_model_back(tmp_path):
    model, lora = unet(), Lora(rank=4, alpha=32)
    lora.apply(model)
    disturb(model)
    lora.save_separately(model, tmp_path)
    (path,) = (tmp_path / "lora").iterdir()
    assert path.stat().st_size < 0.3 * sum(p.numel() * 4 for p in unet().parameters())
    again = unet()
    load_adapters(again, tmp_path / "lora")
    # The scale, alpha / rank, is in the file, too.
    torch.testing.assert_close(predict(again), predict(model), atol=1e-6, rtol=0)


def test_a_folder_without_adapters(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no adapters"):
        load_adapters(unet(), tmp_path)


def test_parts_are_chosen_by_name():
    model = unet()
    SelectedComponents(["class_embedding.*", "mid_block.attentions.*"]).apply(model)
    assert {name.split(".")[0] for name in trained(model)} == {"class_embedding", "mid_block"}


def test_a_name_that_no_weight_has():
    with pytest.raises(
        ValueError, match=r"no weight of the network is named 'atention\*'.*conv_in"
    ):
        SelectedComponents(["class_embedding*", "atention*"]).apply(unet())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank of at least 1, found 0"),
        ({"layers": "some"}, "attention, all or a list"),
    ],
)
def test_settings_that_make_no_adapter(options, message):
    with pytest.raises(ValueError, match=message):
        Lora(**options)


CHOICES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "conf/generator/train").glob("*.yaml")
    if path.stem != "none"
)
"""All but the one that trains nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("size", ["nano", "s"])
def test_every_choice_applies_to_nano_and_to_s(name, size):
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [f"generator=audioldm_{size}", f"generator/train={name}"])
    choice = instantiate(cfg.generator.train)
    with torch.device("meta"):
        model = checkpoint.build(size).unet
        choice.apply(model)
    total = sum(p.numel() for p in model.parameters())
    share = sum(p.numel() for p in model.parameters() if p.requires_grad) / total
    assert {"full": share == 1, "lora": 0 < share < 0.25, "components": 0.1 < share < 0.9}[name]
    json.dumps(vars(choice), default=list)
