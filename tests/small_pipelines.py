"""Pipelines of diffusers with random weights, so small that they train on a CPU."""

import json
import string

import pytest
import torch
from diffusers import (
    AudioLDM2Pipeline,
    AutoencoderOobleck,
    AutoencoderSAME,
    FlowMatchEulerDiscreteScheduler,
    StableAudio3DiTModel,
    StableAudio3Pipeline,
    StableAudioDiTModel,
    StableAudioPipeline,
)
from diffusers.pipelines.audioldm2 import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
)
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GemmaTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5EncoderModel,
    T5GemmaConfig,
    T5GemmaEncoderModel,
    T5GemmaModuleConfig,
    T5Tokenizer,
)

from fsasd.generation.audioldm import checkpoint
from fsasd.generation.diffusion.cosine import CosineScheduler


def audioldm_pipeline():
    """Return diffusers' own pipeline of AudioLDM, or skip the test: it is deprecated."""
    module = "diffusers.pipelines.deprecated.audioldm.pipeline_audioldm"
    return pytest.importorskip(module, reason="diffusers has no AudioLDM any more").AudioLDMPipeline


def audioldm(folder):
    """Write a small one with the kinds of vocoder and schedule that the published ones have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        components = checkpoint.build("nano")
        components.scheduler = checkpoint.build_scheduler()
        components.vocoder = hifigan()
    checkpoint.save(components, folder)
    return str(folder)


def hifigan():
    """Build AudioLDM's vocoder so that it can be heard: untrained, it would be all but silent."""
    vocoder = checkpoint.build_hifigan(64)
    vocoder.conv_post.weight.data *= 1e7
    return vocoder


def stable_audio3(folder, inpaints=True, **scheduler):
    """Write one with latents of 8 x (samples / 128), at 44.1 kHz."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", ".", *string.ascii_letters]
    words += string.digits
    tokenizer = GemmaTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=64
    )
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 16}
    module = T5GemmaModuleConfig(vocab_size=len(words), **size, **heads)
    config = T5GemmaConfig(
        encoder=module, decoder=module, is_encoder_decoder=False, vocab_size=len(words)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = StableAudio3Pipeline(
            vae=AutoencoderSAME(
                patch_size=32, encoder_channels=8, encoder_c_mults=(4,), encoder_strides=(4,),
                encoder_transformer_depths=(1,), latent_dim=8, dim_heads=16,
            ),
            text_encoder=T5GemmaEncoderModel(config),
            tokenizer=tokenizer,
            duration_embedder=StableAudio3DurationEmbedder(32, 16),
            transformer=StableAudio3DiTModel(
                io_channels=8, embed_dim=32, depth=2, num_heads=2, cond_token_dim=32,
                global_cond_dim=32, local_add_cond_dim=9, timestep_features_dim=16,
                num_memory_tokens=4,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, **scheduler),
        )  # fmt: skip
        sharpen(pipeline.vae)
        sharpen(pipeline.transformer)
        for block in pipeline.transformer.transformer_blocks:
            if not inpaints:
                block.to_local_embed[-1].requires_grad_(False).weight.zero_()
    pipeline.save_pretrained(folder)
    return str(folder)


def stable_audio_open(folder, seconds=2.0):
    """Write one with latents of 8 x (samples / 128), at 44.1 kHz, and the published schedule."""
    schedule = {
        "sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0, "sigma_schedule": "exponential",
        "prediction_type": "v_prediction", "solver_order": 2, "final_sigmas_type": "zero",
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text_encoder, tokenizer = t5()
        pipeline = StableAudioPipeline(
            vae=AutoencoderOobleck(
                encoder_hidden_size=16, downsampling_ratios=[2, 8, 8], channel_multiples=[1, 1, 2],
                decoder_channels=8, decoder_input_channels=8,
            ),
            text_encoder=text_encoder,
            projection_model=StableAudioProjectionModel(32, 24, 0, 512),
            tokenizer=tokenizer,
            transformer=StableAudioDiTModel(
                sample_size=-int(-seconds * 44_100 // 128), in_channels=8, out_channels=8,
                num_layers=2, attention_head_dim=16, num_attention_heads=2,
                num_key_value_attention_heads=1, cross_attention_dim=16, time_proj_dim=16,
                global_states_input_dim=48, cross_attention_input_dim=24,
            ),
            scheduler=CosineScheduler(**schedule),
        )  # fmt: skip
    pipeline.save_pretrained(folder)
    # The published scheduler cannot be built without torchsde, but a folder can name it.
    name = "CosineDPMSolverMultistepScheduler"
    for path, change in (
        (folder / "model_index.json", {"scheduler": ["diffusers", name]}),
        (folder / "scheduler/scheduler_config.json", {"_class_name": name}),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | change), encoding="utf-8")
    return str(folder)


def audioldm2(folder):
    """Write one with the nano model's VAE, latents of 4 x (samples / 640) x 16, at 16 kHz."""
    nano = checkpoint.load("nano")
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio = {"depths": [1, 1], "num_attention_heads": [1, 1], "num_hidden_layers": 2}
    audio |= {"patch_size": 2, "patch_stride": 2, "window_size": 4, "spec_size": 64}
    clap = ClapConfig(
        text_config={"vocab_size": 1000, "max_position_embeddings": 130, **text},
        audio_config={"hidden_size": 64, **audio},
        projection_dim=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        language_model = GPT2LMHeadModel(
            GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=100, n_positions=300)
        )
        language_model.config.max_new_tokens = 8
        text_encoder_2, tokenizer_2 = t5()
        pipeline = AudioLDM2Pipeline(
            vae=nano.vae,
            text_encoder=ClapModel(clap),
            text_encoder_2=text_encoder_2,
            projection_model=AudioLDM2ProjectionModel(32, 32, 16),
            language_model=language_model,
            tokenizer=nano.tokenizer,
            tokenizer_2=tokenizer_2,
            feature_extractor=ClapFeatureExtractor(feature_size=64),
            unet=AudioLDM2UNet2DConditionModel(
                in_channels=4, out_channels=4, sample_size=32, block_out_channels=(8, 16),
                layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=((None, 16, 32), (None, 16, 32)),
            ),
            scheduler=checkpoint.build_scheduler(),
            vocoder=hifigan(),
        )  # fmt: skip
    pipeline.save_pretrained(folder)
    return str(folder)


def t5():
    """Build a text encoder of 32 numbers a token, and its tokenizer of letters."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words += [(letter, -3.0) for letter in string.ascii_letters + string.digits + ".,"]
    size = {"d_model": 32, "d_ff": 37, "d_kv": 8, "num_heads": 2, "num_layers": 1}
    encoder = T5EncoderModel(T5Config(vocab_size=len(words), **size))
    return encoder, T5Tokenizer(vocab=words, extra_ids=0, model_max_length=200)


def sharpen(module):
    """Give weights to what begins with none, so that what comes out depends on what goes in."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
