"""The Hugging Face hub: whether it can be reached, and errors of weights that cannot be read."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError

import huggingface_hub
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError

from fsasd.runtime.commits import note_loaded

log = logging.getLogger(__name__)

ID = r"[\w-][\w.-]*/[\w-][\w.-]*"
"""Pattern of the id of a repository."""

TAG = "fsasd"
"""Of the card of every model of fsasd: the hub finds them by it."""

GENERATOR_FILES = (
    "*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*",
)  # fmt: skip
"""Patterns of the files of a generator: settings, weights and tokenizers; no code."""

LOG_IN = "log in on this machine (hf auth login, or HF_TOKEN)"
"""What to do where the hub wants to know who asks."""

UNREADABLE = (OSError, SafetensorError, UnpicklingError, EOFError, RuntimeError)
"""Errors of libraries for weights that are missing, damaged, or pickles of more than tensors."""

_PATIENCE = 5.0
"""Seconds that the hub has to answer. The look-up of its address has no time limit."""


def go_offline_without_hub(source: str) -> None:
    """Set the hub's libraries to offline mode for this process if the hub does not answer.

    They would try six times for each file of a model. The hub is asked once in a process.

    Args:
        source: What is to be loaded. For a file or a folder the hub is not asked.
    """
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source) and not Path(source).exists():
        _check_once()


def is_hub_id(source: str) -> bool:
    """Return whether a text is the id of a repository of the hub, and no file or folder.

    >>> is_hub_id("cvssp/audioldm2"), is_hub_id("nano"), is_hub_id("./a/b"), is_hub_id("random:s")
    (True, False, False, False)
    """
    return bool(re.fullmatch(ID, source)) and not Path(source).exists()


def require_hub_id(name: str, source: str, revision: str | None) -> None:
    """Raise unless the source of which there is to be a revision is on the hub.

    Args:
        name: Of the model in the message.
        source: A hub id or anything else.
        revision: Of it; ``None`` where none is asked for.

    Raises:
        ValueError: There is a revision of something else.

    >>> require_hub_id("encoder", "./folder", "v1")
    Traceback (most recent call last):
    ...
    ValueError: encoder ./folder: expected a hub id with the revision v1, found a folder or a \
file: leave the revision out
    """
    if revision is not None and not is_hub_id(source):
        raise ValueError(
            f"{name} {source}: expected a hub id with the revision {revision}, found a folder or "
            "a file: leave the revision out"
        )


def snapshot(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the folder of a repository's files, downloaded or found in the hub's cache.

    A cache that holds them is not written. The commit is noted for provenances
    (``runtime.commits``).

    Args:
        repository: Its id.
        revision: A commit, a tag or a branch of it; its main branch by default.
        patterns: Of the files.

    Raises:
        Exception: One of the hub's libraries (``refusal``).
    """
    go_offline_without_hub(repository)
    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    note_loaded(repository, folder.name)
    return folder


@functools.cache
def transformers_folder(repository: str, revision: str | None = None) -> Path:
    """Return the folder of a model of transformers: settings, words and weights, no code.

    The hub is asked once in a process, which so loads one commit of a branch that moves.

    Raises:
        Exception: As ``snapshot``.
    """
    folder = snapshot(repository, revision, ("*.json", "*.txt", "model*.safetensors"))
    if not any(folder.glob("model*.safetensors")):
        folder = snapshot(repository, revision, ("pytorch_model*.bin",))
    return folder


def refusal(repository: str, error: BaseException) -> str | None:
    """Say in one line why the hub refused a repository, and what to do.

    Args:
        repository: Its id.
        error: That a library raised, whatever it was raised from.

    Returns:
        ``None`` where it is for another reason.
    """
    page = f"{constants.ENDPOINT}/{repository}"
    for cause in causes(error):
        # A kind of RepositoryNotFoundError.
        if isinstance(cause, GatedRepoError):
            return f"its licence has to be accepted first, on {page}; then {LOG_IN}"
        if isinstance(cause, RevisionNotFoundError):
            return f"the hub has no such revision of it: expected one of {page}/commits"
        if isinstance(cause, RepositoryNotFoundError):
            return (
                "expected the id of a repository of the hub, which has none of this name, or it is "
                f"private: {LOG_IN}"
            )
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those from which it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@functools.cache
def _check_once() -> None:
    if constants.HF_HUB_OFFLINE or is_reachable():
        return
    constants.HF_HUB_OFFLINE = True
    log.warning(
        "%s does not answer: only files that were downloaded before are used (HF_HUB_OFFLINE=1 "
        "skips the attempt)",
        constants.ENDPOINT,
    )


def is_reachable() -> bool:
    """Return whether the hub answers, in seconds."""
    answered = threading.Event()

    def request() -> None:
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
        except Exception as error:
            log.debug("the hub: %s", error)
        else:
            answered.set()
        finally:
            done.set()

    done = threading.Event()
    # The look-up of its address has no time limit.
    threading.Thread(target=request, daemon=True).start()
    done.wait(_PATIENCE + 1)
    return answered.is_set()
