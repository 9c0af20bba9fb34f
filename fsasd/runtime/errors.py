"""Errors that say what was being done: those of a full disk often name neither file nor step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Note on an error what was being done.

    Args:
        what: As in "building detect of fan section 00 in <folder>".

    >>> try:
    ...     with doing("writing tables"):
    ...         raise OSError(28, "No space left on device")
    ... except OSError as error:
    ...     message(error)
    '[Errno 28] No space left on device (while writing tables)'
    """
    try:
        yield
    except Exception as error:
        error.add_note(f"(while {what})")
        raise


def message(error: BaseException) -> str:
    """Return what an error says, and what was being done."""
    return " ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
