"""Components from a folder or the hub, and back into a folder.

The folder is the diffusers layout (``unet/ vae/ text_encoder/ tokenizer/ vocoder/ scheduler/
model_index.json``), so that everyone's tools load what is saved here.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from torch import nn
from transformers import ClapTextModelWithProjection, RobertaTokenizer, SpeechT5HifiGan

from fsasd.generation.checkpoint import original
from fsasd.generation.checkpoint.components import NANO, CheckpointError, Components, build
from fsasd.generation.checkpoint.misfits import Misfits
from fsasd.generation.vocoder import GriffinLim
from fsasd.runtime.hub import UNREADABLE, go_offline_without_hub

# Older transformers saved this buffer; it is the numbers 0, 1, 2, ...
_HARMLESS = ("text_encoder.*position_ids",)

_MODEL = (("config.json",), ("*.safetensors", "*.bin"))
# Of each part the files that it needs: of several names, one.
_FILES = {
    "unet": _MODEL,
    "vae": _MODEL,
    "text_encoder": _MODEL,
    "tokenizer": (("tokenizer.json", "vocab.json"),),
    "vocoder": (("config.json", GriffinLim.CONFIG), ("*.safetensors", "*.bin", GriffinLim.CONFIG)),
    "scheduler": (("scheduler_config.json",),),
}


def load(
    source: str | Path, *, allow: Sequence[str] = (), tokenizer: str = "roberta-base"
) -> Components:
    """Load components.

    Args:
        source: ``nano`` (ships with the package), ``random:<size>``, a folder in the diffusers
            layout, the id of one on the Hugging Face hub, or a file of the original project
            (``original.load``).
        allow: Names of weights that may be missing, superfluous or of another shape.
        tokenizer: For a file of the original, which holds none: a folder or a hub id.

    Raises:
        CheckpointError: Parts of the folder are missing, weights do not fit (all are listed), or
            the hub cannot be reached.
    """
    source = str(source)
    if source.startswith("random:"):
        return build(source.removeprefix("random:"))
    folder = str(NANO) if source == "nano" else source
    if Path(folder).is_file():
        return original.load(folder, _load_tokenizer(tokenizer, "generator.tokenizer"), allow)
    if Path(folder).is_dir():
        _require_parts(Path(folder))
    elif folder.count("/") != 1 or folder.startswith((".", "/")):
        raise CheckpointError(f"checkpoint {folder} does not exist")
    go_offline_without_hub(folder)
    misfits = Misfits()
    try:
        components = Components(
            unet=_load_module(UNet2DConditionModel, folder, "unet", misfits),
            vae=_load_module(AutoencoderKL, folder, "vae", misfits),
            text_encoder=_load_module(ClapTextModelWithProjection, folder, "text_encoder", misfits),
            tokenizer=_load_tokenizer(folder),
            vocoder=_load_vocoder(folder, misfits),
            scheduler=DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
        )
    except UNREADABLE as error:
        raise _not_loaded(folder, error) from error
    misfits.check(folder, [*_HARMLESS, *allow])
    return components


def files(source: str | Path) -> list[Path]:
    """Return the files that a checkpoint is loaded from; of random weights and the hub's, none."""
    path = Path(str(NANO)) if str(source) == "nano" else Path(source)
    if path.is_file():
        return [path]
    return sorted(path for path in path.rglob("*") if path.is_file())


def count_parameters(folder: str | Path) -> int:
    """Return how many numbers the weights in a folder are; 0 where there are none."""
    count = 0
    for path in Path(folder).rglob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            count += sum(math.prod(file.get_slice(k).get_shape()) for k in file.keys())  # noqa: SIM118
    return count


def save(
    components: Components,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    card: str | None = None,
) -> None:
    """Write components in the diffusers layout, weights as safetensors.

    Args:
        components: The parts.
        folder: Made if it is not there.
        dtype: Of the weights.
        card: What to say of the model, as its ``README.md`` (see ``card.model_card``).
    """
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
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")


def _forget_origin(config: Path) -> None:
    # Where a part was loaded from is a path of this machine, and nobody else's business.
    if config.is_file():
        known = json.loads(config.read_text())
        known.pop("_name_or_path", None)
        config.write_text(json.dumps(known, indent=2) + "\n")


def _load_module(kind: Any, folder: str, part: str, misfits: Misfits) -> Any:
    module, found = kind.from_pretrained(
        folder,
        subfolder=part,
        dtype=torch.float32,
        output_loading_info=True,
        # Without it the libraries stop at the first; all of them are to be told.
        ignore_mismatched_sizes=True,
    )
    misfits.add(
        part,
        found.get("missing_keys", ()),
        found.get("unexpected_keys", ()),
        {key: (is_, wanted) for key, is_, wanted in found.get("mismatched_keys", ())},
    )
    return module.eval()


def _load_tokenizer(source: str | Path, option: str = "generator.checkpoint") -> RobertaTokenizer:
    folder = Path(source)
    if (folder / "tokenizer").is_dir():
        source = folder / "tokenizer"
    # RoBERTa's own folder on the hub holds nothing but the model and its tokenizer.
    inner = {} if Path(source).is_dir() or "/" not in str(source) else {"subfolder": "tokenizer"}
    go_offline_without_hub(str(source))
    try:
        tokenizer = RobertaTokenizer.from_pretrained(source, **inner)
    except OSError as error:
        raise _not_loaded(f"tokenizer {source}", error, option) from error
    # Where it does not find its files, transformers 5 makes one of the five special tokens.
    if len(tokenizer) <= 5:
        raise _not_loaded(
            f"tokenizer {source}",
            "it has no words: no vocab.json, merges.txt, tokenizer.json",
            option,
        )
    return tokenizer


def _load_vocoder(folder: str, misfits: Misfits) -> SpeechT5HifiGan | GriffinLim:
    config = Path(folder) / "vocoder" / GriffinLim.CONFIG
    if config.is_file():
        return GriffinLim.from_pretrained(config.parent).eval()
    return _load_module(SpeechT5HifiGan, folder, "vocoder", misfits)


def _not_loaded(
    source: str, why: str | BaseException, option: str = "generator.checkpoint"
) -> CheckpointError:
    # Of a hub that is out of reach the libraries say, last of all, that it lacks a file.
    while isinstance(why, BaseException) and (cause := why.__cause__ or why.__context__):
        why = cause
    return CheckpointError(
        f"{source}: could not be loaded ({why}). Without a way to the hub, copy its folder to "
        f"this machine and give its path as {option}; of what was downloaded before, "
        "HF_HUB_OFFLINE=1 asks nobody"
    )


def _require_parts(folder: Path) -> None:
    missing = [
        f"{part}/{' or '.join(names)}"
        for part, files in _FILES.items()
        for names in files
        if not any(any((folder / part).glob(name)) for name in names)
    ]
    if missing:
        raise CheckpointError(
            f"{folder}: expected a folder in the diffusers layout, but it has no "
            f"{', '.join(missing)}"
        )
