"""The heading of a run's page: its name and date, all that equal runs differ in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from markupsafe import escape

PAGE = "report.html"

PAGES = "report"
"""Folder beside it, of the pages of a run of many machines."""


@dataclass(frozen=True)
class Heading:
    """Name and date of a run.

    Attributes:
        name: Its experiment, or its folder's name.
        date: When it began, to the minute.
    """

    name: str
    date: str

    @classmethod
    def of(cls, folder: Path, experiment: str | None) -> Self:
        """Return that of the run in a folder.

        Args:
            folder: The run's folder.
            experiment: The choice of this group, if there is one.
        """
        config = folder / ".hydra" / "config.yaml"
        time = datetime.fromtimestamp((config if config.is_file() else folder).stat().st_mtime)
        return cls(experiment or folder.resolve().name, f"{time:%Y-%m-%d %H:%M}")

    def replaced(self, page: str, other: Heading) -> str:
        """Return the page of an equal run: this page with another name and date.

        Args:
            page: Of ``report.html``, or of a machine.
            other: Name and date of the equal run.

        >>> page = "<title>a &amp; b · fsasd</title><h1>a &amp; b</h1><dt>Date</dt><dd>1</dd>"
        >>> Heading("a & b", "1").replaced(page, Heading("c", "2"))
        '<title>c · fsasd</title><h1>c</h1><dt>Date</dt><dd>2</dd>'
        """
        for old, new in zip(self._elements(), other._elements(), strict=True):
            page = page.replace(old, new, 1)
        return page

    def _elements(self) -> list[str]:
        name = escape(self.name)
        return [
            # A machine's page has the machine's name between the run's and ours.
            f"<title>{name} · ", f"<h1>{name}</h1>", f"<dt>Date</dt><dd>{escape(self.date)}</dd>",
        ]  # fmt: skip
