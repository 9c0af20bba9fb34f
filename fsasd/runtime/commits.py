"""Commits of the hub's repositories that this process has loaded, for provenances."""

_loaded: dict[str, str] = {}


def note_loaded(repository: str, commit: str) -> None:
    """Note which commit of a repository was loaded."""
    _loaded[repository] = commit


def loaded() -> dict[str, str]:
    """Return the commits that were loaded, by the ids of their repositories.

    >>> note_loaded("somebody/model", "0123abc")
    >>> loaded()["somebody/model"]
    '0123abc'
    """
    return dict(sorted(_loaded.items()))
