"""AudioLDM 2: equal to diffusers' pipeline, fine-tuned, saved in the pipeline's folder."""

import pytest
import torch
from diffusers import AudioLDM2Pipeline, DDIMScheduler
from diffusers.pipelines.audioldm2 import AudioLDM2UNet2DConditionModel
from small_pipelines import audioldm2, stable_audio3
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.generation.audioldm.vocoder import require_mel
from fsasd.generation.audioldm2 import TEXT_TOKENS, AudioLDM2
from fsasd.generation.diffusion.adaptation import Lora
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.prompts import make_prompts
from fsasd.testing import check_generator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return audioldm2(tmp_path_factory.mktemp("audioldm2"))


@pytest.fixture
def prompt(make_wav):
    clips = Clips([Clip(make_wav("fan.wav", seconds=0.64), "fan", label="normal")])
    return make_prompts(clips, ["The normal sound of a fan."], clips_per_label=1)[0]


def generator(folder, guidance=2.5, **options):
    sampler = Sampler(steps=4, guidance=guidance, scheduler="ddim", eta=0.0)
    options = {"crop_seconds": 0.64, "warmup_steps": 1, **options}
    return AudioLDM2(str(folder), sampler=sampler, **options).eval()


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_its_clips_are_the_pipelines(folder, prompt, guidance):
    pipeline = AudioLDM2Pipeline.from_pretrained(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    # The pipeline pads an empty caption to the prompt's length, which GPT-2 counts: given alone.
    names = ("prompt_embeds", "attention_mask", "generated_prompt_embeds")
    with torch.no_grad():
        given, empty = (
            dict(zip(names, pipeline.encode_prompt([text], "cpu", 1, False), strict=True))
            for text in (prompt.caption, "")
        )
    empty = {f"negative_{name}": tensor for name, tensor in empty.items()}
    missing = given["prompt_embeds"].shape[1] - empty["negative_prompt_embeds"].shape[1]
    pad = torch.nn.functional.pad
    empty["negative_prompt_embeds"] = pad(empty["negative_prompt_embeds"], (0, 0, 0, missing))
    empty["negative_attention_mask"] = pad(empty["negative_attention_mask"], (0, missing))
    wanted = pipeline(
        **given, **empty, audio_length_in_s=prompt.seconds, num_inference_steps=4,
        guidance_scale=guidance, output_type="pt",
        generator=torch.Generator().manual_seed(prompt.seed),
    ).audios[0]  # fmt: skip
    (waveform,) = generator(folder, guidance).generate([prompt])
    assert waveform.std() > 1e-3
    torch.testing.assert_close(waveform, torch.as_tensor(wanted), atol=1e-5, rtol=0)


def test_a_caption_has_one_condition_whatever_is_beside_it(folder):
    model = generator(folder).model
    alone = model.condition(["a fan"], 0.64)
    beside = model.condition(["a valve with a very long caption indeed", "a fan"], 0.64)
    for name, tensor in alone.items():
        torch.testing.assert_close(beside[name][1], tensor[0])
    assert alone["text"].shape == (1, TEXT_TOKENS, 32)
    assert 0 < int(alone["mask"].sum()) < TEXT_TOKENS


def test_a_caption_that_is_too_long_is_cut(folder):
    condition = generator(folder).model.condition(["a" * 180], 0.64)
    assert condition["text"].shape == (1, TEXT_TOKENS, 32)
    assert int(condition["mask"].sum()) == TEXT_TOKENS


@pytest.mark.nightly
def test_its_adapters_keep_the_rules_of_a_generator(folder):
    check_generator(generator(folder, train=Lora(rank=2)), reload=generator, decibel=2.0)


def test_a_saved_model_is_one_of_the_pipeline(folder, tmp_path):
    model = generator(folder)
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    model.save(tmp_path / "model")
    # Paths of this machine are not for others.
    assert not [p for p in tmp_path.glob("model/**/*.json") if str(folder) in p.read_text()]
    again = AudioLDM2Pipeline.from_pretrained(tmp_path / "model").unet.state_dict()
    assert all(torch.equal(again[k], w) for k, w in model.network.state_dict().items())


def test_the_published_size():
    cross, levels = (None, 768, 1024), (128, 256, 384, 640)
    down, up = ["CrossAttnDownBlock2D"] * 3, ["CrossAttnUpBlock2D"] * 3
    with torch.device("meta"):
        unet = AudioLDM2UNet2DConditionModel(
            in_channels=8, out_channels=8, block_out_channels=levels,
            down_block_types=("DownBlock2D", *down), up_block_types=(*up, "UpBlock2D"),
            cross_attention_dim=(cross,) * 4, attention_head_dim=(4, 8, 12, 20),
        )  # fmt: skip
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(347, abs=0.5)


@pytest.mark.parametrize(
    ("changed", "found"),
    [({"sampling_rate": 48_000}, "64, 160 and 48000 Hz"), ({"model_in_dim": 256}, "256, 160 and")],
)
def test_a_vocoder_of_other_log_mels_is_refused(changed, found):
    config = SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=16_000, upsample_initial_channel=32,
        upsample_rates=[5, 4, 2, 2, 2], upsample_kernel_sizes=[16, 16, 8, 4, 4],
    )  # fmt: skip
    vocoder = SpeechT5HifiGan(config)
    require_mel(vocoder, "a/model")
    vocoder.config.update(changed)
    expected = f"a/model: expected a vocoder .* 64 bins and 160 .* at 16000 Hz, found {found}"
    with pytest.raises(CheckpointError, match=expected):
        require_mel(vocoder, "a/model")


def test_a_checkpoint_of_another_family_is_named(tmp_path):
    other = stable_audio3(tmp_path / "other")
    expected = r"expected the folder of a AudioLDM2Pipeline, found that of a StableAudio3Pipeline"
    with pytest.raises(CheckpointError, match=expected):
        generator(other)
