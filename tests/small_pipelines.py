"""Pipelines of diffusers with random weights, so small that they train on a CPU."""

import string

import torch
from diffusers import (
    AutoencoderSAME,
    FlowMatchEulerDiscreteScheduler,
    StableAudio3DiTModel,
    StableAudio3Pipeline,
)
from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
from transformers import GemmaTokenizer, T5GemmaConfig, T5GemmaEncoderModel, T5GemmaModuleConfig


def stable_audio3(folder, **scheduler):
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
    pipeline.save_pretrained(folder)
    return str(folder)


def sharpen(module):
    """Give weights to what begins with none, so that what comes out depends on what goes in."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
