"""Components of AudioLDM in its published sizes, built with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from fsasd.generation.audioldm.vocoder import GriffinLim
from fsasd.generation.diffusion.weight_mismatches import CheckpointError

NANO = resources.files("fsasd.generation.audioldm") / "weights" / "nano"
"""The pre-trained nano model that ships with the package (``fsasd experiment=pretrain_nano``)."""


@dataclass
class Components:
    """The components of an AudioLDM; fine-tuning changes the UNet."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: ClapTextModelWithProjection
    tokenizer: RobertaTokenizer
    vocoder: SpeechT5HifiGan | GriffinLim
    scheduler: DDIMScheduler

    def frozen(self) -> tuple[nn.Module, ...]:
        """Return the modules that are never trained."""
        return self.vae, self.text_encoder, self.vocoder


@dataclass(frozen=True)
class Size:
    """Sizes of one AudioLDM; ``heads`` per level as in the original UNet."""

    channels: Sequence[int]
    heads: Sequence[int]
    cross_attention: Sequence[bool]
    vae_channels: Sequence[int] = (128, 256, 512)
    layers: int = 2
    latents: int = 8
    groups: int = 32
    embedding: int = 512
    vae_attention: bool = True


_UPPER_LEVELS = (False, True, True, True)
SIZES = {
    "s": Size((128, 256, 384, 640), (4, 8, 12, 20), _UPPER_LEVELS),
    "m": Size((192, 384, 576, 960), (6, 12, 18, 30), _UPPER_LEVELS),
    "l": Size((256, 512, 768, 1280), (4, 8, 12, 20), _UPPER_LEVELS),
    "nano": Size(
        (32, 64, 96),
        (1, 2, 3),
        (False, False, True),
        vae_channels=(16, 32, 64),
        layers=1,
        latents=4,
        groups=8,
        embedding=64,
        vae_attention=False,
    ),
}


def build(size: str) -> Components:
    """Build an AudioLDM with random weights; its tokenizer is the nano model's.

    Raises:
        CheckpointError: There is no such size.

    >>> import torch
    >>> with torch.device("meta"):
    ...     unet = build("s").unet
    >>> round(sum(p.numel() for p in unet.parameters()) / 1e6)
    185
    """
    if size not in SIZES:
        raise CheckpointError(f"unknown size '{size}': expected one of {', '.join(SIZES)}")
    sizes = SIZES[size]
    text_encoder = (
        build_nano_text_encoder(vocabulary=1000)
        if size == "nano"
        else ClapTextModelWithProjection(ClapTextConfig())
    )
    return Components(
        unet=build_unet(sizes),
        vae=build_vae(sizes),
        text_encoder=text_encoder.eval(),
        tokenizer=RobertaTokenizer.from_pretrained(str(NANO / "tokenizer")),
        vocoder=GriffinLim() if size == "nano" else build_hifigan(),
        scheduler=build_scheduler("v_prediction" if size == "nano" else "epsilon"),
    )


def build_nano_text_encoder(vocabulary: int) -> ClapTextModelWithProjection:
    """Build the nano model's CLAP text branch with random weights."""
    return ClapTextModelWithProjection(
        ClapTextConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            projection_dim=SIZES["nano"].embedding,
            max_position_embeddings=130,
        )
    )


def build_scheduler(prediction: str = "epsilon") -> DDIMScheduler:
    """Build AudioLDM's noise schedule (audioldm's ``latent-diffusion`` configuration).

    Args:
        prediction: ``epsilon``, the noise, as AudioLDM has it, or ``v_prediction``, the velocity
            (Salimans and Ho, 2022), as the nano model has it. Of almost pure noise, where the
            caption decides on the spectrum as a whole, a clip is the prediction's error times 84
            when noise is predicted: more than a small model can learn in minutes.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def build_unet(size: Size) -> UNet2DConditionModel:
    """Build the UNet with random weights."""
    down = ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in size.cross_attention]
    up = [
        "CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(size.cross_attention)
    ]
    return UNet2DConditionModel(
        sample_size=128,
        in_channels=size.latents,
        out_channels=size.latents,
        block_out_channels=list(size.channels),
        layers_per_block=size.layers,
        down_block_types=down,
        up_block_types=up,
        norm_num_groups=size.groups,
        # diffusers takes `attention_head_dim` for the number of heads.
        attention_head_dim=list(size.heads),
        # A width per level and no text states: cross-attention becomes self-attention.
        cross_attention_dim=list(size.channels),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=size.embedding,
        class_embeddings_concat=True,
    )


def build_vae(size: Size) -> AutoencoderKL:
    """Build the VAE with random weights."""
    levels = len(size.vae_channels)
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=list(size.vae_channels),
        layers_per_block=size.layers,
        latent_channels=size.latents,
        norm_num_groups=size.groups,
        mid_block_add_attention=size.vae_attention,
        scaling_factor=0.9227,
    ).eval()


def build_hifigan(channels: int = 1024) -> SpeechT5HifiGan:
    """Build AudioLDM's vocoder, a HiFi-GAN (Kong et al., 2020), with random weights."""
    config = SpeechT5HifiGanConfig(
        model_in_dim=64,
        sampling_rate=16_000,
        upsample_initial_channel=channels,
        upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4],
        normalize_before=False,
    )
    return SpeechT5HifiGan(config).eval()
