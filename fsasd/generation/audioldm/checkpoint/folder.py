"""Loading components from a folder or the hub, and saving them in a folder.

The folder is the diffusers layout (``unet/ vae/ text_encoder/ tokenizer/ vocoder/ scheduler/
model_index.json``), which other tools load, too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import ClapTextModelWithProjection, RobertaTokenizer, SpeechT5HifiGan

from fsasd.generation.audioldm.checkpoint import original
from fsasd.generation.audioldm.checkpoint.components import NANO, CheckpointError, Components, build
from fsasd.generation.audioldm.vocoder import GriffinLim, require_mel
from fsasd.generation.diffusion.weight_mismatches import WeightMismatches
from fsasd.generation.pipelines.folder import (
    forget_origins,
    load_module,
    not_loaded,
    require_folder,
    require_memory,
)
from fsasd.runtime.hub import UNREADABLE, is_hub_id, refusal, require_hub_id, snapshot

# Older transformers saved this buffer; it is the numbers 0, 1, 2, ...
_HARMLESS = ("text_encoder.*position_ids",)

_MODEL = (("config.json",), ("*.safetensors", "*.bin"))
# The files that each component needs: of several names, one.
_FILES = {
    "unet": _MODEL,
    "vae": _MODEL,
    "text_encoder": _MODEL,
    "tokenizer": (("tokenizer.json", "vocab.json"),),
    "vocoder": (("config.json", GriffinLim.CONFIG), ("*.safetensors", "*.bin", GriffinLim.CONFIG)),
    "scheduler": (("scheduler_config.json",),),
}


_WORDS = ("vocab.json", "merges.txt", "tokenizer*.json", "special_tokens_map.json", "tokenizer/*")
"""Patterns of the files of a tokenizer on the hub."""


def load(
    source: str | Path,
    *,
    allow: Sequence[str] = (),
    tokenizer: str = "FacebookAI/roberta-base",
    tokenizer_revision: str | None = None,
) -> Components:
    """Load components.

    Args:
        source: ``nano`` (ships with the package), ``random:<size>``, a folder in the diffusers
            layout, or a file of the original project (``original.load``).
        allow: Names of weights that may be missing, superfluous or of another shape.
        tokenizer: For a file of the original, which holds none: a folder or a hub id.
        tokenizer_revision: Of its repository on the hub; the main branch by default.

    Raises:
        CheckpointError: Files are missing in the folder, weights do not fit (all are listed) or
            exceed the memory.
    """
    source = str(source)
    if source.startswith("random:"):
        return build(source.removeprefix("random:"))
    folder = str(NANO) if source == "nano" else source
    if Path(folder).is_file():
        return original.load(folder, _load_tokenizer(tokenizer, tokenizer_revision), allow)
    require_folder(folder)
    _require_components(Path(folder))
    mismatches = WeightMismatches()
    try:
        require_memory(folder)
        components = Components(
            unet=load_module(UNet2DConditionModel, folder, "unet", mismatches),
            vae=load_module(AutoencoderKL, folder, "vae", mismatches),
            text_encoder=load_module(
                ClapTextModelWithProjection, folder, "text_encoder", mismatches
            ),
            tokenizer=_load_tokenizer(folder),
            vocoder=_load_vocoder(folder, mismatches),
            scheduler=DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
        )
    except UNREADABLE as error:
        raise not_loaded(folder, error) from error
    mismatches.check(folder, [*_HARMLESS, *allow])
    return components


def files(source: str | Path) -> list[Path]:
    """Return the files of a local checkpoint; for random weights and hub ids, none."""
    path = Path(str(NANO)) if str(source) == "nano" else Path(source)
    if path.is_file():
        return [path]
    return sorted(path for path in path.rglob("*") if path.is_file())


def save(
    components: Components,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write components in the diffusers layout, weights as safetensors.

    Args:
        components: What is saved.
        folder: Created if it does not exist.
        dtype: Of the weights.
    """
    folder = Path(folder)
    index: dict[str, Any] = {"_class_name": "AudioLDMPipeline"}
    for field in fields(components):
        component = getattr(components, field.name)
        if isinstance(component, nn.Module):
            # `to` as the models override it warns of a list that is empty here.
            component = nn.Module.to(copy.deepcopy(component), device="cpu", dtype=dtype)
        component.save_pretrained(folder / field.name)
        library = type(component).__module__.split(".")[0]
        index[field.name] = [library, type(component).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    forget_origins(folder)


def _load_tokenizer(source: str, revision: str | None = None) -> RobertaTokenizer:
    require_hub_id("tokenizer", source, revision)
    try:
        folder = snapshot(source, revision, _WORDS) if is_hub_id(source) else Path(source)
        inner = folder / "tokenizer"
        tokenizer = RobertaTokenizer.from_pretrained(inner if inner.is_dir() else folder)
    except OSError as error:
        why = refusal(source, error) or str(error)
        raise CheckpointError(_no_tokenizer(source, why)) from error
    # Where it does not find its files, transformers 5 makes one of the five special tokens.
    if len(tokenizer) <= 5:
        why = "it has no words: no vocab.json, merges.txt, tokenizer.json"
        raise CheckpointError(_no_tokenizer(source, why))
    return tokenizer


def _no_tokenizer(source: str, why: str) -> str:
    return (
        f"tokenizer {source}: could not be loaded ({why}). Without a way to the hub, copy its "
        "folder to this machine and give its path as generator.tokenizer"
    )


def _load_vocoder(folder: str, mismatches: WeightMismatches) -> SpeechT5HifiGan | GriffinLim:
    config = Path(folder) / "vocoder" / GriffinLim.CONFIG
    if config.is_file():
        return GriffinLim.from_pretrained(config.parent).eval()
    vocoder: SpeechT5HifiGan = load_module(SpeechT5HifiGan, folder, "vocoder", mismatches)
    require_mel(vocoder, folder)
    return vocoder


def _require_components(folder: Path) -> None:
    missing = [
        f"{component}/{' or '.join(names)}"
        for component, files in _FILES.items()
        for names in files
        if not any(any((folder / component).glob(name)) for name in names)
    ]
    if missing:
        raise CheckpointError(
            f"{folder}: expected a folder in the diffusers layout, but it has no "
            f"{', '.join(missing)}"
        )
