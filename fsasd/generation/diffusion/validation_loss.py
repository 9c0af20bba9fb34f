"""Validation loss of each machine, label and role, at noise that is the same at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fsasd.data.clips import Clips


def fixed_noise(indices: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Return (n, channels, frames, ...) of noise, which depends on the clip's index alone."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in indices]
    )


def fixed_timesteps(indices: Sequence[int], n_timesteps: int) -> torch.Tensor:
    """Return (n,) timesteps; the golden ratio spreads any number of clips evenly over them.

    >>> fixed_timesteps(range(5), 1000)
    tensor([500, 118, 736, 354, 972])
    """
    phase = [(i * (math.sqrt(5) - 1) / 2 + 0.5) % 1 for i in indices]
    return torch.tensor([int(p * n_timesteps) for p in phase])


class GroupLosses:
    """The mean loss over all clips, and of each machine, label and role.

    Each process adds the losses of its clips; summed over processes, ``sums`` holds all. A clip
    that several processes had counts once.

    Args:
        clips: What is validated on.
        kinds: Names of the losses of a clip.

    >>> from pathlib import Path
    >>> from fsasd.data.metadata import Clip
    >>> clips = Clips([Clip(Path("a.wav"), "fan", "target", label="normal")])
    >>> losses = GroupLosses(clips, ["val"])
    >>> losses.add("val", [0], torch.tensor([0.5]))
    >>> losses.means()
    {'val/loss': 0.5, 'val/machine/fan': 0.5, 'val/label/normal': 0.5, 'val/role/target': 0.5}
    """

    def __init__(self, clips: Clips, kinds: Sequence[str]) -> None:
        self.kinds = list(kinds)
        self.groups: dict[str, list[int]] = {"loss": list(range(len(clips)))}
        for field in ("machine", "label", "role"):
            values = [getattr(clip, field) for clip in clips]
            for value in sorted({value for value in values if value}):
                members = [i for i, other in enumerate(values) if other == value]
                self.groups[f"{field}/{value}"] = members
        # Of each kind: the losses, and the number of processes that had the clip.
        self.sums = torch.zeros(len(self.kinds), 2, len(clips))

    def add(self, kind: str, indices: Sequence[int], losses: torch.Tensor) -> None:
        """Add the (n,) losses of some clips."""
        sums = self.sums[self.kinds.index(kind)]
        sums[0, list(indices)] = losses.detach().float().cpu()
        sums[1, list(indices)] = 1

    def means(self) -> dict[str, float]:
        """Return ``<kind>/<group>`` -> mean, of the groups that have a loss."""
        means = {}
        for kind, (losses, times) in zip(self.kinds, self.sums, strict=True):
            for name, members in self.groups.items():
                known = [i for i in members if times[i]]
                if known:
                    means[f"{kind}/{name}"] = float((losses[known] / times[known]).mean())
        return means
