"""AudioLDM's components: random, from a folder or the hub, and back into a folder.

The folder is the diffusers layout (``unet/ vae/ text_encoder/ tokenizer/ vocoder/ scheduler/
model_index.json``), so that everyone's tools load what is saved here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from fsasd.generation.vocoder import GriffinLim

NANO = resources.files("fsasd.generation") / "weights" / "nano"
"""The pre-trained nano model that ships with the package (``fsasd experiment=pretrain_nano``)."""


class CheckpointError(ValueError):
    """A checkpoint is not what was asked for; the message lists what is missing."""


@dataclass
class Components:
    """The parts of an AudioLDM; the UNet is what fine-tuning changes."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: ClapTextModelWithProjection
    tokenizer: RobertaTokenizer
    vocoder: SpeechT5HifiGan | GriffinLim
    scheduler: DDIMScheduler

    def frozen(self) -> tuple[nn.Module, ...]:
        """Return the modules that are only ever used, never trained."""
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
        tokenizer=_load_tokenizer(Path(str(NANO)) / "tokenizer"),
        vocoder=GriffinLim() if size == "nano" else _build_hifigan(),
        scheduler=build_scheduler("v_prediction" if size == "nano" else "epsilon"),
    )


def load(source: str | Path) -> Components:
    """Load components.

    Args:
        source: ``nano`` (ships with the package), ``random:<size>``, a folder in the diffusers
            layout, or the id of one on the Hugging Face hub.

    Raises:
        CheckpointError: Parts of the folder are missing, weights are missing or superfluous, or
            the hub cannot be reached.
    """
    source = str(source)
    if source.startswith("random:"):
        return build(source.removeprefix("random:"))
    folder = str(NANO) if source == "nano" else source
    if Path(folder).is_dir():
        _require_parts(Path(folder))
    elif folder.count("/") != 1 or folder.startswith((".", "/")):
        raise CheckpointError(f"checkpoint folder {folder} does not exist")
    try:
        return Components(
            unet=_load_module(UNet2DConditionModel, folder, "unet"),
            vae=_load_module(AutoencoderKL, folder, "vae"),
            text_encoder=_load_module(ClapTextModelWithProjection, folder, "text_encoder"),
            tokenizer=_load_tokenizer(folder),
            vocoder=_load_vocoder(folder),
            scheduler=DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
        )
    except OSError as error:
        raise CheckpointError(
            f"{folder}: could not be loaded ({error}). Without a way to the hub, copy the model's "
            "folder to this machine and give its path as generator.checkpoint"
        ) from error


def files(source: str | Path) -> list[Path]:
    """Return the files that a checkpoint is loaded from; of random weights and the hub's, none."""
    folder = Path(str(NANO)) if str(source) == "nano" else Path(source)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def save(components: Components, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write components in the diffusers layout, weights as safetensors."""
    folder = Path(folder)
    index: dict[str, Any] = {"_class_name": "AudioLDMPipeline"}
    for field in fields(components):
        part = getattr(components, field.name)
        if isinstance(part, nn.Module):
            # The models' own `to` warns of a list that is empty here.
            part = nn.Module.to(copy.deepcopy(part), device="cpu", dtype=dtype)
        part.save_pretrained(folder / field.name)
        _forget_origin(folder / field.name / "config.json")
        library = type(part).__module__.split(".")[0]
        index[field.name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _forget_origin(config: Path) -> None:
    # Where a part was loaded from is a path of this machine, and nobody else's business.
    if config.is_file():
        known = json.loads(config.read_text())
        known.pop("_name_or_path", None)
        config.write_text(json.dumps(known, indent=2) + "\n")


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


def _build_hifigan() -> SpeechT5HifiGan:
    config = SpeechT5HifiGanConfig(
        model_in_dim=64,
        sampling_rate=16_000,
        upsample_initial_channel=1024,
        upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4],
        normalize_before=False,
    )
    return SpeechT5HifiGan(config).eval()


def _load_module(kind: Any, folder: str, part: str) -> Any:
    module, found = kind.from_pretrained(
        folder, subfolder=part, dtype=torch.float32, output_loading_info=True
    )
    problems = {
        what: keys
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        # Older transformers saved this buffer; it is the numbers 0, 1, 2, ...
        if (keys := [k for k in found.get(what, ()) if not str(k).endswith("position_ids")])
    }
    if problems:
        listed = "; ".join(f"{what}: {keys}" for what, keys in problems.items())
        raise CheckpointError(f"{folder}/{part} does not fit {kind.__name__}: {listed}")
    return module.eval()


def _load_tokenizer(folder: str | Path) -> RobertaTokenizer:
    if (Path(folder) / "tokenizer").is_dir():
        folder = Path(folder) / "tokenizer"
    if Path(folder).is_dir():
        return RobertaTokenizer.from_pretrained(folder)
    return RobertaTokenizer.from_pretrained(folder, subfolder="tokenizer")


def _load_vocoder(folder: str) -> SpeechT5HifiGan | GriffinLim:
    config = Path(folder) / "vocoder" / GriffinLim.CONFIG
    if config.is_file():
        return GriffinLim.from_pretrained(config.parent).eval()
    return _load_module(SpeechT5HifiGan, folder, "vocoder")


def _require_parts(folder: Path) -> None:
    missing = [f.name for f in fields(Components) if not (folder / f.name).is_dir()]
    if missing:
        raise CheckpointError(f"{folder}: no folder {', '.join(missing)} (diffusers layout)")
