"""Which weights a checkpoint lacks, has too many of or has in another shape: one error for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch

from fsasd.generation.checkpoint.components import CheckpointError

Shapes = tuple[Sequence[int], Sequence[int]]


@dataclass
class WeightMismatches:
    """What does not fit between weights that were found and the model that they are for.

    The original AudioLDM drops what does not fit, in silence, and starts from random weights there.

    >>> found = WeightMismatches()
    >>> found.compare("unet", {"a": torch.zeros(2), "c": torch.zeros(1)},
    ...               {"a": torch.zeros(3), "b": torch.zeros(1)})
    >>> found.missing, found.unexpected, found.mis_shaped
    (['unet.b'], ['unet.c'], {'unet.a': ((2,), (3,))})
    >>> found.check("model", allow=["unet.?"])
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mis_shaped: dict[str, Shapes] = field(default_factory=dict)

    def add(
        self,
        part: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        mis_shaped: Mapping[str, Shapes] | None = None,
    ) -> None:
        """Note what does not fit in one part of the model."""
        self.missing += sorted(f"{part}.{key}" for key in missing)
        self.unexpected += sorted(f"{part}.{key}" for key in unexpected)
        for key, (found, wanted) in sorted((mis_shaped or {}).items()):
            self.mis_shaped[f"{part}.{key}"] = tuple(found), tuple(wanted)

    def compare(
        self, part: str, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
    ) -> None:
        """Note how the weights that were found differ from those wanted, in names and shapes."""
        shared = found.keys() & wanted.keys()
        self.add(
            part,
            wanted.keys() - found.keys(),
            found.keys() - wanted.keys(),
            {
                key: (found[key].shape, wanted[key].shape)
                for key in shared
                if found[key].shape != wanted[key].shape
            },
        )

    def check(self, source: str, allow: Sequence[str] = ()) -> None:
        """Raise unless all that does not fit is allowed by name.

        Args:
            source: Where the weights were found.
            allow: Names that may be missing, superfluous or of another shape; ``*`` stands for
                anything.

        Raises:
            CheckpointError: Lists everything else.
        """

        def rest(keys: Iterable[str]) -> list[str]:
            return [k for k in keys if not any(fnmatchcase(k, pattern) for pattern in allow)]

        lists = {
            "missing": rest(self.missing),
            "unexpected": rest(self.unexpected),
            "of another shape": [
                f"{key} {list(self.mis_shaped[key][0])} instead of {list(self.mis_shaped[key][1])}"
                for key in rest(self.mis_shaped)
            ],
        }
        told = [f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in lists.items() if keys]
        if told:
            raise CheckpointError(
                f"{source}: the weights do not fit AudioLDM: {'; '.join(told)}. What may be so "
                "can be allowed by name: generator.allow=[...]"
            )
