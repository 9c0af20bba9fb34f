"""Components of a pipeline of diffusers, from its folder: complete, or an error."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import psutil
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from torch import nn

from fsasd.generation.diffusion.weight_mismatches import CheckpointError, WeightMismatches
from fsasd.runtime.hub import UNREADABLE
from fsasd.settings.files import read_json

_INDEX, _CONFIG = "model_index.json", "scheduler_config.json"


def load_pipeline(
    source: str,
    kind: type[DiffusionPipeline],
    allow: Sequence[str] = (),
    instead: Mapping[str, type] | None = None,
) -> DiffusionPipeline:
    """Load a pipeline whose weights all fit, which diffusers does not see to.

    Args:
        source: A folder in the pipeline's layout.
        kind: The pipeline's class, or one whose folder it can read.
        allow: Names of weights that may be missing, superfluous or of another shape.
        instead: Classes that take the place of others, by the names of those.

    Raises:
        CheckpointError: There is no such folder, it is that of another pipeline, a component is
            missing or damaged, weights do not fit (all are listed), or exceed the memory.
    """
    require_folder(source)
    mismatches = WeightMismatches()
    try:
        require_memory(source)
        index = kind.load_config(source)
        if (name := index.get("_class_name")) != kind.__name__:
            raise CheckpointError(
                f"{source}: expected the folder of a {kind.__name__}, found that of a {name}: "
                "choose the generator of that model, or generator=pipeline, which trains nothing"
            )
        components = {
            name: _load(source, name, entry, mismatches, instead or {})
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
        source: The folder that has it.
        name: Of the folder in there, and of the component in ``mismatches``.
        mismatches: What is missing, unexpected or of another shape is added to it.
    """
    diffusers.utils.logging.disable_progress_bar()
    module, loading = kind.from_pretrained(
        source,
        subfolder=name,
        variant=variant_of(Path(source) / name),
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


def not_loaded(source: str, error: BaseException) -> CheckpointError:
    """Return the error of a folder that cannot be read, with its first cause."""
    # The last one may say only that a file is missing.
    while cause := error.__cause__ or error.__context__:
        error = cause
    return CheckpointError(f"{source}: could not be loaded ({str(error).strip()})")


def forget_origins(folder: Path) -> None:
    """Take out of a saved pipeline's configurations where its components were loaded from.

    Those are paths of this machine, which others need not know.
    """
    for config in folder.glob("*/config.json"):
        known = read_json(config)
        if known.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Original:
    """What a pipeline's folder says of a scheduler for which another class was loaded.

    Attributes:
        entry: Of the component in ``model_index.json``.
        config: Text of its configuration.
    """

    entry: list[str]
    config: str


def originals(source: str, instead: Mapping[str, type]) -> dict[str, Original]:
    """Return a folder's schedulers for which ``load_pipeline`` loads other classes, by name."""
    index = read_json(Path(source) / _INDEX)
    return {
        name: Original(entry, (Path(source) / name / _CONFIG).read_text(encoding="utf-8"))
        for name, entry in index.items()
        if isinstance(entry, list) and entry[1] in instead
    }


def put_back(folder: Path, known: Mapping[str, Original]) -> None:
    """Write schedulers into a saved pipeline as they were in the folder that it came from."""
    if not known:
        return
    index = read_json(folder / _INDEX)
    for name, one in known.items():
        index[name] = one.entry
        (folder / name / _CONFIG).write_text(one.config, encoding="utf-8")
    (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def require_folder(source: str) -> None:
    """Raise a ``CheckpointError`` if there is no such folder."""
    if not Path(source).is_dir():
        raise CheckpointError(f"checkpoint {source} does not exist")


def require_memory(source: str) -> None:
    """Raise if a pipeline's weights, in single precision, exceed the memory that is free.

    Args:
        source: The pipeline's folder.

    Raises:
        CheckpointError: They do.
    """
    needed = 4 * count_parameters(source)
    free = psutil.virtual_memory().available
    if needed > free:
        raise CheckpointError(
            f"{source}: its weights take {needed / 1e9:.3g} GB of memory in single precision, and "
            f"{free / 1e9:.3g} GB are free: choose a smaller model, or another machine"
        )


def count_parameters(folder: str | Path) -> int:
    """Return the number of parameters in a folder's safetensors files, of one variant each."""
    count = 0
    for path in Path(folder).rglob("*.safetensors"):
        if _variant(path.name) == variant_of(path.parent):
            with safe_open(path, "numpy") as file:
                shapes = (file.get_slice(name).get_shape() for name in file.keys())  # noqa: SIM118
                count += sum(math.prod(shape) for shape in shapes)
    return count


def variant_of(component: str | Path) -> str | None:
    """Return the variant of a component's weights, such as ``fp16``; ``None`` for plain ones.

    Args:
        component: Its folder. Where it holds several variants, the plain one counts.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "model.fp16-00001-of-00002.safetensors").touch()
    >>> variant_of(folder)
    'fp16'
    >>> (folder / "model-00001-of-00002.safetensors").touch()
    >>> variant_of(folder)
    """
    names = [path.name for path in Path(component).glob("*.*")]
    variants = {_variant(name) for name in names if name.endswith((".safetensors", ".bin"))}
    named = sorted(variant for variant in variants if variant)
    return None if None in variants or not named else named[0]


def _variant(name: str) -> str | None:
    middle = name.split(".")[1:-1]
    return middle[0].partition("-")[0] if middle else None


def _load(
    source: str,
    name: str,
    entry: list[str],
    mismatches: WeightMismatches,
    instead: Mapping[str, type],
) -> Any:
    try:
        kind = instead.get(entry[1]) or _class_of(source, *entry)
        return _component(source, name, kind, mismatches)
    # The library's own error where a class needs a package that is not installed.
    except (*UNREADABLE, ImportError) as error:
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
