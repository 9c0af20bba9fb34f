"""The moving average of weights, which can be swapped with the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import lightning as L
import torch
from diffusers.training_utils import EMAModel


class WeightAverage(EMAModel):
    """A moving average that can be swapped with the weights in place.

    A swap copies on the device that both are on, and takes the memory of one more weight. After an
    even number of swaps everything is as it was, to the last bit.

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
    """Whether average and weights are swapped at the moment."""

    @torch.no_grad()
    def swap(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Swap average and weights."""
        for weight, average in zip(weights, self.shadow_params, strict=True):
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)
        self.swapped = not self.swapped

    def restore(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Undo a swap, if there was one."""
        if self.swapped:
            self.swap(weights)

    @contextlib.contextmanager
    def swapped_in(self, weights: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """Swap for the time of a context; nested, it does nothing."""
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
        """Return the weights and their average, whether or not they are swapped."""
        places = weights, self.shadow_params
        return (places[1], places[0]) if self.swapped else places


class RestoreWeights(L.Callback):
    """Undoes a swap where an exception ends a validation."""

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        average = getattr(pl_module, "ema", None)
        if isinstance(average, WeightAverage):
            average.restore(pl_module.trained_weights())  # type: ignore[operator]
