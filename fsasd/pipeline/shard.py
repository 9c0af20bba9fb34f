"""``Shard``: the sections of a run that one of several commands builds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fsasd.data.names import SectionId


@dataclass(frozen=True)
class Shard:
    """A share of a run's sections, the same on all machines.

    Args:
        number: Which share, from 1 on.
        count: How many there are.

    >>> sections = [SectionId(machine, "00") for machine in ("valve", "fan", "pump")]
    >>> [sorted(str(one) for one in Shard(number, 2).of(sections)) for number in (1, 2)]
    [['fan section 00', 'valve section 00'], ['pump section 00']]
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Return the share that ``2/8`` names; all sections where there is no text.

        Raises:
            ValueError: It is none of those there are.

        >>> Shard.parse("2/8"), Shard.parse(None).is_whole
        (Shard(number=2, count=8), True)
        """
        if text is None:
            return cls()
        match = re.fullmatch(r"(\d+)/(\d+)", str(text))
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(
                f"shard={text}: expected i/n with i from 1 to n, as in shard=1/8 to shard=8/8 (for "
                "SLURM: --array=1-8 and shard=$SLURM_ARRAY_TASK_ID/8)"
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def is_whole(self) -> bool:
        """Whether it has all sections."""
        return self.count == 1

    def of(self, sections: Iterable[SectionId]) -> set[SectionId]:
        """Return those of the share: every n-th by name."""
        return set(sorted(set(sections))[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
