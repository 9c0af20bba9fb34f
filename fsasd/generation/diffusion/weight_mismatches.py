"""Mismatches between a checkpoint and a model: missing, unexpected, mis-shaped weights at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch

Shapes = tuple[Sequence[int], Sequence[int]]


class CheckpointError(ValueError):
    """A checkpoint cannot be loaded; the message lists what is missing."""


@dataclass
class WeightMismatches:
    """Weights of a checkpoint that do not match the model they are loaded into.

    Left alone, libraries drop what does not match, and start from random weights there.

    >>> mismatches = WeightMismatches()
    >>> mismatches.compare("unet", {"a": torch.zeros(2), "c": torch.zeros(1)},
    ...                    {"a": torch.zeros(3), "b": torch.zeros(1)})
    >>> mismatches.missing, mismatches.unexpected, mismatches.mis_shaped
    (['unet.b'], ['unet.c'], {'unet.a': ((2,), (3,))})
    >>> mismatches.check("model", allow=["unet.?"])
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mis_shaped: dict[str, Shapes] = field(default_factory=dict)

    def add(
        self,
        component: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        mis_shaped: Mapping[str, Shapes] | None = None,
    ) -> None:
        """Record mismatches of one component."""
        self.missing += sorted(f"{component}.{key}" for key in missing)
        self.unexpected += sorted(f"{component}.{key}" for key in unexpected)
        for key, (shape, expected) in sorted((mis_shaped or {}).items()):
            self.mis_shaped[f"{component}.{key}"] = tuple(shape), tuple(expected)

    def compare(
        self,
        component: str,
        weights: Mapping[str, torch.Tensor],
        expected: Mapping[str, torch.Tensor],
    ) -> None:
        """Record how weights differ from the expected ones, in names and shapes."""
        shared = weights.keys() & expected.keys()
        self.add(
            component,
            expected.keys() - weights.keys(),
            weights.keys() - expected.keys(),
            {
                key: (weights[key].shape, expected[key].shape)
                for key in shared
                if weights[key].shape != expected[key].shape
            },
        )

    def check(self, source: str, allow: Sequence[str] = (), model: str = "the model") -> None:
        """Raise an error unless every mismatch is allowed by name.

        Args:
            source: Of the weights, for the message.
            allow: Names that may be missing, superfluous or of another shape; ``*`` stands for
                anything.
            model: Name of what the weights are to fit, for the message.

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
        problems = [
            f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in lists.items() if keys
        ]
        if problems:
            raise CheckpointError(
                f"{source}: the weights do not fit {model}: {'; '.join(problems)}. What may be so "
                "can be allowed by name: generator.allow=[...]"
            )
