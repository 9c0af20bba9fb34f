"""Upload a folder to the Hugging Face hub."""

from __future__ import annotations

import re

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from fsasd.deployment.downloading import HubError, reason
from fsasd.deployment.hub_folder import HubFolder
from fsasd.runtime.hub import ID, LOG_IN, is_reachable

_REPLACED = ("*.json", "*.safetensors")
"""Files of the repository that are deleted where the model has none of their name."""


def require_repository(repository: str) -> None:
    """Refuse what is no id of a repository.

    Raises:
        ValueError: Says how ids are written.

    >>> require_repository("owner/name")
    >>> require_repository("name")
    Traceback (most recent call last):
    ...
    ValueError: expected owner/name as the id of a repository of the hub, found 'name'
    """
    if not re.fullmatch(ID, repository):
        raise ValueError(
            f"expected owner/name as the id of a repository of the hub, found {repository!r}"
        )


def upload(
    folder: HubFolder,
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    revision: str | None = None,
    create: bool = True,
) -> str:
    """Upload a folder as one commit, which replaces the model that the repository holds.

    Args:
        folder: What ``hub_folder.prepare`` returned.
        repository: Its id, ``owner/name``.
        private: Whether only those whom its owner lets see it.
        message: Of the commit.
        revision: A branch, which is created if there is none; the main one by default.
        create: Whether to create a repository that there is not.

    Returns:
        The address of the commit.

    Raises:
        HubError: There is no token or no repository, the repository is public and was to be
            private, the licence of a public one is missing, or the hub refuses or does not answer.
    """
    if folder.licence is None and not private:
        raise HubError(
            f"{repository}: expected a licence, without which nobody may use what is public: give "
            "--licence (of the hub's names: mit, apache-2.0, cc-by-4.0, cc-by-nc-sa-4.0 ...), or "
            "--private"
        )
    if get_token() is None:
        raise HubError(f"{constants.ENDPOINT}: expected a token that may write: {LOG_IN}")
    if not is_reachable():
        raise HubError(f"{constants.ENDPOINT} does not answer: nothing was uploaded")
    try:
        return _upload(folder, repository, private, message, revision, create)
    except HubError:
        raise
    # Of several libraries, one of which has changed its name.
    except Exception as error:
        raise HubError(f"{repository}: not uploaded: {reason(repository, error)}") from error


def _upload(
    folder: HubFolder,
    repository: str,
    private: bool,
    message: str | None,
    revision: str | None,
    create: bool,
) -> str:
    api = HfApi()
    try:
        known = api.model_info(repository)
    except RepositoryNotFoundError:
        if not create:
            raise
        api.create_repo(repository, private=private)
    else:
        if private and not known.private:
            raise HubError(
                f"{repository}: expected a private repository, found a public one: make it private "
                f"on {constants.ENDPOINT}/{repository}/settings, or leave --private out"
            )
    if revision:
        api.create_branch(repository, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repository,
        folder_path=folder.path,
        commit_message=message or f"Upload the {folder.model} with fsasd",
        revision=revision,
        delete_patterns=list(_REPLACED),
    )
    return str(commit.commit_url)
