"""An encoder with its pooling as a module, through which gradients pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchaudio.functional import resample

from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.encoders.loading import load
from fsasd.detectors.encoders.pooling import pool, require_statistics
from fsasd.detectors.networks.augment import spec_augment

BANDS = "bands"


class TrainableEncoder(nn.Module):
    """A pretrained encoder in batches: waveforms (batch, samples) at 16 kHz -> (batch, dim).

    Args:
        source: See ``loading.load``.
        seconds: Length of the waveforms.
        layer: Index of the hidden states that are pooled: 0 is the input of the first layer. Of
            several, states are averaged.
        pool: Statistics over the steps (see ``pooling.pool``); ``bands``, of an encoder that has
            them: the mean over time of each of its frequency bands.
        masks: Largest numbers of bins and of frames that are masked in training, of an encoder of
            spectrograms.
        revision: See ``loading.load``.

    Raises:
        FileNotFoundError, ValueError: See ``loading.load``; or ``seconds`` is more than the
            encoder takes, or the layer or the pooling is none of its.
    """

    def __init__(
        self,
        source: str,
        seconds: float,
        layer: int | Sequence[int] = -1,
        pool: str = "mean",
        masks: tuple[int, int] = (0, 0),
        revision: str | None = None,
    ) -> None:
        super().__init__()
        if pool != BANDS:
            require_statistics(pool)
        self.source = source
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        self.pool = pool
        self.masks = masks
        self.encoder = load(source, revision=revision)
        self.model = self.encoder.network
        if pool == BANDS and self.encoder.steps.bands == 1:
            raise ValueError(
                f"pool 'bands': expected an encoder with frequency bands, such as AST, found "
                f"{type(self.encoder).__name__} ({source})"
            )
        self._require_length(seconds)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim)."""
        with torch.autocast(waveforms.device.type, enabled=False):
            resampled = resample(waveforms.float(), SAMPLE_RATE, self.encoder.rate)
        inputs = self.encoder.inputs(resampled)
        name = self.encoder.spectrogram
        if name and self.training and any(self.masks):
            spectrograms = inputs[name].transpose(1, 2)
            inputs[name] = spec_augment(spectrograms, *self.masks).transpose(1, 2)
        return self._pooled(self._chosen(self.encoder.states(inputs)))

    def _chosen(self, states: list[torch.Tensor]) -> torch.Tensor:
        count = len(states)
        if wrong := [number for number in self.layers if not -count <= number < count]:
            raise ValueError(f"layer {wrong[0]}: {self.source} has {count}, 0 to {count - 1}")
        chosen = [states[number] for number in self.layers]
        return chosen[0] if len(chosen) == 1 else torch.stack(chosen).mean(dim=0)

    def _pooled(self, states: torch.Tensor) -> torch.Tensor:
        if self.pool == BANDS:
            return pool(self.encoder.steps.grid(states), "mean")
        # Tokens of the clip are steps, too.
        return pool(states[:, None], self.pool, correction=1)

    def _require_length(self, seconds: float) -> None:
        window = self.encoder.window
        if window is not None and round(seconds * self.encoder.rate) > window:
            raise ValueError(
                f"seconds={seconds:g}: expected at most the {window / self.encoder.rate:g} seconds "
                f"of {self.source}'s input. Set fewer seconds"
            )
