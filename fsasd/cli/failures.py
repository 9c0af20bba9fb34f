"""What the error of a run says, in one line."""

from __future__ import annotations

from hydra.errors import InstantiationException

from fsasd.runtime.errors import message


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
