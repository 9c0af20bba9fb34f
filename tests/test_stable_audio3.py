"""Stable Audio 3: equal to diffusers' pipelines, fine-tuned, saved in the pipeline's folder."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderSAME, StableAudio3AudioToAudioPipeline, StableAudio3Pipeline
from diffusers import StableAudio3DiTModel as DiT
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from small_pipelines import stable_audio3

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.generation.diffusion.adaptation import Full, Lora
from fsasd.generation.diffusion.cost import training_cost
from fsasd.generation.diffusion.kept_conditions import KeptCondition
from fsasd.generation.diffusion.model import map_condition
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.pipelines.stable_audio3 import StableAudio3
from fsasd.generation.prompts import make_prompts
from fsasd.testing import check_generator

CAPTION = "This is the normal sound of a fan."


@pytest.fixture(scope="module", params=[False, True], ids=["euler", "stochastic"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable-audio-3")
    return stable_audio3(folder, stochastic_sampling=request.param)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return stable_audio3(tmp_path_factory.mktemp("one"))


@pytest.fixture
def prompt(make_wav):
    clips = Clips([Clip(make_wav("fan.wav", seconds=0.5), "fan", label="normal")])
    return make_prompts(clips, [CAPTION], clips_per_label=1)[0]


def generator(folder, strength=1.0, guidance=3.0, **options):
    sampler = Sampler(steps=4, guidance=guidance, scheduler="euler", strength=strength)
    options = {"crop_seconds": 0.32, "warmup_steps": 1, **options}
    return StableAudio3(str(folder), sampler=sampler, **options)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_its_clips_are_the_pipelines(folder, prompt, guidance):
    pipeline = StableAudio3Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        prompt.caption, duration=prompt.seconds, num_inference_steps=4, guidance_scale=guidance,
        generator=torch.Generator().manual_seed(prompt.seed),
    ).audios[0].mean(0)  # fmt: skip
    model = generator(folder, guidance=guidance)
    (waveform,) = model.eval().generate(model.prepare([prompt]))
    assert len(waveform) == 22_050
    torch.testing.assert_close(waveform, wanted, atol=1e-5, rtol=0)


def test_its_edits_are_the_pipelines(folder, prompt):
    pipeline = StableAudio3AudioToAudioPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    model = generator(folder, strength=0.6, guidance=1.0).eval()
    (prompt,) = model.prepare([prompt])
    # The pipeline does not put an edit into its recording.
    model._put_into_sources = lambda prompts, sources, edits: list(edits)
    encoded, encode = [], model.model.encode
    model.model.encode = lambda sound: encoded.append(sound) or encode(sound)
    (waveform,) = model.generate([prompt])
    wanted = pipeline(
        prompt.caption, audio=torch.from_numpy(encoded[0]).expand(1, 2, -1),
        duration=prompt.seconds, init_noise_level=0.6, num_inference_steps=4,
        generator=torch.Generator().manual_seed(prompt.seed),
    ).audios[0].mean(0)  # fmt: skip
    torch.testing.assert_close(waveform, wanted, atol=1e-5, rtol=0)


@pytest.mark.nightly
@pytest.mark.slow
def test_it_keeps_the_rules_of_a_generator_when_all_its_weights_are_trained(one):
    check_generator(generator(one, train=Full()), reload=generator)


def test_a_saved_model_is_one_of_the_pipeline(one, tmp_path):
    model = generator(one)
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    model.save(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {path.name for path in type(tmp_path)(one).iterdir()} | {"README.md"}
    again = StableAudio3Pipeline.from_pretrained(tmp_path / "model").transformer.state_dict()
    assert all(torch.equal(again[k], w) for k, w in model.network.state_dict().items())


def test_adapters_are_saved_merged_and_alone(one, tmp_path):
    model = generator(one, train=Lora(rank=2, alpha=6, layers="attention"))
    model.adaptation.apply(model.network)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    model.save(tmp_path / "model")
    plain, adapted = StableAudio3Pipeline.from_pretrained(one).transformer, model.network
    merged = StableAudio3Pipeline.from_pretrained(tmp_path / "model").transformer
    condition = map_condition(lambda tensor: tensor[None], model.unconditional)
    latents, time = torch.randn(1, 8, 16), torch.tensor(0.5)
    one, other, wanted = (
        model.model.predict(network.eval(), latents, time, condition)
        for network in (plain, merged, adapted)
    )
    torch.testing.assert_close(other, wanted, atol=1e-4, rtol=1e-4)
    assert (one - wanted).abs().max() > 1e-2
    files = {path.name for path in (tmp_path / "model" / "lora").iterdir()}
    assert {Lora.WEIGHTS, "adapter_config.json"} <= files
    inject_adapter_in_model(LoraConfig.from_pretrained(tmp_path / "model" / "lora"), plain)
    set_peft_model_state_dict(plain, load_file(tmp_path / "model" / "lora" / Lora.WEIGHTS))
    again = model.model.predict(plain, latents, time, condition)
    torch.testing.assert_close(again, wanted, atol=1e-4, rtol=1e-4)


def test_captions_are_kept_without_padding_and_condition_the_same(one):
    model = generator(one).model
    conditions = model.condition([CAPTION, ""], 0.5)
    first = map_condition(lambda tensor: tensor[0], conditions)
    kept = KeptCondition(first)
    again = kept.condition()
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert kept.nbytes < 0.7 * sum(tensor.nbytes for tensor in first.values())
    # What the text encoder says of its padding changes nothing.
    text, _ = model.pipeline.encode_prompt([CAPTION, ""], model.device, 1)
    padded = {**conditions, "text": torch.cat([text, conditions["text"][:, -1:]], 1)}
    assert not torch.equal(padded["text"], conditions["text"])
    latents, time = torch.randn(2, 8, 16), torch.tensor(0.5)
    with torch.no_grad():
        wanted, without = (
            model.predict(model.network.eval(), latents, time, one) for one in (padded, conditions)
        )
    assert torch.equal(wanted, without)


def test_latents_have_the_encoders_rate(one):
    model = generator(one).model
    latent = model.encode(np.zeros(44_100, np.float32))
    assert latent.shape == (8, 44_100 // 128) == model.latent_shape(344)
    assert model.decode(latent[None]).shape == (1, 344 * 128)


def test_the_published_sizes():
    """Medium has 1.45 billion weights in its transformer, 852 million in its encoder (SAME-L)."""
    with torch.device("meta"):
        network = DiT()
        vae = AutoencoderSAME(encoder_channels=256, encoder_transformer_depths=(12,))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(1453.2, abs=0.1)
    assert sum(p.numel() for p in vae.parameters()) / 1e6 == pytest.approx(852, abs=1)


def test_its_cost_is_counted(one):
    model = generator(one)
    plain = training_cost(model.model, model.unconditional, Full(), 2, 32)
    lora = training_cost(model.model, model.unconditional, Lora(rank=2), 2, 32)
    assert plain.trained == plain.total == sum(p.numel() for p in model.network.parameters())
    assert 0 < lora.trained < 0.2 * plain.trained


# What cannot be loaded


def damaged(one, tmp_path):
    shutil.copytree(one, tmp_path / "damaged")
    return tmp_path / "damaged"


def test_another_family_is_named(one, tmp_path):
    folder = damaged(one, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "MusicLDM"}))
    with pytest.raises(CheckpointError, match=r"expected .*, found .* MusicLDM"):
        generator(folder)


def test_all_weights_that_do_not_fit_are_listed(one, tmp_path):
    folder = damaged(one, tmp_path)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["more.weight"] = weights.pop("proj_in.weight")
    weights["proj_out.weight"] = torch.zeros(3, 32)
    save_file(weights, path, {"format": "pt"})
    expected = r"(?s)proj_in\.weight.*transformer\.more\.weight.*proj_out\.weight \[3, 32\]"
    with pytest.raises(CheckpointError, match=expected):
        generator(folder)
    generator(folder, allow=["transformer.*"])


def test_a_class_that_is_not_of_the_libraries_is_not_imported(one, tmp_path):
    folder = damaged(one, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = ["os", "system"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"expected classes of diffusers .* found os\.system"):
        generator(folder)


def test_a_missing_component_is_named(one, tmp_path):
    folder = damaged(one, tmp_path)
    shutil.rmtree(folder / "vae")
    with pytest.raises(CheckpointError, match=r"component vae: could not be loaded"):
        generator(folder)


def test_a_tokenizer_without_words_is_refused(one, tmp_path):
    folder = damaged(one, tmp_path)
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer"):
        generator(folder)
