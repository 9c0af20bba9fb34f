"""Warnings of recordings that differ in bandwidth, level or length from the training clips."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fsasd.data.check.likeness import Profile
from fsasd.data.check.wording import SHOWN, many


class LikenessMonitor:
    """Counts the recordings that are unlike the training clips, and in what.

    Args:
        profile: Of the training clips.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._n = 0
        self._messages: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def update(self, measures: Sequence[Mapping[str, Any]]) -> list[str]:
        """Add recordings; return in what some are unlike the training clips for the first time.

        Args:
            measures: See ``ScoringCache.measures``.
        """
        if not measures:
            return []
        self._n += len(measures)
        columns = {name: [row[name] for row in measures] for name in measures[0]}
        new = []
        for kind, message, which in self._profile.differences(columns):
            files = list(itertools.compress(columns["path"], which))
            if kind not in self._messages:
                self._messages[kind] = message
                new.append(f"{message} ({files[0]})")
            self._counts[kind] = self._counts.get(kind, 0) + len(files)
            examples = self._examples.setdefault(kind, [])
            # Windows of a stream have one name.
            other = [file for file in dict.fromkeys(files) if file not in examples]
            examples += other[: SHOWN - len(examples)]
        return new

    def summary(self) -> Iterator[str]:
        """Yield a line for each property in which recordings were unlike the training clips."""
        for kind, message in self._messages.items():
            count, examples = self._counts[kind], self._examples[kind]
            more = f" and {count - SHOWN} more" if count > len(examples) == SHOWN else ""
            yield (
                f"{count} of {many(self._n, 'recording')}: {message} ({', '.join(examples)}{more})"
            )
