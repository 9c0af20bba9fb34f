"""Griffe extension: doctests become code blocks, which Markdown would read as quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Fences the doctests of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    r"""Return a docstring whose doctests are code blocks.

    Args:
        docstring: As it is written.

    >>> fenced("One.\n\n>>> 1 + 1\n2")
    'One.\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    return re.sub(r"^( *)(>>> .*(?:\n *\S.*)*)", r"\1```pycon\n\1\2\n\1```", docstring, flags=re.M)
