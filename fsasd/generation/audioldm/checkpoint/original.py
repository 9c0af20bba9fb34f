"""Components from a file of the original project (github.com/haoheliu/AudioLDM).

One ``.ckpt`` or ``.pth`` holds UNet, VAE, CLAP and vocoder under the names of that project's
modules. For each weight of ours the name there is worked out, so that what is missing, left over or
mis-shaped can be listed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import ClapTextConfig, ClapTextModelWithProjection, RobertaTokenizer

from fsasd.generation.audioldm.checkpoint.components import (
    CheckpointError,
    Components,
    Size,
    build_hifigan,
    build_scheduler,
    build_unet,
    build_vae,
)
from fsasd.generation.diffusion.weight_mismatches import WeightMismatches

log = logging.getLogger(__name__)

UNET = "model.diffusion_model."
VAE = "first_stage_model."
VOCODER = "first_stage_model.vocoder."
# AudioLDM's own files, and those of its later trainer.
CLAP = ("cond_stage_model.model.", "cond_stage_models.0.model.")

IGNORED = (
    # The noise schedule, which `_check_schedule` looks at; losses and discriminators of the VAE.
    *("betas", "alphas_*", "sqrt_*", "log_one_*", "posterior_*", "lvlb_weights", "logvar"),
    *("scale_factor", "model_ema.*", "first_stage_model.loss.*", "cond_ids"),
    # Of CLAP only the text branch is needed; the trainer keeps a second one to rank candidates.
    *("clap.*", "cond_stage_model*.audio_*", "cond_stage_model*.text_transform.*"),
    *("cond_stage_model*.logit_scale*", "cond_stage_model*.mel_transform.*", "*.position_ids"),
)
"""What a file of the original holds beside the weights that are wanted."""

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "film_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_VAE_MIDDLE = {"resnets.0": "block_1", "attentions.0": "attn_1", "resnets.1": "block_2"}
_CLAP = {
    "text_model": "text_branch",
    "text_projection.linear1": "text_projection.0",
    "text_projection.linear2": "text_projection.2",
}


def load(path: str | Path, tokenizer: RobertaTokenizer, allow: Sequence[str] = ()) -> Components:
    """Load components from a file of the original project.

    The UNet's weights are the moving average (``model_ema``) where the file holds one.

    Args:
        path: A ``.ckpt``, ``.pth`` or ``.safetensors`` file.
        tokenizer: CLAP's, which the file does not hold.
        allow: Names of weights that may be missing, superfluous or of another shape.

    Raises:
        CheckpointError: The file holds no AudioLDM, or not all of it: every weight is listed.
    """
    state = read(path)
    size = find_size(state, str(path))
    words = len(state[clap_prefix(state) + "text_branch.embeddings.word_embeddings.weight"])
    if len(tokenizer) > words:
        raise CheckpointError(
            f"{path}: its text encoder knows {words} words, the tokenizer {len(tokenizer)}: it is "
            "another model's. Give CLAP's (FacebookAI/roberta-base) as generator.tokenizer"
        )
    components = Components(
        unet=build_unet(size),
        vae=build_vae(size),
        text_encoder=_build_text_encoder(state),
        tokenizer=tokenizer,
        vocoder=build_hifigan(state[VOCODER + "conv_pre.weight"].shape[0]).eval(),
        scheduler=build_scheduler(),
    )
    _check_schedule(state, components, str(path))
    state = with_average(state)
    mismatches = WeightMismatches()
    used: set[str] = set()
    for component, names in original_names(components, clap_prefix(state)).items():
        module = getattr(components, component)
        wanted = module.state_dict()
        weights = {
            key: _same_form(state[name], wanted[key])
            for key, name in names.items()
            if name in state
        }
        used.update(names.values())
        mismatches.compare(component, weights, {key: wanted[key] for key in names})
        fitting = {key: value for key, value in weights.items() if value.shape == wanted[key].shape}
        module.load_state_dict(fitting, strict=False)
    rest = (key for key in state.keys() - used if not any(fnmatchcase(key, i) for i in IGNORED))
    mismatches.add("original", unexpected=rest)
    mismatches.check(str(path), allow)
    components.vae.register_to_config(scaling_factor=float(state["scale_factor"]))
    components.vae.eval()
    return components


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the weights of a file, none of its code."""
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: expected safetensors ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # What a damaged pickle raises may be anything.
        stranger = re.search(r"GLOBAL (\S+)", str(error))
        content = f"a {stranger[1]}" if stranger else str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: expected a file of tensors alone, found {content}. If you trust where it is "
            "from, keep its weights: torch.save({'state_dict': torch.load(path, "
            "map_location='cpu', weights_only=False)['state_dict']}, new_path)"
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected weights by name, found {type(content).__name__}")
    return dict(content)


