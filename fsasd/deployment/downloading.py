"""Download a saved detector from the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from fsasd.data.check.likeness import PROFILE
from fsasd.deployment.about import ABOUT, CARD
from fsasd.detection.decision import DECISION
from fsasd.detectors.saved import ARRAYS, SETTINGS
from fsasd.runtime.errors import message
from fsasd.runtime.hub import ID, causes, refusal, snapshot

DETECTOR_FILES = (
    SETTINGS, ARRAYS, DECISION, ABOUT, CARD, PROFILE, "shared/*.safetensors", "LICENSE*",
)  # fmt: skip
"""Patterns of the files of a saved detector."""


class HubError(OSError):
    """The hub refused, or does not answer."""


def download(name: str) -> tuple[Path, str]:
    """Download a saved detector, or find it in the hub's cache.

    Only files by which a detector is saved are downloaded: JSON and safetensors, and no code.

    Args:
        name: ``owner/name``, or ``owner/name@revision`` with a commit, a tag or a branch.

    Returns:
        The folder, and the repository's id.

    Raises:
        ValueError: The name is no id of a repository.
        HubError: There is no such repository or revision, or the hub does not answer.
    """
    match = re.fullmatch(rf"({ID})(?:@(\S+))?", name)
    if match is None:
        raise ValueError(f"expected hub:owner/name or hub:owner/name@revision, found hub:{name}")
    repository, revision = match.groups()
    try:
        folder = snapshot(repository, revision, DETECTOR_FILES)
    except Exception as error:
        raise HubError(f"hub:{name}: not downloaded: {reason(repository, error)}") from error
    return folder, repository


def reason(repository: str, error: BaseException) -> str:
    """Say in one line what the hub, or the library that asks it, refused."""
    *_, root = causes(error)
    messages = dict.fromkeys(message(one) for one in (error, root))
    return refusal(repository, error) or " ".join(" ".join(messages).split())
