"""Wilkinghoff's system of DCASE 2023: spectrum and spectrogram, sub-cluster AdaCos, an ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.networks.backbones import ResNet, SpectrumBranch, magnitudes
from fsasd.detectors.networks.classifier import Classifier, Training
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import SubClusterAdaCos

BINS = 513


class DualBranch(nn.Module):
    """A branch for the spectrum of the whole clip, and one for its mean-free spectrogram.

    Args:
        samples: Of the waveforms.
        dim: Of each branch's embeddings.
        channels: Of the spectrogram branch's first stage.
        squeeze: Squeeze-and-excitation, as in the later system (github.com/wilkinghoff/ssl4asd).
    """

    def __init__(
        self, samples: int, dim: int = 128, channels: int = 16, squeeze: bool = False
    ) -> None:
        super().__init__()
        self.spectrum = SpectrumBranch(samples, dim, squeeze)
        self.spectrogram = ResNet(BINS, dim, channels, squeeze)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, 2 dim)."""
        return torch.cat(
            [self.spectrum(waveforms), self.embed_spectrogram(magnitudes(waveforms))], dim=1
        )

    def embed_spectrogram(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """Return the (batch, dim) embeddings of the spectrogram branch."""
        return self.spectrogram(spectrograms - spectrograms.mean(dim=2, keepdim=True))


@dataclass(eq=False, repr=False)
class FKIE(Discriminative):
    """The networks of Wilkinghoff_FKIE, the system of Fraunhofer FKIE as ``main_old.py`` has it.

    github.com/wilkinghoff/DCASE2023_task2 at commit 0bd6adc holds two versions. This is
    ``main_old.py``: ten networks of 2.7 million parameters, every example mixed with another. A
    clip's score is the mean over networks of the smallest cosine distance to 16 k-means centres of
    the source domain and all target clips (``centres``). The other, ``main.py``, turns half of
    the examples into mixtures with further classes, compares with the mean of each source class and
    takes the highest score.

    Deviations: the start of a repeated clip is drawn anew in each epoch, where the original draws
    it once; scoring starts at 0. The mean of the networks' scores replaces their sum, which ranks
    clips alike. The angle that adapts AdaCos' scale: see ``heads.SubClusterAdaCos``.

    Args:
        networks: How many.
        dim: Of each branch's embeddings.
        channels: Of the spectrogram branch's first stage.
        clusters: Sub-clusters of a class.
        training: A weight decay of 2e-5 is the original's penalty of 1e-5 times squared weights;
            no clip of DCASE exceeds 18 seconds.
    """

    networks: int = 10
    dim: int = 128
    channels: int = 16
    clusters: int = 16
    training: Training = Training(seconds=18.0, epochs=10, weight_decay=2e-5, mixup=1.0)

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return both branches and AdaCos."""
        samples = round(self.training.seconds * SAMPLE_RATE)
        return Classifier(
            DualBranch(samples, self.dim, self.channels),
            SubClusterAdaCos(2 * self.dim, n_classes, self.clusters),
            self.training,
        )