def with_average(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put the UNet's moving average, if there is one, in the place of its weights.

    >>> state = {"model.diffusion_model.out.0.bias": 1, "model_ema.diffusion_modelout0bias": 2}
    >>> with_average(state)["model.diffusion_model.out.0.bias"]
    2
    """
    # A buffer's name cannot hold dots, so the original leaves them out.
    average = {
        key: "model_ema." + key.removeprefix("model.").replace(".", "")
        for key in state
        if key.startswith(UNET)
    }
    kept = {key: state[name] for key, name in average.items() if name in state}
    if kept:
        log.info("%d of %d weights of the UNet are its moving average", len(kept), len(average))
    return {**state, **kept}


def original_names(components: Components, clap: str = CLAP[0]) -> dict[str, dict[str, str]]:
    """Return, for each part, the original's name of each of our weights.

    Args:
        components: Of any size.
        clap: Prefix of CLAP's weights.
    """
    layers = components.unet.config.layers_per_block
    crossed = ["CrossAttn" in kind for kind in components.unet.config.up_block_types]
    levels = len(components.vae.config.block_out_channels)
    text = (k for k in components.text_encoder.state_dict() if not k.endswith("_ids"))
    vocoder = (k for k in components.vocoder.state_dict() if k not in ("mean", "scale"))
    return {
        "unet": {
            key: UNET + unet_name(key, layers, crossed) for key in components.unet.state_dict()
        },
        "vae": {key: VAE + vae_name(key, levels) for key in components.vae.state_dict()},
        "text_encoder": {key: clap + _renamed(key, _CLAP) for key in text},
        "vocoder": {key: VOCODER + _renamed(key, {"upsampler": "ups"}) for key in vocoder},
    }


def unet_name(key: str, layers: int, crossed: Sequence[bool]) -> str:
    """Return the original's name of a weight of the UNet.

    Args:
        key: Its name in diffusers.
        layers: Residual blocks per level.
        crossed: For each up block, whether it has attention.

    >>> unet_name("down_blocks.1.attentions.0.proj_in.weight", 2, [True, True, True, False])
    'input_blocks.4.1.proj_in.weight'
    >>> unet_name("up_blocks.0.upsamplers.0.conv.bias", 2, [True, True, True, False])
    'output_blocks.2.2.conv.bias'
    """
    if middle := re.fullmatch(r"mid_block\.(\w+\.\d)\.(.*)", key):
        inner = _renamed(middle[2], _RESNET if middle[1].startswith("resnets") else {})
        return f"middle_block.{_UNET_MIDDLE[middle[1]]}.{inner}"
    block = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key)
    if block is None:
        return _renamed(key, _UNET_OUTSIDE)
    way, level, kind, layer, inner = block[1], int(block[2]), block[3], int(block[4]), block[5]
    # The original counts residual blocks through all levels; down, each level's sampler counts as
    # one more, and the input convolution comes first. Up, the sampler belongs to the last block.
    first = level * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.{inner.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if crossed[level] else 1}.{inner}"
    number = (
        f"input_blocks.{first + layer + 1}" if way == "down" else f"output_blocks.{first + layer}"
    )
    return f"{number}.0.{_renamed(inner, _RESNET)}" if kind == "resnets" else f"{number}.1.{inner}"


def vae_name(key: str, levels: int) -> str:
    """Return the original's name of a weight of the VAE.

    Args:
        key: Its name in diffusers.
        levels: Resolutions of the VAE; the original counts the decoder's from the finest.

    >>> vae_name("decoder.up_blocks.0.resnets.1.conv_shortcut.weight", 3)
    'decoder.up.2.block.1.nin_shortcut.weight'
    >>> vae_name("encoder.mid_block.attentions.0.to_q.weight", 3)
    'encoder.mid.attn_1.q.weight'
    """
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if middle := re.fullmatch(r"(\w+)\.mid_block\.(\w+\.\d)\.(.*)", key):
        inner = _renamed(middle[3], _VAE_ATTENTION if middle[2] == "attentions.0" else {})
        return f"{middle[1]}.mid.{_VAE_MIDDLE[middle[2]]}.{inner}"
    block = re.fullmatch(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key)
    if block is None:
        return key
    level = int(block[2]) if block[1] == "encoder.down" else levels - 1 - int(block[2])
    if block[3] == "resnets":
        return f"{block[1]}.{level}.block.{block[4]}.{block[5]}"
    return f"{block[1]}.{level}.{block[3].removesuffix('rs')}.{block[5]}"


def find_size(state: Mapping[str, torch.Tensor], source: str = "checkpoint") -> Size:
    """Tell the sizes of a model from its weights' shapes.

    Heads do not show in them: the original's have 32 channels, or 64 where the first level has 256.

    Raises:
        CheckpointError: A weight without which nothing can be told is not there.
    """
    essential = {
        *(UNET + name for name in ("input_blocks.0.0.weight", "film_emb.weight")),
        *(VAE + name for name in ("encoder.conv_in.weight", "quant_conv.weight")),
        VOCODER + "conv_pre.weight",
        "scale_factor",
    }
    if absent := sorted(essential - state.keys()):
        raise CheckpointError(
            f"{source}: not a checkpoint of the original AudioLDM: it lacks {', '.join(absent)}"
        )
    samplers = sorted(_numbers(state, UNET + r"input_blocks\.(\d+)\.0\.op\.weight"))
    layers = samplers[0] - 1
    starts = [1, *(number + 1 for number in samplers)]
    channels = [
        state[f"{UNET}input_blocks.{start}.0.out_layers.3.weight"].shape[0] for start in starts
    ]
    width = 64 if channels[0] == 256 else 32
    first = state[UNET + "input_blocks.0.0.weight"]
    vae_levels = _numbers(state, VAE + r"encoder\.down\.(\d+)\.block\.0\.conv1\.weight")
    return Size(
        channels=channels,
        heads=[count // width for count in channels],
        cross_attention=[f"{UNET}input_blocks.{s}.1.norm.weight" in state for s in starts],
        vae_channels=[
            state[f"{VAE}encoder.down.{level}.block.0.conv1.weight"].shape[0]
            for level in sorted(vae_levels)
        ],
        layers=layers,
        latents=first.shape[1],
        embedding=state[UNET + "film_emb.weight"].shape[1],
        vae_attention=VAE + "encoder.mid.attn_1.q.weight" in state,
    )


def clap_prefix(state: Mapping[str, torch.Tensor]) -> str:
    """Return the prefix of CLAP's weights in a file."""
    prefixes = [p for p in CLAP if f"{p}text_branch.embeddings.word_embeddings.weight" in state]
    if not prefixes:
        raise CheckpointError(
            f"checkpoint has no CLAP text branch ({' or '.join(CLAP)}text_branch)"
        )
    return prefixes[0]


def _build_text_encoder(state: Mapping[str, torch.Tensor]) -> ClapTextModelWithProjection:
    branch = clap_prefix(state) + "text_branch."
    words, hidden = state[branch + "embeddings.word_embeddings.weight"].shape
    inner = state[branch + "encoder.layer.0.intermediate.dense.weight"].shape[0]
    config = ClapTextConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=len(
            _numbers(state, re.escape(branch) + r"encoder\.layer\.(\d+)\.output\.dense\.weight")
        ),
        # RoBERTa's heads have 64 channels at every size.
        num_attention_heads=hidden // 64,
        intermediate_size=inner,
        max_position_embeddings=state[branch + "embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-5,  # roberta-base has it, CLAP in transformers 1e-12
        projection_dim=state[clap_prefix(state) + "text_projection.2.weight"].shape[0],
    )
    return ClapTextModelWithProjection(config).eval()


def _check_schedule(state: Mapping[str, torch.Tensor], components: Components, source: str) -> None:
    alphas, expected = state.get("alphas_cumprod"), components.scheduler.alphas_cumprod
    if alphas is not None and not (
        alphas.shape == expected.shape and torch.allclose(alphas.float(), expected, atol=1e-5)
    ):
        raise CheckpointError(f"{source}: was trained with another noise schedule than AudioLDM's")


def _same_form(weight: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    # The original's attention in the VAE is made of 1x1 convolutions, diffusers' of matrices.
    if weight.ndim == 4 and wanted.ndim == 2 and weight.shape[2:] == (1, 1):
        return weight[:, :, 0, 0]
    return weight


def _renamed(key: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if key == ours or key.startswith(f"{ours}."):
            return theirs + key.removeprefix(ours)
    return key


def _numbers(state: Mapping[str, nn.Parameter | torch.Tensor], pattern: str) -> set[int]:
    return {int(match[1]) for key in state if (match := re.fullmatch(pattern, key))}
