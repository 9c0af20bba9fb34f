"""Pipelines of the Hugging Face hub: a revision of one is downloaded, and its folder is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.runtime.commits import note_loaded
from fsasd.runtime.hub import go_offline_without_hub

_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"


def is_hub_id(checkpoint: str) -> bool:
    """Return whether a checkpoint is the id of a repository of the hub, and no file or folder.

    >>> is_hub_id("cvssp/audioldm2"), is_hub_id("nano"), is_hub_id("./a/b"), is_hub_id("random:s")
    (True, False, False, False)
    """
    return bool(re.fullmatch(_ID, checkpoint)) and not Path(checkpoint).exists()


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
        folder = Path(DiffusionPipeline.download(checkpoint, **asked))
    # Its errors are those of several libraries, one of which has changed its name.
    except Exception as error:
        name = checkpoint + (f"@{revision}" if revision else "")
        raise CheckpointError(f"{name}: {_reason(checkpoint, variant, error)}") from error
    note_loaded(checkpoint, folder.name)
    return str(folder)


def _reason(checkpoint: str, variant: str | None, error: BaseException) -> str:
    """Say in one line why nothing was downloaded, and what to do."""
    page = f"https://huggingface.co/{checkpoint}"
    causes = list(_causes(error))
    for cause in causes:
        # A kind of RepositoryNotFoundError.
        if isinstance(cause, GatedRepoError):
            return (
                f"its licence has to be accepted first, on {page}; then log in on this machine "
                "(hf auth login, or HF_TOKEN)"
            )
        if isinstance(cause, RevisionNotFoundError):
            return f"the hub has no such revision of it: expected one of {page}/commits"
        if isinstance(cause, RepositoryNotFoundError):
            return (
                "expected a folder, or the id of a repository of the hub; the hub has none of this "
                "name, or it is private (hf auth login, or HF_TOKEN)"
            )
    if variant and type(causes[-1]) is ValueError:
        return f"it has no weights of the variant {variant} on the hub: see {page}/tree/main"
    why = str(causes[-1]).partition("\n")[0]
    return (
        f"could not be loaded ({why}). Without a way to the hub, copy its folder to this machine "
        "and give its path as generator.checkpoint; HF_HUB_OFFLINE=1 uses what was downloaded "
        "before"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
