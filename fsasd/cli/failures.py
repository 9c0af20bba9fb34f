"""What the error of a run says, in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from hydra.errors import InstantiationException

from fsasd.runtime.errors import message

log = logging.getLogger(__name__)


def reason(error: BaseException) -> str:
    r"""Return what an error says, in one line.

    >>> reason(ValueError("seed: expected an integer,\n found x"))
    'seed: expected an integer, found x'
    """
    # What a constructor says is clearer than that Hydra called it.
    called = isinstance(error, InstantiationException) and error.__cause__ is not None
    text = str(error.__cause__) if called else message(error)
    return " ".join(text.split()) or type(error).__name__


def is_expected(error: BaseException) -> bool:
    """Return whether an error says all that its user needs to know.

    >>> is_expected(ValueError()), is_expected(ZeroDivisionError())
    (True, False)
    """
    return isinstance(error, (ValueError, OSError, ImportError, InstantiationException))


@contextlib.contextmanager
def ending_the_command(what: str) -> Iterator[None]:
    """End the command with exit code 1 where a callback raises an error, and say why in one line.

    Hydra would make a warning of it, and go on.

    Args:
        what: Happened, e.g. that a sweep was refused.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") or not is_expected(error):
            log.error("%s", what, exc_info=error)
        print(reason(error), file=sys.stderr, flush=True)
        sys.exit(1)
