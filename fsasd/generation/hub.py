"""Pipelines of the Hugging Face hub: a revision of one is downloaded, and its folder is used."""

from __future__ import annotations

from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.runtime.commits import note_loaded
from fsasd.runtime.hub import (
    GENERATOR_FILES,
    causes,
    go_offline_without_hub,
    is_hub_id,
    refusal,
    snapshot,
)
from fsasd.settings.files import read_json


def local(checkpoint: str, revision: str | None = None, variant: str | None = None) -> str:
    """Return a checkpoint of this machine: itself, or the folder that a hub id is downloaded to.

    A folder that the hub's cache holds whole is not written, so that the cache may be read-only,
    and with a revision that is a commit the hub need not be reached. The commit is noted in the
    provenance of artifacts (``runtime.commits``).

    Args:
        checkpoint: A hub id, or anything else, which is returned.
        revision: A commit, a tag or a branch of the repository; its main branch by default.
        variant: Of the weights, such as ``fp16``: files called ``*.fp16.safetensors``, half as
            large to download.

    Raises:
        CheckpointError: There is no such repository, revision or variant, its licence has to be
            accepted first, or the hub cannot be reached; or a revision of a folder is asked for.
    """
    asked = {"revision": revision, "variant": variant}
    if not is_hub_id(checkpoint):
        for name, value in asked.items():
            if value is not None:
                raise CheckpointError(
                    f"generator.{name}={value}: expected a hub id as generator.checkpoint, found "
                    f"{checkpoint}: leave it out"
                )
        return checkpoint
    go_offline_without_hub(checkpoint)
    try:
        folder = _download(checkpoint, revision, variant)
    # Its errors are those of several libraries, one of which has changed its name.
    except Exception as error:
        name = checkpoint + (f"@{revision}" if revision else "")
        raise CheckpointError(f"{name}: {_reason(checkpoint, variant, error)}") from error
    return str(folder)


def _download(checkpoint: str, revision: str | None, variant: str | None) -> Path:
    if _loads_with_diffusers(checkpoint, revision):
        known = DiffusionPipeline.download(checkpoint, revision=revision, variant=variant)
        note_loaded(checkpoint, Path(known).name)
        return Path(known)
    if variant:
        raise ValueError(variant)
    return snapshot(checkpoint, revision, GENERATOR_FILES)


def _loads_with_diffusers(checkpoint: str, revision: str | None) -> bool:
    """Say whether diffusers knows all components: of others it looks for code in the repository."""
    try:
        index = hf_hub_download(checkpoint, "model_index.json", revision=revision)
    # A family of one's own may have none.
    except EntryNotFoundError:
        return False
    components = read_json(Path(index)).values()
    return not any(isinstance(named, list) and named[0] == "fsasd" for named in components)


def _reason(checkpoint: str, variant: str | None, error: BaseException) -> str:
    """Say in one line why nothing was downloaded, and what to do."""
    if refused := refusal(checkpoint, error):
        return refused
    *_, last = causes(error)
    if variant and type(last) is ValueError:
        page = f"{constants.ENDPOINT}/{checkpoint}"
        return f"it has no weights of the variant {variant} on the hub: see {page}/tree/main"
    why = str(last).partition("\n")[0]
    return (
        f"could not be loaded ({why}). Without a way to the hub, copy its folder to this machine "
        "and give its path as generator.checkpoint; HF_HUB_OFFLINE=1 uses what was downloaded "
        "before"
    )
