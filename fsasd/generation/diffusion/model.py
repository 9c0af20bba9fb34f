"""The interface of latent diffusion models: what training, sampling and editing need of one."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Condition = torch.Tensor | dict[str, torch.Tensor]
"""What the network is given of a caption: one tensor (batch, ...), or several by name."""


class Model(abc.ABC):
    """A latent diffusion model: a network that is trained, and what is frozen around it.

    Latents are (channels, frames) or (channels, frames, bins): time is axis 1.

    Attributes:
        network: A model of diffusers, which is trained; its weights come from a checkpoint.
        scheduler: Of diffusers, with the noise schedule that the network was trained with.
        sampling_rate: Of waveforms, in Hz.
        hop: Samples of a latent frame.
        unused: Patterns of the network's weights that ``predict`` does not use; never trained.
        inpaints: Whether the network was trained to be given the rest of a clip (``with_rest``).
    """

    network: Any
    scheduler: Any
    sampling_rate: int
    hop: int
    unused: Sequence[str] = ()
    inpaints: bool = False

    @abc.abstractmethod
    def frozen(self) -> Sequence[nn.Module]:
        """Return the modules that are never trained."""

    @abc.abstractmethod
    def encode(self, waveform: np.ndarray) -> torch.Tensor:
        """Return what is cached of a waveform: a latent, or the moments of its distribution.

        Args:
            waveform: (samples,) at the model's rate, with a peak of 0.5.

        Returns:
            (channels, frames, ...), where ``latent`` may need more channels than the latent has.
        """

    def latent(self, encoded: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Return latents as the network gets them, of batches that ``encode`` gave.

        Args:
            encoded: (batch, channels, frames, ...)
            noise: Of the latents' shape, to sample from their distributions; the mean without.
        """
        return encoded

    @abc.abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return (batch, samples) waveforms of latents, at least ``frames * hop`` samples."""

    @abc.abstractmethod
    def condition(self, captions: Sequence[str], seconds: float) -> Condition:
        """Return the condition of captions, on the CPU.

        Args:
            captions: Each has the same shape in every call.
            seconds: Length of the clips.
        """

    @abc.abstractmethod
    def predict(
        self,
        network: Callable[..., Any],
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Condition,
    ) -> torch.Tensor:
        """Return a network's prediction for latents, of the latents' shape.

        Args:
            network: Called as ``self.network`` is; it may be another of the same configuration.
            latents: (batch, channels, frames, ...), noised.
            timesteps: (batch,) or a scalar.
            condition: Of the batch.
        """

    def with_rest(
        self, condition: Condition, latents: torch.Tensor, kept: torch.Tensor
    ) -> Condition:
        """Return a condition that also says what a clip is outside of the region to generate.

        Only of a model that ``inpaints``.

        Args:
            condition: Of the batch.
            latents: (batch, channels, frames, ...) of the real clips.
            kept: (batch, 1, frames), 0 in the region, 1 outside of it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no input for inpainting")

    def levels(self, steps: int, start: float) -> list[float]:
        """Return the shares of noise that a sampler of flow matching passes through.

        Args:
            steps: Their number; the noiseless end is not among them.
            start: The first share, 1 for pure noise.
        """
        return even_levels(steps, start)

    @abc.abstractmethod
    def latent_shape(self, frames: int) -> tuple[int, ...]:
        """Return the shape of a latent with so many frames."""

    @abc.abstractmethod
    def save(self, network: Any, folder: Path) -> None:
        """Write the model, with another network of the same configuration, in its layout."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Return a name of all that ``encode`` depends on, its weights included, as a key."""


def fingerprint(module: nn.Module) -> str:
    """Return a hash of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def even_levels(steps: int, start: float) -> list[float]:
    """Return so many shares of noise from the first one on, evenly spaced above 0.

    >>> even_levels(4, 1.0)
    [1.0, 0.75, 0.5, 0.25]
    """
    return torch.linspace(start, 0, steps + 1)[:-1].tolist()


def map_condition(function: Callable[..., torch.Tensor], *conditions: Condition) -> Condition:
    """Apply a function to the tensors of conditions, name by name.

    >>> map_condition(torch.add, {"text": torch.ones(1)}, {"text": torch.ones(1)})
    {'text': tensor([2.])}
    """
    first = conditions[0]
    if isinstance(first, torch.Tensor):
        return function(*conditions)
    return {name: function(*(one[name] for one in conditions)) for name in first}  # type: ignore[index]


def tensor_of(condition: Condition) -> torch.Tensor:
    """Return one tensor of numbers of a condition, with its batch size, device and type."""
    if isinstance(condition, torch.Tensor):
        return condition
    return next(tensor for tensor in condition.values() if tensor.is_floating_point())
