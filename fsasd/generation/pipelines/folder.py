"""Components of a pipeline of diffusers, from a folder or the hub: complete, or an error."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import nn

from fsasd.generation.diffusion.weight_mismatches import CheckpointError, WeightMismatches
from fsasd.runtime.hub import UNREADABLE, go_offline_without_hub


def load_pipeline(
    source: str, kind: type[DiffusionPipeline], allow: Sequence[str] = ()
) -> DiffusionPipeline:
    """Load a pipeline whose weights all fit, which diffusers does not see to.

    Args:
        source: A folder in the pipeline's layout, or its id on the Hugging Face hub.
        kind: The pipeline's class, or one whose folder it can read.
        allow: Names of weights that may be missing, superfluous or of another shape.

    Raises:
        CheckpointError: It is the folder of another pipeline, a component is missing or damaged,
            weights do not fit (all are listed), or the hub cannot be reached.
    """
    if not Path(source).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise CheckpointError(f"checkpoint {source} does not exist")
    go_offline_without_hub(source)
    mismatches = WeightMismatches()
    try:
        index = kind.load_config(source)
        if (name := index.get("_class_name")) != kind.__name__:
            raise CheckpointError(
                f"{source}: expected the folder of a {kind.__name__}, found that of a {name}: "
                "choose the generator of that model, or generator=pipeline, which trains nothing"
            )
        components = {
            name: _load(source, name, entry, mismatches)
            for name, entry in index.items()
            if not name.startswith("_") and isinstance(entry, list) and entry[0]
        }
        pipeline = kind(**components)
    except UNREADABLE as error:
        raise not_loaded(source, error) from error
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{source}: expected the folder of a {kind.__name__}, found components that do not "
            f"make one ({str(error).partition(chr(10))[0]})"
        ) from error
    mismatches.check(source, allow, kind.__name__)
    return pipeline


def load_module(kind: Any, source: str, name: str, mismatches: WeightMismatches) -> Any:
    """Load a module in float32, and record which of its weights do not fit.

    Args:
        kind: Its class, of diffusers or transformers.
        source: The folder or hub id that has it.
        name: Of the folder in there, and of the component in ``mismatches``.
        mismatches: What is missing, unexpected or of another shape is added to it.
    """
    module, loading = kind.from_pretrained(
        source,
        subfolder=name,
        dtype=torch.float32,
        output_loading_info=True,
        # Without it the libraries stop at the first; the error lists all.
        ignore_mismatched_sizes=True,
    )
    mismatches.add(
        name,
        loading.get("missing_keys", ()),
        loading.get("unexpected_keys", ()),
        {key: (is_, wanted) for key, is_, wanted in loading.get("mismatched_keys", ())},
    )
    return module.eval()


def not_loaded(
    source: str, why: str | BaseException, option: str = "generator.checkpoint"
) -> CheckpointError:
    """Return the error of a folder or hub id that cannot be read, with its first cause."""
    # The last error of a hub that is out of reach says only that a file is missing.
    while isinstance(why, BaseException) and (cause := why.__cause__ or why.__context__):
        why = cause
    return CheckpointError(
        f"{source}: could not be loaded ({why}). Without a way to the hub, copy its folder to "
        f"this machine and give its path as {option}; "
        "HF_HUB_OFFLINE=1 uses what was downloaded before"
    )


def _load(source: str, name: str, entry: list[str], mismatches: WeightMismatches) -> Any:
    try:
        return _component(source, name, _class_of(source, *entry), mismatches)
    except UNREADABLE as error:
        raise not_loaded(f"{source}, component {name}", error) from error


def _component(source: str, name: str, kind: Any, mismatches: WeightMismatches) -> Any:
    if not issubclass(kind, nn.Module):
        component = kind.from_pretrained(source, subfolder=name)
        # Where it does not find its files, transformers 5 makes a tokenizer of special tokens.
        if "Tokenizer" in kind.__name__ and len(component) <= 5:
            raise CheckpointError(f"{Path(source) / name}: expected a tokenizer, found no words")
        return component
    return load_module(kind, source, name, mismatches)


def _class_of(source: str, library: str, name: str) -> Any:
    """Return a component's class: of a pipeline of diffusers, of diffusers or transformers."""
    module = getattr(diffusers.pipelines, library, None)
    if module is None and library in ("diffusers", "transformers"):
        module = importlib.import_module(library)
    if module is None or not hasattr(module, name):
        raise CheckpointError(
            f"{source}: model_index.json: expected classes of diffusers and transformers, found "
            f"{library}.{name}"
        )
    return getattr(module, name)
