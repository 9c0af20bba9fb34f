"""The moving average of weights, and how it takes their place for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import lightning as L
import torch
from diffusers.training_utils import EMAModel


class WeightAverage(EMAModel):
    """A moving average that can change places with the weights, where they are.

    To change places is to copy on the device that both are on, and takes the memory of one weight
    more. After an even number of times everything is as it was, to the last bit.

    >>> weights = [torch.nn.Parameter(torch.zeros(2))]
    >>> average = WeightAverage(weights, decay=0.5)
    >>> weights[0].data += 1
    >>> with average.swapped_in(weights):
    ...     weights[0].tolist(), average.swapped
    ([0.0, 0.0], True)
    >>> weights[0].tolist(), average.swapped
    ([1.0, 1.0], False)
    """

    swapped = False
    """Whether the weights are here, and the average is where they were."""

    @torch.no_grad()
    def swap(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Change places with the weights."""
        for weight, average in zip(weights, self.shadow_params, strict=True):
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)
        self.swapped = not self.swapped

    def restore(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Let the weights be where they belong."""
        if self.swapped:
            self.swap(weights)

    @contextlib.contextmanager
    def swapped_in(self, weights: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """Be where the weights are, meanwhile; within itself it does nothing."""
        if self.swapped:
            yield
            return
        self.swap(weights)
        try:
            yield
        finally:
            self.restore(weights)

    def separate(
        self, weights: Sequence[torch.nn.Parameter]
    ) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Return the weights and their average, wherever each is at the moment."""
        places = weights, self.shadow_params
        return (places[1], places[0]) if self.swapped else places


class RestoreWeights(L.Callback):
    """Puts weights back where an exception ends a validation that had swapped them."""

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        average = getattr(pl_module, "ema", None)
        if isinstance(average, WeightAverage):
            average.restore(pl_module.trained_weights())  # type: ignore[operator]
