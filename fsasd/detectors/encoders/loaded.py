"""What every family of encoders is: waveforms -> hidden states of each layer."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Steps:
    """What is known of the steps of an encoder's states.

    Args:
        tokens: How many of the first steps are of the whole clip.
        bands: Frequency bands of the others, the lowest first; 1 where they are steps of time only.
        by_time: Whether the bands of a frame are adjacent, instead of the frames of a band.

    >>> Steps(tokens=1, bands=2).grid(torch.arange(7.0).reshape(1, 7, 1)).flatten(2).tolist()
    [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]
    >>> Steps(bands=2, by_time=True).grid(torch.arange(6.0).reshape(1, 6, 1)).flatten(2).tolist()
    [[[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]]
    """

    tokens: int = 0
    bands: int = 1
    by_time: bool = False

    def grid(self, states: torch.Tensor) -> torch.Tensor:
        """Return the (batch, bands, frames, dim) states of (batch, steps, dim), without tokens."""
        patches = states[:, self.tokens :]
        if self.by_time:
            return patches.unflatten(1, (-1, self.bands)).transpose(1, 2)
        return patches.unflatten(1, (self.bands, -1))


class LoadedEncoder(abc.ABC):
    """A pretrained encoder: (batch, samples) at its rate -> (batch, steps, dim) of each layer.

    Layer 0 is the input of the first block where the encoder gives it.

    Attributes:
        network: The network, in evaluation.
        rate: Sampling rate of its input, Hz.
        window: Largest number of samples that it takes; ``None`` if it has no limit.
        least: Smallest number, up to which a clip is repeated; ``None`` for ``window``, or 0.1 s.
        steps: What the steps of its states are.
        spectrogram: Name of the (batch, frames, bins) input that SpecAugment may mask, if any.
    """

    network: Any
    rate: int
    window: int | None = None
    least: int | None = None
    steps: Steps = Steps()
    spectrogram: ClassVar[str | None] = None

    def __call__(self, waveforms: torch.Tensor) -> list[torch.Tensor]:
        """Return the states of each layer."""
        return self.states(self.inputs(waveforms))

    @abc.abstractmethod
    def inputs(self, waveforms: torch.Tensor) -> Inputs:
        """Return what the network takes, computed in whole batches where the waveforms are."""

    @abc.abstractmethod
    def states(self, inputs: Inputs) -> list[torch.Tensor]:
        """Return the states of each layer."""

    def features(self, waveforms: torch.Tensor) -> list[torch.Tensor]:
        """Return states of one size that represent a clip while the network is frozen."""
        return self(waveforms)
